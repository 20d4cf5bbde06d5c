// Loads alone, one after another: what they cost PostgreSQL, how long each takes, and how long the longest is held up.
import { readDatabase as databaseConfig } from "../src/config/database-url.ts";
import { readTokenKey } from "../src/config/keys.ts";
import { DataKeys } from "../src/keys/data-keys.ts";
import { load } from "../src/line/load.ts";
import { openDatabase } from "../src/postgres/database.ts";
import { makeBatch, newLogins, tokensOf } from "./batches.ts";
import { cpuMicros } from "./processes.ts";
import type { Servers } from "./servers.ts";
import { walOf, walSince } from "./wal.ts";

export const ROWS = 1000;

/** A row, but for the times of a load. */
export type LoadFigures = Readonly<
  Record<
    | "rowsPerSecond"
    | "postgresMicros"
    | "walBytes"
    | "fullPageImages"
    | "medianMs"
    | "p99Ms"
    | "longestMs",
    number
  >
>;

/** When it began, and how long it took. */
export type Timed = { readonly at: number; readonly ms: number };

export type LoadsAsked = {
  readonly rows: number;
  /** No further load begins once this says so. */
  readonly isOver: (loads: number) => boolean;
};

/** All originals new. Answers with the time of each load. */
export async function loadUntil(
  servers: Servers,
  name: string,
  { rows, isOver }: LoadsAsked,
): Promise<Timed[]> {
  const subkeys = readTokenKey(servers.keys);
  const keys = new DataKeys(subkeys, [servers.keys.VEIL_RECIPIENTS]);
  const database = openDatabase(databaseConfig({ DATABASE_URL: servers.etlUrl(name) }));
  const times: Timed[] = [];
  while (!isOver(times.length)) {
    const logins = newLogins(rows);
    const batch = makeBatch(logins, tokensOf(logins));
    const key = await keys.take(batch.originals.size);
    const at = performance.now();
    await load(database, subkeys, key, batch);
    times.push({ at, ms: performance.now() - at });
  }
  await database.close();
  return times;
}

/** So many rows, in loads of 1,000. */
export async function measureLoads(
  servers: Servers,
  name: string,
  rows: number,
): Promise<LoadFigures> {
  const loads = Math.ceil(rows / ROWS);
  const [cpu, wal] = [cpuMicros(servers.postmaster), await walOf(servers)];
  const times = await loadUntil(servers, name, {
    rows: ROWS,
    isOver: (done) => done >= loads,
  });
  const seconds =
    (Math.max(...times.map(({ at, ms }) => at + ms)) - Math.min(...times.map(({ at }) => at))) /
    1000;
  const postgresMicros = cpuMicros(servers.postmaster) - cpu;
  const { bytes, fullPageImages } = walSince(wal, await walOf(servers));
  const stored = loads * ROWS;
  return {
    rowsPerSecond: stored / seconds,
    postgresMicros: postgresMicros / stored,
    walBytes: bytes / stored,
    fullPageImages: fullPageImages / stored,
    medianMs: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
    longestMs: quantile(times, 1),
  };
}

/** Of the loads' times; 0 of none. */
export function quantile(times: readonly Timed[], part: number): number {
  const sorted = times.map(({ ms }) => ms).sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? 0;
}
