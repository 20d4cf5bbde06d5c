// `veil token`: from known values to their tokens. Nothing is opened.
import type { Field } from "../../vault/canonical.ts";
import type { Subkeys } from "../../vault/keys.ts";
import { makeToken } from "../../vault/token.ts";
import * as config from "../config.ts";
import { misuse } from "../failure.ts";
import { native } from "../native.ts";
import { type Context, withTokenKey } from "../session.ts";
import type { Terminal } from "../terminal.ts";

export async function runToken(context: Context, field: Field, json: boolean): Promise<void> {
  const { terminal } = context;
  const subkeys = config.tokenKey(await withTokenKey(context));
  const tokens = (await readValues(terminal, subkeys, field)).map((token) => ({ field, token }));
  if (json) terminal.out(`${JSON.stringify(tokens)}\n`);
  else terminal.out(tokens.map(({ token }) => `${token}\n`).join(""));
}

/**
 * The tokens of values from a prompt or stdin, one a line: on a command line, every process of the machine could
 * read them.
 */
export async function readValues(
  terminal: Terminal,
  subkeys: Subkeys,
  field: Field,
): Promise<string[]> {
  const tokens: string[] = [];
  const add = (value: string) => {
    if (value !== "") tokens.push(makeToken(subkeys, field, value, native));
  };
  if (terminal.isStdinTerminal) add(await terminal.ask(`${field}: `));
  else for await (const line of terminal.lines()) add(line);
  if (tokens.length > 0) return tokens;
  throw misuse(`no ${field} was given`, "type one at the prompt, or write one a line to stdin");
}
