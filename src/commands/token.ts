// `veil token`: from known values to their tokens. Nothing is opened.
import { type Field, isIpAddress } from "../../vault/canonical.ts";
import type { Subkeys } from "../../vault/keys.ts";
import { makeToken } from "../../vault/token.ts";
import { readTokenKey } from "../config/keys.ts";
import { misuse } from "../failure.ts";
import { native } from "../keys/native.ts";
import type { Terminal } from "../terminal/terminal.ts";
import { type Context, withTokenKey } from "./servers.ts";

export async function runToken(context: Context, field: Field, json: boolean): Promise<void> {
  const { terminal } = context;
  const subkeys = readTokenKey(await withTokenKey(context));
  const tokens = (await readValues(terminal, subkeys, field)).map((token) => ({ field, token }));
  if (json) terminal.out(`${JSON.stringify(tokens)}\n`);
  else terminal.out(tokens.map(({ token }) => `${token}\n`).join(""));
}

/**
 * The tokens of values from a prompt or stdin, one a line. On a command line, every process of the
 * machine could read the values.
 */
export async function readValues(
  terminal: Terminal,
  subkeys: Subkeys,
  field: Field,
): Promise<string[]> {
  const tokens: string[] = [];
  const doubtful: number[] = [];
  let lines = 0;
  const add = (value: string) => {
    lines++;
    if (value === "") return;
    if (field === "ip" && !isIpAddress(value)) doubtful.push(lines);
    tokens.push(makeToken(subkeys, field, value, native));
  };
  if (terminal.isStdinTerminal) add(await terminal.ask(`${field}: `));
  else for await (const line of terminal.lines()) add(line);
  warnOf(terminal, doubtful);
  if (tokens.length > 0) return tokens;
  throw misuse(`no ${field} was given`, "type one at the prompt, or write one a line to stdin");
}

const MOST_NAMED = 10;

/** A text that is no address has a token, too: logins may have come with it. */
function warnOf(terminal: Terminal, lines: readonly number[]): void {
  if (lines.length === 0) return;
  const named = lines.slice(0, MOST_NAMED).join(", ");
  const rest = lines.length > MOST_NAMED ? ` and ${lines.length - MOST_NAMED} more` : "";
  terminal.err(
    lines.length === 1
      ? `warning: line ${named} is no IP address in any spelling; its token is that of the text as it stands\n`
      : `warning: lines ${named}${rest} are no IP addresses in any spelling; their tokens are those of the texts as they stand\n`,
  );
}
