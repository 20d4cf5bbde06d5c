// `veil forget` and `veil expire`: what would be erased, the question, what was, and the receipt.
import { chainAudit } from "../audit-chain.ts";
import { withDatabase } from "../connected.ts";
import type { Database } from "../database.ts";
import {
  type Expired,
  type Expiry,
  expire,
  type Forgotten,
  forget,
  type Outcome,
  type Place,
  type Planned,
  placeOf,
  planForget,
  type Receipt,
  roughCount,
  type Subject,
  WHETHER_IT_WAS_DONE,
} from "../erasure.ts";
import { failed, misuse } from "../failure.ts";
import { Interrupted } from "../interrupted.ts";
import { plural } from "../plural.ts";
import type { Context } from "../session.ts";
import { Progress, type Terminal, table } from "../terminal.ts";
import { requiredReason, withRole } from "./governed.ts";
import { readTokens } from "./read-tokens.ts";
import { withReceipt } from "./receipt.ts";

const NEEDS = { login: "local_eraser", variables: [] } as const;

export type ForgetCommand = {
  readonly user: string | null;
  readonly reason: string | null;
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly json: boolean;
  /** Where the receipt is written to, besides. */
  readonly receipt: string | null;
};

export async function runForget(
  context: Context,
  args: readonly string[],
  command: ForgetCommand,
): Promise<void> {
  const { terminal } = context;
  if ((command.user !== null) === args.length > 0) {
    throw misuse("expected tokens, or --user", "a user id that several people share is no person");
  }
  if (command.user !== null && [...command.user].length > 128) {
    throw misuse("expected a user id of up to 128 characters");
  }
  const subject: Subject =
    command.user === null
      ? { tokens: [...(await readTokens(terminal, args))] }
      : { user: command.user };
  const mayAsk = isAtTerminal(terminal) && !args.includes("-");
  const { interruptible, uninterrupted } = withPatience(context);
  await withDatabase(interruptible, NEEDS, async (database) => {
    await withRole(database, "veil_eraser", async () => {
      if (command.dryRun) {
        const plan = await planOnRecord(database, subject);
        if (command.json) terminal.out(`${JSON.stringify(plan)}\n`);
        else terminal.out(planTable(plan, subject, terminal.isStdoutTerminal));
        terminal.err(plan.length === 0 ? NOTHING : "nothing was erased: this was a dry run\n");
        return;
      }
      const reason = await requiredReason(terminal, command.reason, mayAsk);
      if (mayAsk && !command.yes) await confirmPlan(database, terminal, subject);
      const done = await uninterrupted(() =>
        withReceipt(command.receipt, () => forgetOnRecord(database, subject, reason)),
      );
      report(terminal, subject, done, command.json);
    });
  });
}

/** What was sent to the server may be done however this ends: the first Ctrl-C says so, and waits for the answer. */
function withPatience(context: Context) {
  const ending = new AbortController();
  let isSent = false;
  const end = () => {
    if (isSent) context.terminal.err(WAITING);
    else ending.abort();
  };
  if (context.interrupt.aborted) end();
  else context.interrupt.addEventListener("abort", end, { once: true });
  return {
    interruptible: { ...context, interrupt: ending.signal },
    uninterrupted: async <T>(work: () => Promise<T>): Promise<T> => {
      if (ending.signal.aborted) throw new Interrupted();
      isSent = true;
      return await work();
    },
  };
}

const WAITING =
  "\nthe server is at it already: waiting for its answer; Ctrl-C again leaves it alone, and then " +
  `it may be done all the same: ${WHETHER_IT_WAS_DONE}\n`;

const isAtTerminal = ({ isStdinTerminal, isStderrTerminal }: Terminal): boolean =>
  isStdinTerminal && isStderrTerminal;

const NOTHING = "no row has this user id: there is nothing to erase\n";

const WORDS: Readonly<Record<Outcome, string>> = {
  erase: "erased",
  keep: "kept: others have it",
  replace: "replaced: it is no token",
  forgotten: "was forgotten before",
  held: "under a legal hold",
  unknown: "the vault does not hold it",
};

function wordsOf(outcome: Outcome, subject: Subject): string {
  if (outcome === "keep" && "user" in subject)
    return "kept for others, this user's rows get fresh ones";
  return WORDS[outcome];
}

const planTable = (plan: readonly Planned[], subject: Subject, withHeader: boolean): string =>
  table(
    ["TOKEN", "FIELD", "LOGINS", "OTHER USERS", "WHAT BECOMES OF IT"],
    plan.map(({ token, field, logins, others, outcome }) => [
      ...[token ?? "(no token)", field, String(logins), String(others)],
      wordsOf(outcome, subject),
    ]),
    withHeader,
  );

/** As many lines as a person looks at before a question. */
const SHOWN = 40;

