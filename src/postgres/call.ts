// A call of one of veil's functions, made again where the database asks for that.
import { hasCode } from "../failure.ts";
import type { Database } from "./database.ts";
import { isContention } from "./errors.ts";
import { NOT_FLUSHED, WRONG_ISOLATION } from "./sqlstates.ts";
import type { Row, Value } from "./values.ts";

const FLUSH_ATTEMPTS = 5;

/**
 * One statement, committed when it answers, whatever the isolation level is that the server
 * defaults to.
 */
export async function call(
  database: Database,
  text: string,
  values: readonly Value[] = [],
): Promise<readonly Row[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await retryContention(() => readCommitted(database, text, values));
    } catch (error) {
      if (!hasCode(error, NOT_FLUSHED) || attempt === FLUSH_ATTEMPTS) throw error;
      // Before PostgreSQL 17 nobody can ask for a flush, and a quiet server may leave the last few
      // bytes of its log in memory for long. A commit that writes brings the flush.
      await database.query("select pg_catalog.pg_logical_emit_message(true, 'veil', '')");
    }
  }
}

/**
 * One statement at the isolation level that veil's functions want: they refuse every other one. A
 * transaction is only needed where the default is another one.
 */
export async function readCommitted(
  database: Database,
  text: string,
  values: readonly Value[],
  answerMs?: number,
): Promise<readonly Row[]> {
  try {
    return await database.query(text, values, answerMs);
  } catch (error) {
    if (!hasCode(error, WRONG_ISOLATION)) throw error;
    return await database.transaction((query) => query(text, values), answerMs);
  }
}

/**
 * Runs `work` again after a deadlock or a serialization failure, up to nine times, with jitter.
 * Both are rare, because the database locks rows in one order; an administrator's lock can still
 * cause them.
 */
export async function retryContention<T>(
  work: () => Promise<T>,
  onRetry: () => void = () => {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isContention(error) || attempt === 10) throw error;
      onRetry();
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * attempt));
    }
  }
}
