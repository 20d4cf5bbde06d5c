// Erasures and loads at once, over connections of their own: whichever comes first, no row is left with a token
// that stands for an original which is gone, and nothing that was forgotten comes back.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { readIdentities } from "../../src/config/keys.ts";
import { expire } from "../../src/erasure/expire.ts";
import { forget } from "../../src/erasure/forget.ts";
import { OpeningKeys } from "../../src/keys/open.ts";
import { KnownOriginals } from "../../src/line/known-originals.ts";
import { load } from "../../src/line/load.ts";
import type { StoredPart } from "../../src/line/protect-and-load.ts";
import { array } from "../../src/postgres/values.ts";
import { replay } from "../../src/recovery/replay.ts";
import type { Message } from "../../src/sqs/queue.ts";
import { seal } from "../../vault/seal.ts";
import { until } from "../line/stored.ts";
import { createDatabase } from "../support/database.ts";
import { storeMessages } from "../support/store-messages.ts";
import { outcome } from "./attempt.ts";
import { type ErasureScene, FRESH, makeErasureScene } from "./erasure-scene.ts";
import { callLoad, loadArguments, makeHost } from "./host.ts";

let scene: ErasureScene;
beforeAll(async () => {
  scene = await makeErasureScene();
});
afterAll(() => scene?.database.drop());

const messageOf = (
  user: string,
  ip: string | null,
  device: string | null,
  sentAt = new Date(),
) => ({
  ...{ id: randomUUID(), sentAt, receipt: randomUUID() },
  body: JSON.stringify({ user_id: user, ip, device_id: device }),
});

/** Whether a session waits for the gate. */
const waits = async (): Promise<boolean> => {
  const [row] = await scene.owner`
    select count(*)::int as n from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and not l.granted
      and l.relation = 'pii_vault.erasure_gate'::regclass`;
  return Number(row?.n) > 0;
};

/** The arguments of a load that sends no originals, unless they are new: this host has seen them stored. */
async function unsent(user: string, ip: string, device: string, isNew = false) {
  const batch = await scene.host.protect([
    { id: randomUUID(), body: { user_id: user, ip, device_id: device } },
  ]);
  const all = loadArguments(scene.host, batch);
  return isNew ? all : { ...all, tokens: "{}", sealed: "{}", data_key: null };
}

const forgetSql = (sql: postgres.Sql, ...tokens: string[]) =>
  sql.unsafe("select * from pii_vault.forget_tokens($1, 'request')", [array(tokens)]);

test("a load that is under way is waited for, and its row has a fresh token in the end", async () => {
  const { ip, device, database } = scene;
  await scene.load({ user: "ann", ip: "203.0.113.1", device: "ann's phone" });
  const loading = database.sql(database.url("etl"));
  const erasing = database.sql(database.url("eraser"));
  await loading.unsafe("begin");
  await callLoad(loading, await unsent("ann", "203.0.113.1", "ann's phone"));
  const forgetting = forgetSql(erasing, ip("203.0.113.1"), device("ann's phone"));
  await Promise.all([forgetting, until(waits).then(() => loading.unsafe("commit"))]);
  const rows = await scene.rowsOf("ann");
  expect(rows.length).toBe(2);
  expect(rows[0]!).toEqual(rows[1]!);
  expect(rows[0]!.masked_ip).toMatch(FRESH);
  await scene.expectSound();
});

test("a load waits for an erasure, and counts on nothing that is gone then", async () => {
  const { ip, device, database } = scene;
  await scene.load({ user: "bob", ip: "203.0.113.2", device: "bob's phone" });
  const loading = database.sql(database.url("etl"));
  const erasing = database.sql(database.url("eraser"));
  await erasing.unsafe("begin");
  await forgetSql(erasing, ip("203.0.113.2"), device("bob's phone"));
  const answer = callLoad(loading, await unsent("bob", "203.0.113.2", "bob's phone"));
  const [loaded] = await Promise.all([answer, until(waits).then(() => erasing.unsafe("commit"))]);
  expect(loaded).toMatchObject({ loaded: 1, new_originals: 0 });
  const rows = await scene.rowsOf("bob");
  expect(new Set(rows.map((row) => row.masked_device_id)).size).toBe(2);
  for (const row of rows) expect(row.masked_device_id).toMatch(FRESH);
  await scene.expectSound();
});

test("an erasure that is rolled back has not happened, to a load that waited for it either", async () => {
  const { ip, device, database } = scene;
  await scene.load({ user: "cid", ip: "203.0.113.3", device: "cid's phone" });
  const loading = database.sql(database.url("etl"));
  const erasing = database.sql(database.url("eraser"));
  await erasing.unsafe("begin");
  await forgetSql(erasing, ip("203.0.113.3"), device("cid's phone"));
  const answer = callLoad(loading, await unsent("cid", "203.0.113.3", "cid's phone"));
  await Promise.all([answer, until(waits).then(() => erasing.unsafe("rollback"))]);
  for (const row of await scene.rowsOf("cid")) expect(row.masked_ip).toBe(ip("203.0.113.3"));
  await scene.expectSound();
});