async function planOnRecord(database: Database, subject: Subject): Promise<Planned[]> {
  const plan = await planForget(database, subject);
  await chainAudit(database);
  return plan;
}

async function confirmPlan(database: Database, terminal: Terminal, subject: Subject) {
  const plan = await planOnRecord(database, subject);
  if (plan.length === 0) terminal.err(NOTHING);
  else terminal.err(planTable(plan.slice(0, SHOWN), subject, true));
  if (plan.length > SHOWN) {
    terminal.err(`… and ${plan.length - SHOWN} more: --dry-run prints all of them\n`);
  }
  await confirm(terminal, "what is erased does not come back; type yes to erase: ");
}

async function confirm(terminal: Terminal, question: string): Promise<void> {
  if ((await terminal.ask(question)).trim() === "yes") return;
  throw failed("nothing was erased", "only yes is taken for yes; --yes asks nothing");
}

type Done = Forgotten & {
  readonly written: Receipt & { readonly audit: { readonly entry: number } & Partial<Place> };
};

async function forgetOnRecord(database: Database, subject: Subject, reason: string): Promise<Done> {
  const done = await forget(database, subject, reason);
  await chainAudit(database);
  // Erased is erased, and on record: where exactly may be looked up later.
  const place = await placeOf(database, done.entry).catch(() => null);
  return { ...done, written: { ...done.receipt, audit: { entry: done.entry, ...place } } };
}

function report(terminal: Terminal, subject: Subject, done: Done, json: boolean): void {
  const { outcomes, receipt, entry, written } = done;
  if (json) terminal.out(`${JSON.stringify(written)}\n`);
  else if (outcomes.length === 0) terminal.err(NOTHING);
  else {
    const rows = outcomes.map(({ token, field, outcome }) => [
      ...[token ?? "(no token)", field],
      wordsOf(outcome, subject),
    ]);
    terminal.out(table(["TOKEN", "FIELD", "WHAT BECAME OF IT"], rows, terminal.isStdoutTerminal));
  }
  const { erased, originals, rows } = receipt;
  terminal.err(
    `${plural(erased.ip + erased.device_id, "token")} erased, ${plural(originals, "original")} deleted, ` +
      `fresh tokens in ${plural(rows ?? 0, "row")}; entry ${entry} of the audit\n`,
  );
  if ("user" in subject) return;
  const left = outcomes.filter(({ outcome }) => outcome === "keep" || outcome === "unknown");
  if (left.length > 0) {
    throw failed(
      `${left.length} of ${plural(outcomes.length, "token")} ${left.length === 1 ? "was" : "were"} not erased`,
      "what several users have is kept; `veil forget --user` takes one user out of it",
    );
  }
}

export type ExpireCommand = Omit<Expiry, "reason"> & {
  readonly reason: string | null;
  readonly yes: boolean;
  readonly json: boolean;
};

export async function runExpire(context: Context, command: ExpireCommand): Promise<void> {
  const { terminal } = context;
  const { olderThanDays, dryRun } = command;
  await withDatabase(context, NEEDS, async (database) => {
    await withRole(database, "veil_eraser", async () => {
      const reason = command.reason ?? `retention: older than ${plural(olderThanDays, "day")}`;
      if (isAtTerminal(terminal) && !command.yes && !dryRun) {
        const what = `originals that no login has had for ${plural(olderThanDays, "day")} are erased, and old bodies`;
        await confirm(terminal, `${what}; --dry-run counts them first; type yes to erase: `);
      }
      const progress = new Progress(terminal, await roughCount(database));
      let done: Expired | null = null;
      try {
        done = await expire(database, { olderThanDays, reason, dryRun }, (step) => {
          done = step;
          progress.show(step.looked, `${step.erased.ip + step.erased.device_id} expired`);
        });
      } finally {
        progress.clear();
        if (!dryRun) await chainAudit(database);
        // What was done is said, also where something failed half-way.
        if (done !== null) printExpired(terminal, done, command);
      }
    });
  });
}

function printExpired(terminal: Terminal, done: Expired, { json, dryRun }: ExpireCommand): void {
  const { erased, held, bodies, entries, looked } = done;
  if (json) {
    terminal.out(`${JSON.stringify({ ...done, dryRun })}\n`);
    return;
  }
  const rows: [string, number][] = [
    ["originals looked at", looked],
    ["ip expired", erased.ip],
    ["device_id expired", erased.device_id],
    ["bodies discarded", bodies.discarded],
    ["left alone, under a legal hold", held + bodies.held],
    ["entries in the audit", entries.length],
  ];
  terminal.out(
    table(
      ["WHAT", "HOW MANY"],
      rows.map(([what, n]) => [what, String(n)]),
      terminal.isStdoutTerminal,
    ),
  );
  if (dryRun) terminal.err("nothing was erased: this was a dry run\n");
}
