// What the commands share that change what may be recovered: a reason that must be given, and a role that may
// be lacking.
import type { Database } from "../database.ts";
import { Failure, failed, misuse } from "../failure.ts";
import type { Terminal } from "../terminal.ts";

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
    if (!(error instanceof Failure) || error.code !== "42501") throw error;
    const [row] = await database.query("select pg_catalog.quote_ident(session_user) as login");
    throw failed(
      `the login ${row?.login} may not do this: it lacks ${[role, ...others].join(" or ")}`,
      `an administrator of the database's roles runs: GRANT ${role} TO ${row?.login};`,
    );
  }
}
