// Retention: what no login has had for so long goes, step by step, and comes back with a new login.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash, randomUUID } from "node:crypto";
import { type Expired, expire } from "../../src/erasure/expire.ts";
import { addHold, releaseHold } from "../../src/erasure/holds.ts";
import { attempt } from "./attempt.ts";
import { type ErasureScene, makeErasureScene } from "./erasure-scene.ts";

let scene: ErasureScene;
beforeAll(async () => {
  scene = await makeErasureScene();
});
afterAll(() => scene?.database.drop());

const NONE = { ip: 0, device_id: 0 };

const daysAgo = (days: number): string =>
  new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10);

const run = (dryRun = false, olderThanDays = 400): Promise<Expired> =>
  expire(scene.as("eraser"), { olderThanDays, reason: "policy 7", dryRun }, () => {});

/** Tokens that veil has not made, each with an original of its own. */
async function fill(count: number, letters: string): Promise<void> {
  await scene.owner.unsafe(
    `insert into pii_vault.originals (token, data_key, sealed, sealed_at)
     select 'ip1_${letters}' || translate(lpad(n::text, 10, '0'), '0189', 'wxyz') || repeat('b', 13) || 'a',
       (select id from pii_vault.data_keys limit 1),
       sha256(n::text::bytea) || sha256(('x' || n)::bytea) || substring(sha256(('y' || n)::bytea) for 12),
       '2020-01-01'
     from generate_series(1, $1::int) n`,
    [count],
  );
}

test("the day decides: of the last login, or of the sealing where no row has the token", async () => {
  const { load, ip, device, owner, inVault } = scene;
  await load(
    { user: "ann", ip: "203.0.113.1", device: "old", day: daysAgo(500) },
    { user: "ann", ip: "203.0.113.2", device: "both", day: daysAgo(500) },
    { user: "bob", ip: "203.0.113.3", device: "both", day: daysAgo(10) },
    { user: "bob", ip: "203.0.113.4", day: daysAgo(401) },
    { user: "bob", ip: "203.0.113.5", day: daysAgo(399) },
    { user: "cid", ip: "203.0.113.6", day: daysAgo(500) },
    { user: "cid", ip: "203.0.113.7", day: daysAgo(500) },
    { user: "cid", ip: "203.0.113.8", day: daysAgo(500) },
  );
  const lone = [ip("203.0.113.7"), ip("203.0.113.8")];
  await owner`delete from public.user_logins where masked_ip = any(${lone})`;
  await owner`delete from etl.ledger where sent_on = ${daysAgo(500)}`;
  await owner`insert into etl.adopted (day, messages, plain_values)
    select create_date, count(*), 0 from public.user_logins
    where create_date = ${daysAgo(500)} group by 1`;
  await owner`update pii_vault.originals set sealed_at = ${daysAgo(500)} where token = ${lone[1]!}`;
  // Without a date it may be of today.
  await owner`update public.user_logins set create_date = null
    where masked_ip = ${ip("203.0.113.6")}`;
  await owner`update etl.adopted set messages = messages - 1`;
  await owner`insert into etl.adopted values (null, 1, 0)`;
  const stay = ["203.0.113.3", "203.0.113.5", "203.0.113.6", "203.0.113.7"].map((one) => ip(one));
  const go = ["203.0.113.1", "203.0.113.2", "203.0.113.4", "203.0.113.8"].map((one) => ip(one));

  const dry = await run(true);
  expect(dry).toMatchObject({ erased: { ip: 4, device_id: 1 }, held: 0, entries: [], looked: 10 });
  expect(await inVault(...go, ...stay, device("old"), device("both"))).toBe(10);
  const done = await run();
  expect(done).toMatchObject({ erased: { ip: 4, device_id: 1 }, held: 0, looked: 10 });
  expect(await inVault(...go, device("old"))).toBe(0);
  expect(await inVault(...stay, device("both"))).toBe(5);
  expect(await scene.tombstones(...go)).toEqual(Array(4).fill("expired"));
  // Rows are left alone: duplicates still show.
  expect((await scene.rowsOf("ann")).map((row) => row.masked_device_id).sort()).toEqual(
    [device("old"), device("both")].sort(),
  );
  await scene.expectSound();
  expect(await run()).toMatchObject({ erased: NONE, entries: [], looked: 5 });

  const [entry] = await owner`select * from pii_vault.audit where id = ${done.entries[0]!}`;
  expect(entry).toMatchObject({
    action: "erasure.expire",
    items: 5,
    tokens: [],
    reason: "policy 7",
  });
  const digest = createHash("sha256").update([...go, device("old")].sort().join("\n"));
  expect(entry?.details).toMatchObject({
    kind: "expiry",
    run: done.run,
    before: daysAgo(400),
    erased: { ip: 4, device_id: 1 },
    digest: digest.digest("hex"),
  });

  // What comes again is stored anew, and its old rows are recoverable with it.
  await load({ user: "ann", ip: "203.0.113.1", device: "old" });
  expect(await scene.revealed(ip("203.0.113.1"), ip("203.0.113.2"), device("old"))).toEqual([
    ...["203.0.113.1", null, "old"],
  ]);
  expect(await scene.tombstones(ip("203.0.113.1"), device("old"))).toEqual([]);
  await scene.expectSound();
});

