// `veil forget`: shows what would be erased, asks, erases, and prints the receipt.
import { chainAudit } from "../audit/chain.ts";
import {
  type ChainPlace,
  type ErasureOutcome,
  type ErasureReceipt,
  type Forgotten,
  forget,
  type PlannedErasure,
  placeOf,
  planForget,
  type Subject,
  WHETHER_IT_WAS_DONE,
} from "../erasure/forget.ts";
import { failed, misuse } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import { plural, type Terminal, table } from "../terminal/terminal.ts";
import { confirm, isAtTerminal, requireReason } from "./ask.ts";
import { DRY_RUN, withPatience, withReceipt } from "./erasing.ts";
import { readTokens } from "./read-tokens.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export type ForgetCommand = {
  readonly user: string | null;
  readonly reason: string | null;
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly json: boolean;
  /** A file that the receipt is written to, too. */
  readonly receipt: string | null;
};

export async function runForget(
  context: Context,
  args: readonly string[],
  command: ForgetCommand,
): Promise<void> {
  const { terminal } = context;
  if (command.user !== null && args.length > 0) {
    throw misuse("expected tokens or --user, not both", "run it twice: each has its own receipt");
  }
  if (command.user === null && args.length === 0) {
    throw misuse("expected tokens, or --user", "a user id that several people share is no person");
  }
  if (command.dryRun && command.receipt !== null) {
    throw misuse("a dry run has no receipt", "leave out --receipt, or --dry-run");
  }
  const subject: Subject =
    command.user === null
      ? { tokens: [...(await readTokens(terminal, args, "erased"))] }
      : { user: command.user };
  const mayAsk = isAtTerminal(terminal) && !args.includes("-");
  const { interruptible, uninterrupted } = withPatience(context, WAITING);
  await withDatabase(interruptible, { roles: ["veil_eraser"] }, async ({ database }) => {
    if (command.dryRun) {
      const plan = await planOnRecord(database, subject);
      if (command.json) terminal.out(`${JSON.stringify(plan)}\n`);
      else terminal.out(planTable(plan, subject, terminal.isStdoutTerminal));
      terminal.err(DRY_RUN);
      if (plan.length === 0) throw nothingOfUser();
      return;
    }
    const reason = await requireReason(terminal, command.reason, mayAsk);
    if (mayAsk && !command.yes) await confirmPlan(database, terminal, subject);
    const done = await uninterrupted(() =>
      withReceipt(command.receipt, () => forgetOnRecord(database, subject, reason)),
    );
    report(terminal, subject, done, command.json);
  });
}

const WAITING =
  "\nthe erasure was sent already, and its answer is waited for. Ctrl-C again does not wait; " +
  `then it may be done all the same: ${WHETHER_IT_WAS_DONE}\n`;

/** As often as not, the user id is misspelled. */
const nothingOfUser = () =>
  failed(
    "nothing was erased: no row of this user id has anything to erase",
    "is it spelled as in user_logins? nothing is left of a user who was forgotten before",
  );

const WORDS: Readonly<Record<ErasureOutcome, string>> = {
  erase: "erased",
  keep: "kept: others have it",
  replace: "replaced: it is no token",
  forgotten: "was forgotten before",
  held: "under a legal hold",
  unknown: "the vault does not hold it",
};

function wordsOf(outcome: ErasureOutcome, subject: Subject): string {
  if (outcome === "keep" && "user" in subject)
    return "kept for others; this user's rows get fresh tokens";
  return WORDS[outcome];
}

const planTable = (
  plan: readonly PlannedErasure[],
  subject: Subject,
  withHeader: boolean,
): string =>
  table(
    ["TOKEN", "FIELD", "LOGINS", "OTHER USERS", "WHAT BECOMES OF IT"],
    plan.map(({ token, field, logins, others, outcome }) => [
      token ?? "(no token)",
      field,
      String(logins),
      String(others),
      wordsOf(outcome, subject),
    ]),
    withHeader,
  );

/** Lines that a person reads before a question. */
const SHOWN = 40;

async function planOnRecord(database: Database, subject: Subject): Promise<PlannedErasure[]> {
  const plan = await planForget(database, subject);
  await chainAudit(database);
  return plan;
}

async function confirmPlan(database: Database, terminal: Terminal, subject: Subject) {
  const plan = await planOnRecord(database, subject);
  if (plan.length > 0) terminal.err(planTable(plan.slice(0, SHOWN), subject, true));
  if (plan.length > SHOWN) {
    terminal.err(`… and ${plan.length - SHOWN} more: --dry-run prints all of them\n`);
  }
  // Where nothing would be done there is nothing to ask. It goes on record all the same.
  const isIdle = plan.every(({ outcome }) => IDLE.includes(outcome) && !("user" in subject));
  if (isIdle) return;
  await confirm(terminal, "what is erased does not come back; type yes to erase: ");
}

/** Outcomes of a token that nothing is done to. */
const IDLE: readonly ErasureOutcome[] = ["keep", "forgotten", "unknown"];

type Done = Forgotten & {
  readonly written: ErasureReceipt & {
    readonly audit: { readonly entry: number } & Partial<ChainPlace>;
  };
};

async function forgetOnRecord(database: Database, subject: Subject, reason: string): Promise<Done> {
  const done = await forget(database, subject, reason);
  await chainAudit(database);
  // It is erased and on record, also where this look-up fails.
  const place = await placeOf(database, done.entry).catch(() => null);
  return { ...done, written: { ...done.receipt, audit: { entry: done.entry, ...place } } };
}

function report(terminal: Terminal, subject: Subject, done: Done, json: boolean): void {
  const { outcomes, receipt, entry, written } = done;
  if (json) {
    const of = outcomes.map(({ token, outcome }) => ({ token, outcome }));
    terminal.out(`${JSON.stringify("user" in subject ? written : { ...written, outcomes: of })}\n`);
  } else if (outcomes.length > 0) {
    const rows = outcomes.map(({ token, field, outcome }) => [
      token ?? "(no token)",
      field,
      wordsOf(outcome, subject),
    ]);
    terminal.out(table(["TOKEN", "FIELD", "WHAT BECAME OF IT"], rows, terminal.isStdoutTerminal));
  }
  const { erased, originals, rows } = receipt;
  terminal.err(
    `${plural(erased.ip + erased.device_id, "token")} erased, ${plural(originals, "original")} deleted, ` +
      `fresh tokens in ${plural(rows ?? 0, "row")}; entry ${entry} of the audit\n`,
  );
  if ("user" in subject) {
    if (outcomes.length === 0) throw nothingOfUser();
    return;
  }
  const left = outcomes.filter(({ outcome }) => outcome === "keep" || outcome === "unknown");
  if (left.length > 0) {
    throw failed(
      `${left.length} of ${plural(outcomes.length, "token")} ${left.length === 1 ? "was" : "were"} not erased`,
      left.some(({ outcome }) => outcome === "keep")
        ? "what several users have is kept; `veil forget --user` takes one user out of it"
        : "was the token copied in full, and is this the database that it came from?",
    );
  }
}
