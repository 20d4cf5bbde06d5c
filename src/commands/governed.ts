// What the commands share that change what may be recovered: a reason that must be given, and a role that may
// be lacking.

import { misuse } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import type { Terminal } from "../terminal/terminal.ts";
import { namingRole } from "./connected.ts";

/** Asked for where a person sits at a terminal. */
export async function requiredReason(
  terminal: Terminal,
  given: string | null,
  mayAsk: boolean,
): Promise<string> {
  const reason = given ?? (mayAsk ? await terminal.ask("reason, for the record: ") : "");
  if (reason.trim() === "") throw misuse("this needs a reason", "--reason TEXT: it goes on record");
  if ([...reason].length > 1000) throw misuse("a reason has up to 1000 characters");
  return reason;
}

/** Names the role where the database says that one is lacking; `others` would do as well. */
export async function withRole<T>(
  database: Database,
  role: string,
  work: () => Promise<T>,
  others: readonly string[] = [],
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw await namingRole(error, database, role, others);
  }
}