test("what is held stays, and is counted; with anything held, so do the bodies", async () => {
  const { load, ip, device, host, as, owner } = scene;
  await load(
    { user: "dan", ip: "203.0.113.20", device: "dan's phone", day: daysAgo(450) },
    { user: "eve", ip: "203.0.113.21", device: "eve's phone", day: daysAgo(450) },
  );
  const bodies = ["{", "[", "}"].map((body, i) => ({
    ...{ id: `body ${i}`, body, sentAt: new Date(daysAgo(i === 2 ? 10 : 450)) },
  }));
  await host.load(as("etl"), bodies);
  const onToken = await addHold(as("policy"), { token: ip("203.0.113.20") }, "case 1");
  const onUser = await addHold(as("policy"), { user: "eve" }, "case 2");
  const expected = { erased: { ip: 0, device_id: 1 }, held: 3, bodies: { discarded: 0, held: 2 } };
  expect(await run(true)).toMatchObject(expected);
  expect(await run()).toMatchObject(expected);
  expect(await scene.tombstones(device("dan's phone"))).toEqual(["expired"]);
  await releaseHold(as("policy"), onToken, "closed");
  await releaseHold(as("policy"), onUser, "closed");
  const rest = { erased: { ip: 2, device_id: 1 }, held: 0, bodies: { discarded: 2, held: 0 } };
  expect(await run(true)).toMatchObject(rest);
  const done = await run();
  expect(done).toMatchObject(rest);
  const entries = await owner`
    select state, sealed is null as gone from etl.quarantine order by message_id`;
  expect(entries.map((row) => [row.state, row.gone])).toEqual([
    ["discarded", true],
    ["discarded", true],
    ["open", false],
  ]);
  const [entry] = await owner`
    select message_ids, items, reason, details from pii_vault.audit
    where action = 'quarantine.discard'`;
  expect({ ...entry }).toEqual({
    message_ids: ["body 0", "body 1"],
    items: 2,
    reason: "policy 7",
    details: { kind: "expiry", run: done.run },
  });
  await scene.expectSound();
});

test("many go in steps, each with a receipt; what many rows have takes a step for itself", async () => {
  const { owner, ip } = scene;
  try {
    await scene.load({ user: "fay", ip: "203.0.113.30", day: daysAgo(420) });
    await fill(11_000, "aa");
    const busy = ip("203.0.113.30");
    await owner`insert into public.user_logins (user_id, masked_ip, create_date)
      select 'fay', ${busy}, ${daysAgo(420)} from generate_series(1, 25000)`;
    const steps: number[] = [];
    const expiry = { olderThanDays: 400, reason: "policy 7", dryRun: false };
    const done = await expire(scene.as("eraser"), expiry, ({ looked }) => steps.push(looked));
    expect(done.erased).toEqual({ ip: 11_001, device_id: 0 });
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    expect(steps.length).toBeGreaterThanOrEqual(3);
    const receipts = await owner`
      select (details #>> '{erased,ip}')::int as n from pii_vault.audit
      where details ->> 'run' = ${done.run} and action = 'erasure.expire' order by id`;
    expect(receipts.length).toBe(done.entries.length);
    expect(receipts.reduce((sum, row) => sum + Number(row.n), 0)).toBe(11_001);
    expect(Math.max(...receipts.map((row) => Number(row.n)))).toBeLessThanOrEqual(5000);
    expect(await scene.tombstones(busy)).toEqual(["expired"]);
  } finally {
    await owner`delete from public.user_logins where user_id = 'fay' and ctid not in (
      select min(ctid) from public.user_logins where user_id = 'fay')`;
  }
  await scene.expectSound();
});

test("nothing expires without a reason, after no day, or after a day ahead", async () => {
  const sql = scene.database.sql(scene.database.url("eraser"));
  const id = `'${randomUUID()}'`;
  for (const [statement, code] of [
    [`expire(0, null, ${id}, 'r')`, "VL006"],
    [`expire(-1, null, ${id}, 'r')`, "VL006"],
    [`expire(null, null, ${id}, 'r')`, "VL006"],
    [`expire(36501, null, ${id}, 'r')`, "VL006"],
    [`expire(400, null, null, 'r')`, "VL006"],
    [`expire(400, null, ${id}, null)`, "VL030"],
    [`expire_bodies(400, ${id}, ' ', false)`, "VL030"],
    [`expire_bodies(400, null, 'r', false)`, "VL006"],
    [`expire_bodies(0, ${id}, 'r', false)`, "VL006"],
    [`plan_expire(0, null)`, "VL006"],
  ] as const) {
    const full = `select * from pii_vault.${statement}`;
    expect([statement, await attempt(sql, full)]).toEqual([statement, code]);
  }
});
