// What a person at a terminal is asked: a reason for the record, and whether to go on.
import { failed, misuse } from "../failure.ts";
import type { Terminal } from "../terminal/terminal.ts";

/**
 * Whether a person can be asked. The caller knows whether stdin brings tokens or values instead.
 */
export const isAtTerminal = ({ isStdinTerminal, isStderrTerminal }: Terminal): boolean =>
  isStdinTerminal && isStderrTerminal;

/** Null where nobody can be asked, or gives none. */
export async function askReason(terminal: Terminal): Promise<string | null> {
  if (!isAtTerminal(terminal)) return null;
  return (await terminal.ask("reason, for the record (Enter for none): ")).trim() || null;
}

/** The reason that was given, or the answer of a person; throws where there is neither. */
export async function requireReason(
  terminal: Terminal,
  given: string | null,
  mayAsk: boolean,
): Promise<string> {
  const reason = given ?? (mayAsk ? await terminal.ask("reason, for the record: ") : "");
  if (reason.trim() === "") throw misuse("this needs a reason", "--reason TEXT: it goes on record");
  if ([...reason].length > 1000) throw misuse("a reason has up to 1000 characters");
  return reason;
}

/** Throws unless the answer is yes. */
export async function confirm(terminal: Terminal, question: string): Promise<void> {
  if ((await terminal.ask(question)).trim() === "yes") return;
  throw failed("nothing was erased", "type yes to go on, or give --yes to be asked nothing");
}
