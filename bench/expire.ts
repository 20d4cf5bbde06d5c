// A whole period expires, rows and all, while loads run: how long that takes, what it logs, and how long it holds
// up a load.
import { setTimeout as sleep } from "node:timers/promises";
import { readDatabase as databaseConfig } from "../src/config/database-url.ts";
import { expire } from "../src/erasure/expire.ts";
import { openDatabase } from "../src/postgres/database.ts";
import { fillHistory, fillMonth, type Span, tablesOf } from "./fill-history.ts";
import { loadUntil, quantile } from "./loads.ts";
import { type Servers, withConnection } from "./servers.ts";

/** Further back than the months of the history. */
const MONTHS_BEFORE = 13;
/** Small loads, one after another: each of them that waits says so. */
const ROWS = 100;
/** How long loads run beside nothing, before it and after it. */
const ALONE_MS = 5000;
const QUIET_SECONDS = 4;

export type ExpiryReport = {
  readonly originals: number;
  readonly seconds: number;
  /** What its own backend has logged. */
  readonly walBytes: number;
  /** Of those that began or ended while it ran, and of the ones before it. */
  readonly beside: { readonly loads: number; readonly longestMs: number; readonly p99Ms: number };
  readonly alone: { readonly loads: number; readonly longestMs: number; readonly p99Ms: number };
};

/** `hasHistory`: whether the database with years in it is there already. */
export async function measureExpiry(
  servers: Servers,
  { originals, hasHistory }: { readonly originals: number; readonly hasHistory: boolean },
  onProgress: (text: string) => void,
): Promise<ExpiryReport> {
  if (!hasHistory) await fillHistory(servers, { logins: 0, inCurrent: 0 }, () => {});
  onProgress(`filling a period with ${originals} originals and rows`);
  const span = await fillMonth(servers, MONTHS_BEFORE, originals);
  const { until, logins } = span;
  await letVacuumRun(servers, span);
  await withConnection(servers.connect("postgres"), (sql) => sql.unsafe("checkpoint"));
  onProgress("expiring it while loads run");
  let isOver = false;
  const loading = loadUntil(servers, "history", {
    rows: ROWS,
    isOver: () => isOver,
  });
  const expiring = async () => {
    await sleep(ALONE_MS);
    const done = await expireThrough(servers, until, logins);
    await sleep(ALONE_MS);
    return done;
  };
  const [times, { from, to, walBytes }] = await Promise.all([
    loading,
    expiring().finally(() => {
      isOver = true;
    }),
  ]);
  const figuresOf = (some: typeof times) => ({
    ...{ loads: some.length, longestMs: quantile(some, 1), p99Ms: quantile(some, 0.99) },
  });
  const beside = times.filter(({ at, ms }) => at < to && at + ms > from);
  const before = times.filter(({ at, ms }) => at + ms <= from);
  return {
    ...{ originals: logins, seconds: (to - from) / 1000, walBytes },
    ...{ beside: figuresOf(beside), alone: figuresOf(before) },
  };
}

/** Autovacuum does what its settings have it do with a period that nobody writes to any more, only sooner. */
async function letVacuumRun(servers: Servers, span: Span): Promise<void> {
  await withConnection(servers.connect("history"), async (sql) => {
    const settings = ["autovacuum_naptime", "autovacuum_vacuum_cost_delay"];
    for (const name of settings) await sql.unsafe(`alter system set ${name} = 1`);
    await sql`select pg_reload_conf()`;
    // A round of autovacuum with nothing to do for either table.
    for (let still = 0, before = ""; still < QUIET_SECONDS; ) {
      await sleep(1000);
      const [row] = await sql`
        select coalesce(sum(n_ins_since_vacuum), 0)::text as left, bool_or(p.pid is not null) as runs
        from pg_stat_all_tables t left join pg_stat_progress_vacuum p on p.relid = t.relid
        where t.relid in (${tablesOf(span)[0]}::regclass, ${tablesOf(span)[1]}::regclass)`;
      still = row?.runs || row?.left !== before ? 0 : still + 1;
      before = String(row?.left);
    }
    for (const name of settings) await sql.unsafe(`alter system reset ${name}`);
    await sql`select pg_reload_conf()`;
  });
}

/** As `veil expire --rows` does it, with all of its attempts, and nothing else that is there is as old. */
async function expireThrough(servers: Servers, until: string, originals: number) {
  const database = openDatabase(databaseConfig({ DATABASE_URL: servers.superuserUrl("history") }));
  try {
    const age = Date.now() - new Date(`${until}T00:00:00Z`).getTime();
    const olderThanDays = Math.floor(age / 86_400_000);
    const asked = { olderThanDays, withRows: true, reason: "benchmark", dryRun: false };
    const from = performance.now();
    const done = await expire(database, asked);
    const to = performance.now();
    if (done.originals !== originals || done.rows !== originals) {
      throw new Error(`${done.originals} originals and ${done.rows} rows of ${originals} expired`);
    }
    await database.query("select pg_stat_force_next_flush()");
    const [row] = await database.query(
      "select wal_bytes::text as bytes from pg_stat_get_backend_wal(pg_backend_pid())",
    );
    return { from, to, walBytes: Number(row?.bytes) };
  } finally {
    await database.close();
  }
}
