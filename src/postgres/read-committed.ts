// A statement of a function that refuses every isolation level but READ COMMITTED, whatever the default of the
// server, the database or the login is.

import { Failure } from "../failure.ts";
import type { Database, Row, Value } from "./database.ts";
import { retryContention } from "./errors.ts";

/** One statement, committed when it answers; in a transaction around it only where the default is another level. */
export function readCommitted(
  database: Database,
  text: string,
  values: readonly Value[] = [],
): Promise<readonly Row[]> {
  return retryContention(async () => {
    try {
      return await database.query(text, values);
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== "VL015") throw error;
      return await database.transaction((query) => query(text, values));
    }
  });
}
