// `veil reveal` and `veil token`: from a token to its original, and from a known value to its token.
import { makeToken, parseToken } from "../../vault/token.ts";
import * as config from "../config.ts";
import { openDatabase } from "../database.ts";
import { failed, misuse } from "../failure.ts";
import { Opener, type RecoveryKeys } from "../opener.ts";
import { type RevealResult, reveal } from "../reveal.ts";
import { requireSchema } from "../schema.ts";
import { type Context, withSession, withTokenKey } from "../session.ts";
import { type Terminal, table } from "../terminal.ts";

export const RECOVERY_VARIABLES = ["VEIL_IDENTITY", "VEIL_TOKEN_KEY", "VEIL_VERIFY_KEY"] as const;

export const recoveryKeys = (env: config.Environment): RecoveryKeys => ({
  identities: config.identities(env),
  verifyKey: config.optionalVerifyKey(env),
  subkeys: config.optionalTokenKey(env),
});

export type RevealCommand = { readonly reason: string | null; readonly json: boolean };

export async function runReveal(
  context: Context,
  args: readonly string[],
  command: RevealCommand,
): Promise<void> {
  const { terminal } = context;
  const tokens = await readTokens(terminal, args);
  const result = await withSession(
    context,
    { login: "local_revealer", variables: RECOVERY_VARIABLES },
    async ({ env }) => {
      const opener = new Opener(recoveryKeys(env));
      const database = openDatabase(config.database(env));
      try {
        await requireSchema(database);
        const reason = command.reason ?? (await askReason(terminal, args));
        return await reveal(database, opener, tokens, reason);
      } finally {
        // Not waited for: the answer is there, and the server needs a while to take its leave.
        void database.close();
      }
    },
  );
  print(terminal, result, command.json);
  const named = [
    ...result.unknown.map((token) => `${token}: the vault does not hold it`),
    ...result.refused.map((token) => `${token}: REFUSED: ${REFUSED}`),
  ];
  if (named.length > 0) {
    for (const line of named) terminal.err(`error: ${line}\n`);
    throw failed(
      `${named.length} of ${new Set(tokens).size} tokens could not be revealed`,
      result.refused.length > 0
        ? "check that VEIL_IDENTITY is the one of this vault; if it is, somebody has altered the database"
        : "was the token copied in full, and is this the database that it came from?",
    );
  }
}

const REFUSED = "it does not open: altered, forged, or sealed for another identity or key";

/** Throws for a malformed token without repeating it: it may be a value pasted by mistake. */
async function readTokens(terminal: Terminal, args: readonly string[]): Promise<string[]> {
  const tokens: string[] = [];
  const add = (text: string, place: string) => {
    if (parseToken(text) === null) {
      throw misuse(
        `${place} is not a token; nothing was requested`,
        "a token is ip1_ or dev1_ and 26 characters of a-z and 2-7",
      );
    }
    tokens.push(text);
  };
  for (const [i, argument] of args.entries()) {
    if (argument !== "-") {
      add(argument, `argument ${i + 1}`);
      continue;
    }
    let number = 0;
    for await (const line of terminal.lines()) {
      number++;
      if (line.trim() !== "") add(line.trim(), `line ${number} of stdin`);
    }
  }
  if (tokens.length === 0) throw misuse("no token was given", "give tokens, or - to read them");
  return tokens;
}

/** Where a person sits at a terminal; not where stdin brings the tokens. */
export async function askReason(
  terminal: Terminal,
  args: readonly string[],
): Promise<string | null> {
  if (!terminal.isStdinTerminal || !terminal.isStderrTerminal || args.includes("-")) return null;
  return (await terminal.ask("reason, for the record (Enter for none): ")).trim() || null;
}

function print(terminal: Terminal, { revealed }: RevealResult, json: boolean): void {
  if (json) {
    terminal.out(`${JSON.stringify(revealed)}\n`);
    return;
  }
  if (revealed.length === 0) return;
  const rows = revealed.map(({ token, field, original, verified, sealedAt }) => [
    token,
    field,
    verified ? "verified" : "unverified",
    sealedAt,
    original,
  ]);
  terminal.out(
    table(["TOKEN", "FIELD", "VERIFIED", "SEALED AT", "ORIGINAL"], rows, terminal.isStdoutTerminal),
  );
}

/** Values come from a prompt or stdin: on a command line, every process of the machine could read them. */
export async function runToken(
  context: Context,
  field: "ip" | "device_id",
  json: boolean,
): Promise<void> {
  const { terminal } = context;
  const subkeys = config.tokenKey(await withTokenKey(context));
  const values: string[] = [];
  if (terminal.isStdinTerminal) values.push(await terminal.ask(`${field}: `));
  else for await (const line of terminal.lines()) values.push(line);
  const tokens = values
    .filter((value) => value !== "")
    .map((value) => ({ field, token: makeToken(subkeys, field, value) }));
  if (tokens.length === 0) {
    throw misuse(`no ${field} was given`, "type one at the prompt, or write one a line to stdin");
  }
  if (json) terminal.out(`${JSON.stringify(tokens)}\n`);
  else terminal.out(tokens.map(({ token }) => `${token}\n`).join(""));
}