test("who waits too long for a load says so, and has changed nothing", async () => {
  const { ip, database } = scene;
  await scene.load({ user: "dan", ip: "203.0.113.4", device: "dan's phone" });
  const loading = database.sql(database.url("etl"));
  const erasing = database.sql(database.url("eraser"));
  await loading.unsafe("begin");
  await callLoad(loading, await unsent("dan", "203.0.113.4", "dan's phone"));
  await erasing.unsafe("set lock_timeout = '50ms'");
  expect(await outcome(forgetSql(erasing, ip("203.0.113.4")))).toBe("55P03");
  // Other loads go on.
  await scene.load({ user: "dan", ip: "203.0.113.4", device: null });
  await loading.unsafe("commit");
  expect(await scene.inVault(ip("203.0.113.4"))).toBe(1);
});

class Watched extends KnownOriginals {
  clears = 0;
  override clear(): void {
    this.clears++;
    super.clear();
  }
}

async function storeAll(
  knownOriginals: KnownOriginals,
  messages: readonly Message[],
  { host, as }: ErasureScene = scene,
): Promise<StoredPart[]> {
  const { subkeys, dataKeys } = host;
  const database = as("etl");
  return await storeMessages({ database, subkeys, dataKeys, knownOriginals }, messages, 20_000);
}

test("what a host has seen stored and was forgotten since needs nothing sent again", async () => {
  const known = new Watched();
  const login = () => messageOf("eve", "203.0.113.5", "eve's phone");
  await storeAll(known, [login()]);
  const tokens = [scene.ip("203.0.113.5"), scene.device("eve's phone")];
  await forget(scene.as("eraser"), { tokens }, "request");
  const [stored] = await storeAll(known, [login(), messageOf("eve", "203.0.113.6", null)]);
  expect(stored!.batch.originals.size).toBe(1);
  expect(stored!.result).toMatchObject({ loaded: 2, newOriginals: 1 });
  expect(known.clears).toBe(0);
  // A host that has not seen it sends it: it is not stored either.
  const [other] = await storeAll(new Watched(), [login()]);
  expect(other!.batch.originals.size).toBe(2);
  expect(other!.result).toMatchObject({ loaded: 1, newOriginals: 0 });
  expect(await scene.inVault(...tokens)).toBe(0);
  await scene.expectSound();
});

test("what a host has seen stored and may come back is sent again", async () => {
  const known = new Watched();
  await storeAll(known, [messageOf("fay", "203.0.113.7", "fay's phone")]);
  const tokens = [scene.ip("203.0.113.7"), scene.device("fay's phone")];
  await forget(scene.as("eraser"), { tokens }, "request");
  await scene.owner`update pii_vault.policies set erased_may_return = true where field = 'ip'`;
  const back = await storeAll(known, [messageOf("fay", "203.0.113.7", "fay's phone")]);
  await scene.owner`update pii_vault.policies set erased_may_return = false`;
  expect(back[0]!.result).toMatchObject({ loaded: 1, newOriginals: 1 });
  expect(known.clears).toBe(1);
  expect(await scene.tombstones(...tokens)).toBe(1);
  await scene.expectSound();
});

test("what a host has seen stored in a period that has expired since needs nothing sent again", async () => {
  const known = new Watched();
  const scene = await makeErasureScene(await createDatabase());
  // As long ago as loads take it, and as expiries do.
  const sentAt = new Date(Date.now() - 34 * 86_400_000);
  const day = sentAt.toISOString().slice(0, 10);
  await scene.owner`delete from etl.periods`;
  for (const row of await scene.owner`
    select i.inhrelid::regclass::text as name from pg_catalog.pg_inherits i
    where i.inhrelid::regclass::text ~ '(user_logins|originals)_[0-9]{8}$'`) {
    await scene.owner.unsafe(`drop table ${row.name}`);
  }
  await scene.owner`select etl.make_period(${day}::date, ${day}::date + 1)`;
  const login = () => messageOf("guy", "203.0.113.8", "guy's phone", sentAt);
  const message = login();
  await storeAll(known, [message], scene);
  const expiry = { olderThanDays: 15, withRows: false, reason: "retention", dryRun: false };
  expect(await expire(scene.as("eraser"), expiry)).toMatchObject({ originals: 2, rows: 0 });
  const [late] = await storeAll(known, [login()], scene);
  expect(late!.result).toMatchObject({ loaded: 1, newOriginals: 0, periods: [] });
  expect(known.clears).toBe(0);
  // Nor does a delivery that is known already bring anything back.
  const [again] = await storeAll(new Watched(), [message], scene);
  expect(again!.result).toMatchObject({ loaded: 0, duplicates: 1, newOriginals: 0 });
  expect(await scene.inVault(scene.ip("203.0.113.8"), scene.device("guy's phone"))).toBe(0);
  const rows = await scene.rowsOf("guy");
  expect(rows.filter((row) => FRESH.test(row.masked_ip!)).length).toBe(1);
  await scene.expectSound();
  await scene.database.drop();
});

