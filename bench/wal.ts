// What the server has logged so far, in bytes and in pages that it logged whole.
import { type Servers, withConnection } from "./servers.ts";

export type Wal = { readonly bytes: number; readonly fullPageImages: number };

/** Counts pages of connections that have ended: running ones report theirs now and then only. */
export const walOf = (servers: Servers): Promise<Wal> =>
  withConnection(servers.connect("postgres"), async (sql) => {
    const [row] = await sql`
      select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 as bytes, wal_fpi::float8 as pages
      from pg_stat_wal`;
    return { bytes: Number(row?.bytes), fullPageImages: Number(row?.pages) };
  });

export const walSince = (before: Wal, after: Wal): Wal => ({
  bytes: after.bytes - before.bytes,
  fullPageImages: after.fullPageImages - before.fullPageImages,
});
