// A command at a database of this program's schema: opened, looked at, closed however the command ends.
import * as config from "./config.ts";
import { type Database, openDatabase } from "./database.ts";
import { requireSchema } from "./schema.ts";
import { type Context, type Needs, type Session, withSession } from "./session.ts";

export function withDatabase<T>(
  context: Context,
  needs: Needs,
  work: (database: Database, session: Session) => Promise<T>,
): Promise<T> {
  return withSession(context, needs, async (session) => {
    const database = openDatabase(config.database(session.env));
    try {
      await requireSchema(database);
      return await work(database, session);
    } finally {
      // Not waited for: the answer is there, and the server needs a while to take its leave.
      void database.close();
    }
  });
}
