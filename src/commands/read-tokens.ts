// Tokens from the command line, stdin or a file: what is not one is refused by its place, never repeated.
import { parseToken } from "../../vault/token.ts";
import { misuse } from "../failure.ts";
import type { Terminal } from "../terminal/terminal.ts";

/** The distinct ones, in order of first appearance. `undone`: what nothing was, where one is malformed. */
export async function readTokens(
  terminal: Terminal,
  args: readonly string[],
  undone = "requested",
): Promise<ReadonlySet<string>> {
  const tokens = new Set<string>();
  for (const [i, argument] of args.entries()) {
    if (argument === "-") await addTokens(tokens, tokenLines(terminal), "stdin", undone);
    else addToken(tokens, argument, `argument ${i + 1}`, undone);
  }
  if (tokens.size === 0) throw misuse("no token was given", "give tokens, or - to read them");
  return tokens;
}

/** Stdin; whoever types is told what is waited for. */
export function tokenLines(terminal: Terminal): AsyncIterable<string> {
  if (terminal.isStdinTerminal) terminal.err("tokens, one a line; Ctrl-D ends\n");
  return terminal.lines();
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
