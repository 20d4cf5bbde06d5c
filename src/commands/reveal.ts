// `veil reveal TOKEN…`: from tokens to their originals; and what every revealing command runs on.
import { chainAudit } from "../audit/chain.ts";
import { readDatabase } from "../config/database-url.ts";
import type { Environment } from "../config/environment.ts";
import { readIdentities, readOptionalTokenKey, readVerifyKey } from "../config/keys.ts";
import { Failure, failed, hasCode, Interrupted, misuse } from "../failure.ts";
import { Opener, type RecoveryKeys } from "../keys/opener.ts";
import type { LocalLogin } from "../local/local-database.ts";
import { openDatabase } from "../postgres/database.ts";
import { requireSchema } from "../postgres/schema.ts";
import { APPROVAL_PENDING, NO_SUCH_REQUEST } from "../postgres/sqlstates.ts";
import { awaitVerdict } from "../recovery/await-verdict.ts";
import {
  type Ask,
  type Recovery,
  type Revealed,
  type RevealResult,
  revealPages,
  revealRequests,
  TOKENS_PER_REQUEST,
} from "../recovery/reveal.ts";
import { type Format, Output, type Sheet } from "../terminal/output.ts";
import { Progress, plural, type Terminal } from "../terminal/terminal.ts";
import { readTokens } from "./read-tokens.ts";
import { type Context, type Session, withSession } from "./session.ts";
import { wayBack } from "./way-back.ts";

export const RECOVERY_VARIABLES = ["VEIL_IDENTITY", "VEIL_TOKEN_KEY", "VEIL_VERIFY_KEY"] as const;

export const recoveryKeys = (env: Environment): RecoveryKeys => ({
  identities: readIdentities(env),
  verifyKey: readVerifyKey(env),
  subkeys: readOptionalTokenKey(env),
});

export type Asking = Ask & {
  /** Where a request needs approval, wait for it. */
  readonly wait: boolean;
  /** Requests of before, to be fetched instead of recording new ones. */
  readonly requests: readonly string[];
  /** With which options the same is asked for again, besides a request. */
  readonly again: readonly string[];
};

export type RevealCommand = Asking & { readonly format: Format };

const SHEET: Sheet<Revealed> = {
  columns: ["token", "field", "verified", "sealed_at", "original"],
  cells: (row) => [
    row.token,
    row.field,
    row.verified ? "verified" : "unverified",
    row.sealedAt,
    row.original,
  ],
  json: "array",
  object: (row) => row,
};

export async function runReveal(
  context: Context,
  args: readonly string[],
  command: RevealCommand,
): Promise<void> {
  const { terminal } = context;
  const isNew = command.requests.length === 0;
  const tokens = isNew ? await readTokens(terminal, args) : new Set<string>();
  const output = new Output(terminal, SHEET, command.format);
  const progress = progressOf(terminal, tokens.size);
  const counts = { revealed: 0, unknown: 0, refused: 0 };
  try {
    const needs = {
      login: command.breakGlass ? ("local_breakglass" as const) : ("local_revealer" as const),
      mayAsk: !args.includes("-"),
    };
    await withRecovery(context, command, needs, async (recovery) => {
      const pages = isNew
        ? revealPages({ ...recovery, onProgress: progress.step }, tokens)
        : revealRequests(recovery, command.requests);
      for await (const page of pages) {
        progress.clear();
        await output.write(page.revealed);
        nameLost(terminal, page);
        counts.revealed += page.revealed.length;
        counts.unknown += page.unknown.length;
        counts.refused += page.refused.length;
      }
    });
  } catch (error) {
    // What waits is no error to a program that reads an array: there is none of it yet.
    if (hasCode(error, APPROVAL_PENDING) && command.format === "json") await output.write([]);
    throw error;
  } finally {
    progress.clear();
    output.end();
  }
  const lost = counts.unknown + counts.refused;
  if (lost > 0) {
    throw failed(
      `${lost} of ${plural(counts.revealed + lost, "token")} could not be revealed`,
      counts.refused > 0
        ? CHECK_IDENTITY
        : "was the token copied in full, and is this the database that it came from?",
    );
  }
  if (counts.revealed === 0) {
    throw failed("the vault holds nothing of what was requested", "was it erased meanwhile?");
  }
}

export const CHECK_IDENTITY =
  "check that VEIL_IDENTITY is the one of this vault; if it is, somebody has altered the database";

export function nameLost(
  terminal: Terminal,
  { unknown, refused }: Pick<RevealResult, "unknown" | "refused">,
): void {
  for (const token of unknown) terminal.err(`error: ${token}: the vault does not hold it\n`);
  for (const token of refused) terminal.err(`error: ${token}: REFUSED: ${REFUSED}\n`);
}

