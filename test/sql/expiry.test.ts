// Retention: whole periods go, originals always and rows where that is asked for, and what is held takes their place.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { type Expired, type Expiry, expire } from "../../src/erasure/expire.ts";
import { forget } from "../../src/erasure/forget.ts";
import { addHold, releaseHold } from "../../src/erasure/holds.ts";
import { until } from "../line/stored.ts";
import { attempt } from "./attempt.ts";
import { type ErasureScene, FRESH, makeErasureScene } from "./erasure-scene.ts";
import { callLoad, loadArguments } from "./host.ts";

let scene: ErasureScene;
beforeAll(async () => {
  scene = await makeErasureScene();
});
afterAll(() => scene?.database.drop());

const daysAgo = (days: number): string =>
  new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10);

/** Every test has a period of its own, and later ones are not there yet. */
async function makePeriod(first: string, end: string): Promise<void> {
  await scene.owner.begin(async (sql) => {
    await sql.unsafe("set local role veil_owner");
    await sql`select etl.make_period(${first}::date, ${end}::date)`;
  });
}

const run = (expiry: Partial<Expiry> = {}): Promise<Expired> =>
  expire(scene.as("eraser"), {
    ...{ olderThanDays: 400, withRows: false, reason: "policy 7", dryRun: false },
    ...expiry,
  });

const partitions = async (): Promise<string[]> => {
  const rows = await scene.owner`
    select relid::regclass::text as name from pg_partition_tree('public.user_logins') where level = 1
    union all
    select relid::regclass::text from pg_partition_tree('pii_vault.originals') where level = 1
    order by 1`;
  return rows.map(({ name }) => String(name)).filter((name) => /_\d{8}/.test(name));
};

const period = async (first: string) => {
  const [row] = await scene.owner`
    select originals_expired_at is not null as originals, logins_expired_at is not null as logins
    from etl.periods where first = ${first}`;
  return row === undefined ? null : { ...row };
};

const entryOf = async (id: number | undefined) => {
  const [row] = await scene.owner`
    select action, items, tokens, reason, details from pii_vault.audit where id = ${id ?? 0}`;
  return row === undefined ? null : { ...row };
};

const NONE = { originals: 0, rows: 0 };

test("originals of old periods go, the rows stay, and a newer period keeps its copy", async () => {
  const { load, ip, device, inVault } = scene;
  await makePeriod("2020-01-01", "2020-02-01");
  await load(
    { user: "ann", ip: "203.0.113.1", device: "old", day: "2020-01-05" },
    { user: "ann", ip: "203.0.113.2", device: "both", day: "2020-01-31" },
    { user: "bob", ip: "203.0.113.3", device: "both", day: daysAgo(1) },
  );
  const rows = await scene.rowsOf("ann", "bob");
  const dry = await run({ dryRun: true });
  const counts = { first: "2020-01-01", until: "2020-02-01", originals: 4, rows: 0, held: NONE };
  expect(dry).toMatchObject({ originals: 4, rows: 0, periods: [{ ...counts, entries: [] }] });
  expect(dry.bytes).toBeGreaterThan(0);
  expect(await inVault(ip("203.0.113.1"), ip("203.0.113.2"), device("old"), device("both"))).toBe(5);
  expect(await period("2020-01-01")).toEqual({ originals: false, logins: false });

  const done = await run();
  expect(done).toMatchObject({ originals: 4, rows: 0, periods: [counts] });
  expect(await inVault(ip("203.0.113.1"), ip("203.0.113.2"), device("old"))).toBe(0);
  expect(await scene.revealed(device("both"), device("old"))).toEqual(["both", null]);
  expect(await scene.rowsOf("ann", "bob")).toEqual(rows);
  expect(await period("2020-01-01")).toEqual({ originals: true, logins: false });
  expect(await partitions()).toContain("etl.user_logins_20200101");
  expect(await partitions()).not.toContain("pii_vault.originals_20200101");
  const [entry] = done.periods[0]!.entries;
  expect(await entryOf(entry)).toEqual({
    ...{ action: "erasure.expire", items: 4, tokens: [], reason: "policy 7" },
    details: {
      erasure: expect.any(String),
      kind: "expiry",
      run: done.run,
      at: expect.any(String),
      first: "2020-01-01",
      until: "2020-02-01",
      originals: 4,
      rows: null,
      days: null,
      held: NONE,
    },
  });
  await scene.expectSound();
  expect(await run()).toMatchObject({ ...NONE, periods: [] });
});

test("with --rows the rows go as well, and what comes late gets a token that stands for nothing", async () => {
  const { load, owner } = scene;
  const done = await run({ withRows: true });
  expect(done).toMatchObject({ originals: 0, rows: 2, periods: [{ originals: 0, rows: 2 }] });
  expect((await entryOf(done.periods[0]?.entries[0]))?.details).toMatchObject({
    ...{ originals: null, rows: 2, days: { "2020-01-05": 1, "2020-01-31": 1 } },
  });
  expect(await scene.rowsOf("ann")).toEqual([]);
  expect(await period("2020-01-01")).toEqual({ originals: true, logins: true });
  expect((await partitions()).filter((name) => name.endsWith("_20200101"))).toEqual([]);
  await scene.expectSound();
  // In the default partition, because its own is gone.
  expect(
    await load({ user: "late", ip: "203.0.113.1", device: "old", day: "2020-01-05" }),
  ).toMatchObject({ loaded: 1, newOriginals: 0 });
  const [late] = await scene.rowsOf("late");
  expect(late!.masked_ip).toMatch(FRESH);
  await scene.expectSound();
  expect(await run({ withRows: true })).toMatchObject({
    ...{ originals: 0, rows: 1, periods: [{ first: "2020-01-01", rows: 1 }] },
  });
  const [total] = await owner`select logins from etl.expired_logins where day = '2020-01-05'`;
  expect(Number(total?.logins)).toBe(2);
  await scene.expectSound();
});
