// A whole period expires, rows and all, while loads run: how long that takes, what it logs, and how long it holds
// up a load.
import { setTimeout as sleep } from "node:timers/promises";
import { fillHistory, fillMonth } from "./fill-history.ts";
import { loadUntil, quantile } from "./loads.ts";
import { type Servers, withConnection } from "./servers.ts";
import { walOf, walSince } from "./wal.ts";

/** Further back than the months of the history. */
const MONTHS_BEFORE = 13;
/** Small loads, one after another: each of them that waits says so. */
const ROWS = 100;
/** How long loads run beside nothing, before it and after it. */
const ALONE_MS = 5000;

export type ExpiryReport = {
  readonly originals: number;
  readonly seconds: number;
  /** Less what as many loads log that run beside nothing. */
  readonly walBytes: number;
  readonly walBytesWithLoads: number;
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
  const { first } = await fillMonth(servers, MONTHS_BEFORE, originals);
  await withConnection(servers.connect("postgres"), (sql) => sql.unsafe("checkpoint"));
  onProgress("expiring it while loads run");
  let isOver = false;
  const loading = loadUntil(servers, "history", {
    ...{ rows: ROWS, lanes: 1 },
    isOver: () => isOver,
  });
  const expire = async () => {
    await sleep(ALONE_MS);
    const [walBefore, from] = [await walOf(servers), performance.now()];
    await expirePeriod(servers, first);
    const to = performance.now();
    const wal = walSince(walBefore, await walOf(servers));
    await sleep(ALONE_MS);
    const walAfter = await walOf(servers);
    await sleep(ALONE_MS);
    const alone = walSince(walAfter, await walOf(servers));
    return { from, to, wal, alone };
  };
  const [times, { from, to, wal, alone }] = await Promise.all([
    loading,
    expire().finally(() => {
      isOver = true;
    }),
  ]);
  const figuresOf = (some: typeof times) => ({
    ...{ loads: some.length, longestMs: quantile(some, 1), p99Ms: quantile(some, 0.99) },
  });
  const beside = times.filter(({ at, ms }) => at < to && at + ms > from);
  const before = times.filter(({ at, ms }) => at + ms <= from);
  const after = times.filter(({ at }) => at >= to + ALONE_MS);
  const bytesALoad = after.length === 0 ? 0 : alone.bytes / after.length;
  return {
    ...{ originals, seconds: (to - from) / 1000, walBytesWithLoads: wal.bytes },
    walBytes: Math.max(0, wal.bytes - bytesALoad * beside.length),
    ...{ beside: figuresOf(beside), alone: figuresOf(before) },
  };
}

async function expirePeriod(servers: Servers, first: string): Promise<void> {
  await withConnection(servers.connect("history"), async (sql) => {
    await sql`
      select from pii_vault.expire_period(${first}::date, true, gen_random_uuid(), 'benchmark')`;
    const [left] = await sql`
      select count(*)::integer as rows from public.user_logins l
      where l.create_date >= ${first}::date and l.create_date < ${first}::date + 28`;
    if (Number(left?.rows) !== 0)
      throw new Error(`${left?.rows} rows of an expired period are left`);
  });
}
