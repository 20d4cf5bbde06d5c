// `veil forget` and `veil expire`: what would be erased, the question, what was, and the receipt.
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
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
} from "../erasure.ts";
import { failed, misuse } from "../failure.ts";
import type { Context } from "../session.ts";
import { Progress, type Terminal, table } from "../terminal.ts";
import { requiredReason, withRole } from "./governed.ts";
import { readTokens } from "./reveal.ts";

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
  await withDatabase(context, NEEDS, async (database) => {
    await withRole(database, "veil_eraser", async () => {
      if (command.dryRun) {
        const plan = await planForget(database, subject);
        if (command.json) terminal.out(`${JSON.stringify(plan)}\n`);
        else terminal.out(planTable(plan, subject, terminal.isStdoutTerminal));
        terminal.err(plan.length === 0 ? NOTHING : "nothing was erased: this was a dry run\n");
        return;
      }
      const reason = await requiredReason(terminal, command.reason, mayAsk);
      if (mayAsk && !command.yes) await confirmPlan(database, terminal, subject);
      const done = await withReceipt(command.receipt, () =>
        forgetOnRecord(database, subject, reason),
      );
      report(terminal, subject, done, command.json);
    });
  });
}

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

async function confirmPlan(database: Database, terminal: Terminal, subject: Subject) {
  const plan = await planForget(database, subject);
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

/** The file is there before anything is erased, and gone where nothing was. */
async function withReceipt(path: string | null, work: () => Promise<Done>): Promise<Done> {
  if (path === null) return await work();
  let file: number;
  try {
    file = openSync(path, "wx", 0o600);
  } catch (error) {
    throw failed(
      `the receipt's file cannot be made (${codeOf(error)}); nothing was erased`,
      "name a file that does not exist yet, in a folder that does",
    );
  }
  let result: Done;
  try {
    result = await work();
  } catch (error) {
    closeSync(file);
    rmSync(path, { force: true });
    throw error;
  }
  try {
    writeSync(file, `${JSON.stringify(result.written)}\n`);
    closeSync(file);
  } catch (error) {
    throw failed(
      `erased, but the receipt's file could not be written (${codeOf(error)})`,
      `the receipt stands in entry ${result.entry} of the audit`,
    );
  }
  return result;
}

const codeOf = (error: unknown): string => (error as { code?: string }).code ?? "unknown";

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
    `${erased.ip + erased.device_id} tokens erased, ${originals} originals deleted, fresh tokens in ` +
      `${rows} rows; entry ${entry} of the audit\n`,
  );
  if ("user" in subject) return;
  const left = outcomes.filter(({ outcome }) => outcome === "keep" || outcome === "unknown");
  if (left.length > 0) {
    throw failed(
      `${left.length} of ${outcomes.length} tokens were not erased`,
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
      const reason = command.reason ?? `retention: older than ${olderThanDays} days`;
      if (isAtTerminal(terminal) && !command.yes && !dryRun) {
        const what = `originals that no login has had for ${olderThanDays} days are erased, and old bodies`;
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
