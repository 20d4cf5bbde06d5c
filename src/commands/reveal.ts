// `veil reveal TOKEN…`: from tokens to their originals; and what every revealing command runs on.
import { parseToken } from "../../vault/token.ts";
import { chainAudit } from "../audit-chain.ts";
import * as config from "../config.ts";
import { openDatabase } from "../database.ts";
import { failed, misuse } from "../failure.ts";
import { Interrupted } from "../interrupted.ts";
import type { LocalLogin } from "../local/local-database.ts";
import { Opener, type RecoveryKeys } from "../opener.ts";
import {
  type Ask,
  type Recovery,
  type Revealed,
  type RevealResult,
  revealPages,
  revealRequests,
  TOKENS_PER_REQUEST,
} from "../reveal.ts";
import { requireSchema } from "../schema.ts";
import { type Context, type Session, withSession } from "../session.ts";
import { Progress, type Terminal } from "../terminal.ts";
import { awaitVerdict } from "../verdict.ts";
import { type Format, Output, type Sheet } from "./output.ts";

export const RECOVERY_VARIABLES = ["VEIL_IDENTITY", "VEIL_TOKEN_KEY", "VEIL_VERIFY_KEY"] as const;

export const recoveryKeys = (env: config.Environment): RecoveryKeys => ({
  identities: config.identities(env),
  verifyKey: config.optionalVerifyKey(env),
  subkeys: config.optionalTokenKey(env),
});

export type Asking = Ask & {
  /** Where a request needs approval, wait for it. */
  readonly wait: boolean;
  /** Requests of before, to be fetched instead of recording new ones. */
  readonly requests: readonly string[];
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
  } finally {
    progress.clear();
    output.end();
  }
  const lost = counts.unknown + counts.refused;
  if (lost > 0) {
    throw failed(
      `${lost} of ${counts.revealed + lost} tokens could not be revealed`,
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
  let waiting: readonly string[] = [];
  const onWaiting = (recovery: Recovery) => async (requests: readonly string[]) => {
    if (!command.wait) {
      throw failed(
        `${described(requests)} for approval; nothing of it was fetched`,
        `${APPROVER} Then the same with ${listed(requests)} reveals it; --wait waits for it`,
      );
    }
    if (waiting.length === 0) {
      terminal.err(`${described(requests)} for approval. ${APPROVER}\n`);
      terminal.err("waiting; Ctrl-C leaves it open\n");
    }
    waiting = requests;
    await awaitVerdict(recovery.database, requests[0]!);
  };
  try {
    await withSession(
      context,
      { login: needs.login, variables: RECOVERY_VARIABLES },
      async (session) => {
        const opener = new Opener(recoveryKeys(session.env));
        const database = openDatabase(config.database(session.env));
        try {
          await requireSchema(database);
          const { purpose, breakGlass } = command;
          const isAsked = needs.mayAsk && command.requests.length === 0;
          const reason = command.reason ?? (isAsked ? await askReason(terminal, []) : null);
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
      terminal.err(`${described(waiting)} on; the same with ${listed(waiting)} comes back to it\n`);
    }
    throw error;
  }
}

const APPROVER = "Another login with the role veil_approver can give it: `veil approve ID`.";

const described = (requests: readonly string[]): string =>
  requests.length === 1 ? `request ${requests[0]} waits` : `requests ${requests.join(", ")} wait`;

const listed = (requests: readonly string[]): string =>
  requests.map((request) => `--request ${request}`).join(" ");

/** The distinct ones, in order of first appearance. `undone`: what nothing was, where one is malformed. */
export async function readTokens(
  terminal: Terminal,
  args: readonly string[],
  undone = "requested",
): Promise<ReadonlySet<string>> {
  const tokens = new Set<string>();
  for (const [i, argument] of args.entries()) {
    if (argument === "-") await addTokens(tokens, terminal.lines(), "stdin", undone);
    else addToken(tokens, argument, `argument ${i + 1}`, undone);
  }
  if (tokens.size === 0) throw misuse("no token was given", "give tokens, or - to read them");
  return tokens;
}

/** One a line; blank lines are ignored. */
export async function addTokens(
  tokens: Set<string>,
  lines: AsyncIterable<string>,
  source: string,
  undone = "requested",
): Promise<void> {
  let number = 0;
  for await (const line of lines) {
    number++;
    const text = line.trim();
    if (text !== "") addToken(tokens, text, `line ${number} of ${source}`, undone);
  }
}

/** Throws for a malformed token without repeating it: it may be a value pasted by mistake. */
function addToken(tokens: Set<string>, text: string, place: string, undone: string): void {
  if (parseToken(text) === null) {
    throw misuse(
      `${place} is not a token; nothing was ${undone}`,
      "a token is ip1_ or dev1_ and 26 characters of a-z and 2-7",
    );
  }
  tokens.add(text);
}

/** Where a person sits at a terminal; not where stdin brings the tokens. */
export async function askReason(
  terminal: Terminal,
  args: readonly string[],
): Promise<string | null> {
  if (!terminal.isStdinTerminal || !terminal.isStderrTerminal || args.includes("-")) return null;
  return (await terminal.ask("reason, for the record (Enter for none): ")).trim() || null;
}
