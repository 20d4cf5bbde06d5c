// What a run does at the database besides loading: partitions are made ahead, and a server that cannot keep
// the line's promise is told of.
import { readCommitted } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import type { Notice } from "./availability.ts";

/** Makes the partitions of the days ahead, and drops those that nothing needs any more. */
export async function housekeep(database: Database, answerMs?: number): Promise<void> {
  // A call that makes periods does nothing else; the next one has none to make.
  for (let periods = 1; periods > 0; ) {
    const [row] = await readCommitted(
      database,
      "select periods from etl.housekeep()",
      [],
      answerMs,
    );
    periods = Number(row?.periods);
  }
}

/** Nothing that is asked for here can keep the promise on a server that forgets what it has committed. */
export async function warnIfVolatile(
  database: Database,
  answerMs: number,
  tell: (notice: Notice) => void,
): Promise<void> {
  const [row] = await database.query(
    "select pg_catalog.current_setting('fsync') as fsync",
    [],
    answerMs,
  );
  if (row?.fsync !== "off") return;
  tell({
    event: "warning",
    message:
      "the database runs with fsync=off: if its host fails, rows can be lost " +
      "whose messages are deleted already; set fsync=on",
  });
}
