// A device that returns in period after period: its original is stored once more in each, and what that costs.
import { readDatabase as databaseConfig } from "../src/config/database-url.ts";
import { readTokenKey } from "../src/config/keys.ts";
import { DataKeys } from "../src/keys/data-keys.ts";
import { load } from "../src/line/load.ts";
import type { Protected } from "../src/login/protect.ts";
import { type Database, openDatabase } from "../src/postgres/database.ts";
import { makeBatch, newLogins, tokensOf } from "./batches.ts";
import { type Servers, withConnection } from "./servers.ts";
import { spreadOf } from "./spread.ts";
import { walOf, walSince } from "./wal.ts";

export const RETURNING_PERIODS = 12;
const DEVICES = 1000;

export const median = (values: readonly number[]): number => spreadOf(values)!.median;

export async function timed<T>(
  work: () => Promise<T>,
): Promise<{ readonly ms: number; readonly done: T }> {
  const at = performance.now();
  const done = await work();
  return { done, ms: performance.now() - at };
}

export const subkeysOf = (servers: Servers) => readTokenKey(servers.keys);
export const keysOf = (servers: Servers) =>
  new DataKeys(subkeysOf(servers), [servers.keys.VEIL_RECIPIENTS]);

export const openEtl = (servers: Servers, name: string): Database =>
  openDatabase(databaseConfig({ DATABASE_URL: servers.etlUrl(name) }));

/** Of a login, but for bytes on disk, which are of an original. */
export type Returning = Readonly<
  Record<"microsFirst" | "microsAgain" | "walFirst" | "walAgain" | "bytesOnDisk", number>
>;

/** The same devices and addresses in each of twelve periods: their first logins of a period, and later ones. */
export async function returnOverPeriods(servers: Servers, name: string): Promise<Returning> {
  const etl = openEtl(servers, name);
  const key = await keysOf(servers).take(2 * DEVICES);
  const logins = newLogins(DEVICES);
  const [first, again]: [Cost[], Cost[]] = [[], []];
  const one = async (batch: Protected): Promise<Cost> => {
    const wal = await walOf(servers);
    const { ms } = await timed(() => load(etl, subkeysOf(servers), key, batch));
    return { ms, bytes: walSince(wal, await walOf(servers)).bytes };
  };
  const sizeOf = () =>
    withConnection(servers.connect(name), async (sql) => {
      const [row] = await sql`
        select sum(pg_relation_size(relid) + pg_indexes_size(relid))::float8 as bytes
        from pg_partition_tree('pii_vault.originals') where isleaf`;
      return Number(row?.bytes);
    });
  const days = await withConnection(
    servers.connect(name),
    (sql) => sql`select first::text from etl.periods order by first limit ${RETURNING_PERIODS}`,
  );
  const before = await sizeOf();
  for (const { first: day } of days) {
    const sentAt = new Date(`${day}T12:00:00Z`);
    first.push(await one(makeBatch(logins, tokensOf(logins), sentAt)));
    again.push(await one(makeBatch(logins, [], sentAt)));
  }
  await etl.close();
  const perLogin = (costs: readonly Cost[], of: (cost: Cost) => number) =>
    median(costs.map(of)) / DEVICES;
  return {
    microsFirst: perLogin(first, ({ ms }) => ms * 1000),
    microsAgain: perLogin(again, ({ ms }) => ms * 1000),
    walFirst: perLogin(first, ({ bytes }) => bytes),
    walAgain: perLogin(again, ({ bytes }) => bytes),
    bytesOnDisk: ((await sizeOf()) - before) / (2 * DEVICES * days.length),
  };
}

type Cost = { readonly ms: number; readonly bytes: number };
