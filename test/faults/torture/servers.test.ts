// Strikes at one server meet each other: what one of them does to another is no finding.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { lockingLedger } from "./database-strikes.ts";
import { fromSource } from "./run.ts";
import { type Servers, startServers } from "./servers.ts";

let servers: Servers;
beforeAll(async () => {
  servers = await startServers({ program: fromSource(), visibilitySeconds: 5 });
}, 300_000);
afterAll(() => servers.stop());

const lockHolders = async (): Promise<number> => {
  const [row] = await servers.sql`
    select count(*)::integer as n from pg_locks
    where relation = 'etl.ledger'::regclass and mode = 'AccessExclusiveLock' and granted`;
  return Number(row?.n);
};

test("a strike that a restart ends has done what it could, and the next one strikes again", async () => {
  for (let round = 0; round < 2; round++) {
    const locked = servers.strike(lockingLedger(3600));
    while ((await lockHolders()) === 0) await Bun.sleep(20);
    await Promise.all([servers.restartDatabase(), servers.restartDatabase(), locked]);
  }
  await servers.strike(lockingLedger(0));
}, 300_000);

test("a strike that fails by itself says so", async () => {
  expect(await servers.strike("select 1/0").catch(String)).toContain("division by zero");
}, 300_000);
