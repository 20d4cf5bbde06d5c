// A command at a database of this program's schema: opened, looked at, closed however the command ends.
import { readDatabase } from "../config/database-url.ts";
import { failed, hasCode } from "../failure.ts";
import { type Database, openDatabase } from "../postgres/database.ts";
import { requireSchema } from "../postgres/schema.ts";
import { INSUFFICIENT_PRIVILEGE } from "../postgres/sqlstates.ts";
import { type Context, type Needs, type Session, withSession } from "./session.ts";

export function withDatabase<T>(
  context: Context,
  needs: Needs,
  work: (database: Database, session: Session) => Promise<T>,
): Promise<T> {
  return withSession(context, needs, async (session) => {
    const database = openDatabase(readDatabase(session.env));
    try {
      await requireSchema(database);
      return await work(database, session);
    } catch (error) {
      throw await namingRole(error, database, needs.login.replace(/^local_/, "veil_"));
    } finally {
      // Not waited for: the answer is there, and the server needs a while to take its leave.
      void database.close();
    }
  });
}

/** What the login lacks, where the database says only what it may not do. */
export async function namingRole(
  error: unknown,
  database: Database,
  role: string,
  others: readonly string[] = [],
): Promise<unknown> {
  if (!hasCode(error, INSUFFICIENT_PRIVILEGE)) return error;
  const [row] = await database.query("select pg_catalog.quote_ident(session_user) as login");
  return failed(
    `the login ${row?.login} may not do this: it lacks ${[role, ...others].join(" or ")}`,
    `an administrator of the database's roles runs: GRANT ${role} TO ${row?.login};`,
  );
}
