// A server on which something commits all the time. Before PostgreSQL 17 a fetch waits until what it
// read by has been flushed, and on an idle server nobody flushes for up to fifteen seconds.
import type postgres from "postgres";

/** Commits ten times a second until the returned function is called. */
export function keepBusy(sql: postgres.Sql): () => Promise<void> {
  let stopped = false;
  const working = (async () => {
    const [row] = await sql`select current_setting('server_version_num')::int as version`;
    while (!stopped && Number(row?.version) < 170000) {
      await sql`select pg_logical_emit_message(true, 'test', '')`;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  return async () => {
    stopped = true;
    await working;
  };
}
