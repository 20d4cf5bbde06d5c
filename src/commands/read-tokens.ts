// Tokens from the command line, stdin or a file. A word that is no token is refused by its place
// and never repeated: it may be a value that was pasted by mistake.
import { open } from "node:fs/promises";
import { parseToken } from "../../vault/token.ts";
import { misuse } from "../failure.ts";
import type { Terminal } from "../terminal/terminal.ts";

/**
 * The distinct tokens, in order of first appearance. `undone` ends the message where one is
 * malformed: "nothing was …".
 */
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

/** The distinct tokens of a file, one a line; `-` is stdin. */
export async function readTokenFile(terminal: Terminal, path: string): Promise<string[]> {
  const tokens = new Set<string>();
  if (path === "-") await addTokens(tokens, tokenLines(terminal), "stdin");
  else await addTokens(tokens, linesOf(path), "the file");
  if (tokens.size > 0) return [...tokens];
  throw misuse(
    "no token was given",
    "one a line, as `veil token` and `veil duplicates` print them",
  );
}

async function* linesOf(path: string): AsyncGenerator<string> {
  try {
    const file = await open(path);
    yield* file.readLines();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw misuse(`cannot read the file of --tokens (${code})`, "check path and mode");
  }
}

/** Stdin. Somebody who types is told what is waited for. */
function tokenLines(terminal: Terminal): AsyncIterable<string> {
  if (terminal.isStdinTerminal) terminal.err("tokens, one a line; Ctrl-D ends\n");
  return terminal.lines();
}

/** One a line; blank lines are ignored. */
async function addTokens(
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

function addToken(tokens: Set<string>, text: string, place: string, undone: string): void {
  if (parseToken(text) === null) {
    throw misuse(
      `${place} is not a token; nothing was ${undone}`,
      "a token is ip1_ or dev1_ and 26 characters of a-z and 2-7",
    );
  }
  tokens.add(text);
}