test("a replay brings back nothing that was forgotten, and its body is gone", async () => {
  const { host, as, owner } = scene;
  await scene.load({ user: "hal", ip: "203.0.113.9", device: "hal's phone" });
  const key = await host.dataKeys.take(1);
  const body = JSON.stringify({ user_id: "hal", ip: "203.0.113.9", device_id: "another" });
  const messageId = randomUUID();
  const sealed = seal(key.dataKey.bytes, { kind: "quarantine", messageId }, body);
  const rejected = [{ messageId, sentAt: new Date(), reason: "an old rule", sealed }];
  await load(as("etl"), host.subkeys, key, { rows: [], originals: new Map(), rejected });
  await forget(as("eraser"), { user: "hal" }, "request");

  // Whatever the login's default is.
  const url = await scene.database.addLogin("operator");
  await owner.unsafe(
    `alter role ${new URL(url).username} set default_transaction_isolation = 'repeatable read'`,
  );
  const keys = new OpeningKeys({
    identities: readIdentities(host.keys),
    verifyKey: null,
    subkeys: null,
  });
  const outcomes: string[] = [];
  const replayer = { keys, reason: "fixed", subkeys: host.subkeys, dataKeys: host.dataKeys };
  await replay({ ...replayer, database: scene.database.open(url) }, [messageId], (one) =>
    outcomes.push(one.outcome),
  );
  expect(outcomes).toEqual(["replayed"]);
  const rows = await scene.rowsOf("hal");
  expect(rows.map((row) => row.masked_ip)).toEqual([
    expect.stringMatching(FRESH),
    expect.stringMatching(FRESH),
  ]);
  expect(new Set(rows.map((row) => row.masked_ip)).size).toBe(2);
  expect(rows.some((row) => row.masked_device_id === scene.device("another"))).toBe(true);
  const [entry] = await owner`
    select state, sealed from etl.quarantine where message_id = ${messageId}`;
  expect({ ...entry }).toEqual({ state: "replayed", sealed: null });
  await scene.expectSound();
});

test("fifty erasures among loads that go on: nothing is lost, nothing comes back, nothing lacks its original", async () => {
  const { database, ip, device, host } = scene;
  const pool = Array.from({ length: 60 }, (_, n) => n);
  const valuesOf = (n: number) => [`198.51.100.${n}`, `device ${n}`] as const;
  const eraser = scene.as("eraser");
  const forgotten = new Set<string>();
  let isOver = false;
  let stored = 0;
  const loader = async (each: number) => {
    const { subkeys, dataKeys } = await makeHost(host.keys);
    const etl = database.open(database.url("etl"));
    const used = { database: etl, subkeys, dataKeys, knownOriginals: new KnownOriginals() };
    for (let round = 0; !isOver || round < 5; round++) {
      const messages = Array.from({ length: 20 }, (_, i) => {
        const n = pool[(round * 7 + i * 3 + each * 11) % pool.length]!;
        // Old, so that some of it may expire too, and one user for each, so that it may be forgotten.
        return messageOf(`user ${n}`, ...valuesOf(n), new Date(Date.now() - (n % 34) * 86_400_000));
      });
      for (const { result } of await storeMessages(used, messages, 20_000)) stored += result.loaded;
    }
  };
  const erasing = async () => {
    for (let i = 0; i < 50; i++) {
      const [address] = valuesOf(pool[(i * 13) % pool.length]!);
      if (i % 10 === 9) {
        // While these loads bring what is as old again and again, it may give up, and change nothing.
        const expiry = { olderThanDays: 15, withRows: false, reason: "retention", dryRun: false };
        await expire(eraser, expiry).catch((error) => {
          if (error.code !== "55P03") throw error;
        });
      } else if (i % 2 === 0) {
        const { outcomes } = await forget(eraser, { tokens: [ip(address)] }, "request");
        if (outcomes[0]!.outcome !== "unknown") forgotten.add(ip(address));
      } else {
        const user = `user ${pool[(i * 13) % pool.length]!}`;
        const { outcomes } = await forget(eraser, { user }, "request");
        for (const { token, outcome } of outcomes) if (outcome === "erase") forgotten.add(token!);
      }
    }
    isOver = true;
  };
  await Promise.all([loader(0), loader(1), loader(2), erasing()]);
  const [row] = await scene.owner`
    select count(*)::int as n from public.user_logins where user_id like 'user %'`;
  expect(Number(row?.n)).toBe(stored);
  expect(forgotten.size).toBeGreaterThan(20);
  expect(await scene.inVault(...forgotten)).toBe(0);
  expect(await scene.inVault(...pool.map((n) => device(valuesOf(n)[1])))).toBeGreaterThan(0);
  await scene.expectSound();
});