const REFUSED = "it does not open: altered, forged, or sealed for another identity or key";

/** A line that redraws itself, where there is more to do than one request. */
function progressOf(terminal: Terminal, tokens: number) {
  const bars = {
    recorded: new Progress(terminal, tokens),
    revealed: new Progress(terminal, tokens),
  };
  return {
    step: (step: keyof typeof bars, done: number) => {
      const words = { recorded: "on record", revealed: "revealed" };
      if (tokens > TOKENS_PER_REQUEST) bars[step].show(done, words[step]);
    },
    clear: () => {
      for (const bar of Object.values(bars)) bar.clear();
    },
  };
}

/**
 * What a command reveals with, after the configuration was read and the reason asked for. Where a request waits
 * for approval, it is named, and waited for if that was asked for: Ctrl-C then leaves it open.
 */
export async function withRecovery(
  context: Context,
  command: Asking,
  needs: { readonly login: LocalLogin; readonly mayAsk: boolean },
  work: (recovery: Recovery, session: Session) => Promise<void>,
): Promise<void> {
  const { terminal } = context;
  requireReason(command, command.reason, needs.mayAsk && isAtTerminal(terminal));
  let waiting: readonly string[] = [];
  let program = "";
  const onWaiting = (recovery: Recovery) => async (requests: readonly string[]) => {
    const { waits, approve, reveal } = wayBack(program, requests, command.again);
    const approver = `another login with the role veil_approver runs ${approve}`;
    if (!command.wait) {
      throw new Failure(
        1,
        `${waits} for approval; nothing of it was fetched`,
        `${approver}; then ${reveal} reveals it; --wait waits for it`,
        APPROVAL_PENDING,
      );
    }
    if (waiting.length === 0) {
      terminal.err(`${waits} for approval: ${approver}\n`);
      terminal.err(`waiting; Ctrl-C leaves it open, and ${reveal} comes back to it\n`);
    }
    waiting = requests;
    await awaitVerdict(recovery.database, requests[0]!);
  };
  try {
    await withSession(
      context,
      { login: needs.login, variables: RECOVERY_VARIABLES },
      async (session) => {
        program = session.program;
        const opener = new Opener(recoveryKeys(session.env));
        const database = openDatabase(readDatabase(session.env));
        try {
          await requireSchema(database);
          const { purpose, breakGlass } = command;
          const isAsked = needs.mayAsk && command.requests.length === 0;
          const reason = command.reason ?? (isAsked ? await askReason(terminal, []) : null);
          requireReason(command, reason, false);
          // Chained before anything is handed out, and then what handing it out has put on record.
          const afterRecording = async () => void (await chainAudit(database));
          const ask = { reason, purpose, breakGlass };
          const recovery = { database, opener, ask, afterRecording };
          await work({ ...recovery, onWaiting: onWaiting(recovery) }, session);
          waiting = [];
          await chainAudit(database);
        } finally {
          // Not waited for: the answer is there, and the server needs a while to take its leave.
          void database.close();
        }
      },
    );
  } catch (error) {
    if (error instanceof Interrupted && waiting.length > 0) {
      const { waits, approve, reveal } = wayBack(program, waiting, command.again);
      terminal.err(`${waits} on: after ${approve}, ${reveal} reveals it\n`);
    }
    // The database speaks to whoever writes SQL.
    if (hasCode(error, NO_SUCH_REQUEST) && command.requests.length > 0) {
      throw failed(
        error.message,
        "is DATABASE_URL the login and the database with which it was made, and was its id copied in full?",
      );
    }
    throw error;
  }
}

/** Break-glass is for others to look at afterwards, whatever the policy wants of a request. */
function requireReason({ breakGlass }: Ask, reason: string | null, mayAsk: boolean): void {
  if (!breakGlass || mayAsk || (reason ?? "").trim() !== "") return;
  throw misuse("break-glass wants a reason", "--reason TEXT: it goes on record, and is reviewed");
}

const isAtTerminal = ({ isStdinTerminal, isStderrTerminal }: Terminal): boolean =>
  isStdinTerminal && isStderrTerminal;

/** Where a person sits at a terminal; not where stdin brings the tokens. */
export async function askReason(
  terminal: Terminal,
  args: readonly string[],
): Promise<string | null> {
  if (!isAtTerminal(terminal) || args.includes("-")) return null;
  return (await terminal.ask("reason, for the record (Enter for none): ")).trim() || null;
}
