// Retention: whole periods go, originals always and rows where that is asked for, and what is held takes their place.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { type Expired, type Expiry, expire } from "../../src/erasure/expire.ts";
import { forget } from "../../src/erasure/forget.ts";
import { addHold, releaseHold } from "../../src/erasure/holds.ts";
import { attempt } from "./attempt.ts";
import { type ErasureScene, FRESH, makeErasureScene } from "./erasure-scene.ts";

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
  expect(await inVault(ip("203.0.113.1"), ip("203.0.113.2"), device("old"), device("both"))).toBe(
    5,
  );
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

test("what is held takes the period's place, opens as before, and goes when nothing holds it", async () => {
  const { load, ip, device, as, owner, inVault } = scene;
  await makePeriod("2021-01-01", "2021-02-01");
  await load(
    { user: "dan", ip: "203.0.113.20", device: "dan's phone", day: "2021-01-05" },
    { user: "eve", ip: "203.0.113.21", device: "eve's phone", day: "2021-01-06" },
    { user: "eve", ip: "203.0.113.22", device: "eve's phone", day: "2021-01-07" },
    { user: "fay", ip: "203.0.113.23", device: "fay's phone", day: "2021-01-07" },
    { user: "gil", ip: "203.0.113.24", device: "gil's phone", day: "2021-01-08" },
    // The user who is held has this one elsewhere, where its original stays.
    { user: "gil", ip: "203.0.113.25", day: "2021-01-08" },
    { user: "eve", ip: "203.0.113.25", day: daysAgo(3) },
  );
  // As if it had been planted then.
  await owner`insert into pii_vault.canaries (token) values (${device("gil's phone")})`;
  await forget(as("eraser"), { tokens: [ip("203.0.113.22")] }, "request");
  const onToken = await addHold(as("policy"), { token: ip("203.0.113.20") }, "case 1");
  const onUser = await addHold(as("policy"), { user: "eve" }, "case 2");
  const kept = [ip("203.0.113.20"), ip("203.0.113.21"), device("eve's phone")];
  const copies = async () => [
    ...(await owner`select token, period, data_key, sealed, sealed_at from pii_vault.originals
      where period = '2021-01-01' order by token`),
  ];
  const before = await copies();
  const held = { originals: 4, rows: 3 };
  const counts = { first: "2021-01-01", originals: 5, rows: 3, held };
  expect(await run({ withRows: true, dryRun: true })).toMatchObject({ held, periods: [counts] });
  const done = await run({ withRows: true });
  expect(done).toMatchObject({ originals: 5, rows: 3, held, periods: [counts] });
  expect((await entryOf(done.periods[0]?.entries[0]))?.details).toMatchObject({
    ...{ originals: 5, rows: 3, held, days: { "2021-01-07": 1, "2021-01-08": 2 } },
  });
  expect(await copies()).toEqual(
    before.filter(({ token }) => [...kept, device("gil's phone")].includes(String(token))),
  );
  expect(await scene.revealed(...kept)).toEqual(["203.0.113.20", "203.0.113.21", "eve's phone"]);
  expect((await scene.rowsOf("dan", "eve", "fay", "gil")).map((row) => row.user_id)).toEqual([
    ...["dan", "eve", "eve", "eve"],
  ]);
  expect((await scene.rowsOf("eve"))[1]!.masked_ip).toMatch(FRESH);
  expect((await partitions()).filter((name) => name.endsWith("_20210101")).length).toBe(2);
  const left = await owner`
    select relname from pg_class where relname like '%_held' and relkind = 'r'
    union all select conname from pg_constraint where conname = 'in_period'`;
  expect(left.length).toBe(0);
  await scene.expectSound();

  // Looked at again, and nothing to do.
  expect(await run({ withRows: true })).toMatchObject({
    ...{ ...NONE, held, periods: [{ ...NONE, held, entries: [] }], bytes: 0 },
  });
  await releaseHold(as("policy"), onToken, "closed");
  expect(await run({ withRows: true })).toMatchObject({
    ...{ originals: 1, rows: 1, held: { originals: 3, rows: 2 } },
  });
  await releaseHold(as("policy"), onUser, "closed");
  expect(await run({ withRows: true })).toMatchObject({
    ...{ originals: 2, rows: 2, held: { originals: 1, rows: 0 } },
  });
  expect(await inVault(...kept, device("gil's phone"))).toBe(1);
  expect((await partitions()).filter((name) => name.endsWith("_20210101"))).toEqual([
    "pii_vault.originals_20210101",
  ]);
  await owner`delete from pii_vault.canaries where token = ${device("gil's phone")}`;
  await scene.expectSound();
  expect(await run()).toMatchObject({ originals: 1, held: NONE });
});

test("a day of the default partitions is a period of its own, and goes in steps", async () => {
  const { owner, as } = scene;
  const sent = Array.from({ length: 4500 }, (_, n) => ({
    id: randomUUID(),
    sentAt: new Date("2018-03-04T10:00:00Z"),
    body: { user_id: `step ${n % 9}`, ip: `198.51.${n >> 8}.${n & 255}` },
  }));
  await scene.host.load(as("etl"), sent);
  await scene.load(
    { user: "held", ip: "203.0.113.30", day: "2018-03-04" },
    { user: "next", ip: "203.0.113.31", day: "2018-03-05" },
  );
  const hold = await addHold(as("policy"), { user: "held" }, "case 3");
  const held = { originals: 1, rows: 1 };
  const parts = [
    { first: "2018-03-04", until: "2018-03-05", originals: 4500, rows: 4500, held, bytes: 0 },
    { first: "2018-03-05", until: "2018-03-06", originals: 1, rows: 1, held: NONE, bytes: 0 },
  ];
  expect(await run({ withRows: true, dryRun: true })).toMatchObject({ periods: parts });
  const interrupt = new AbortController();
  const shown: Expired[] = [];
  const expiry = { olderThanDays: 400, withRows: true, reason: "policy 7", dryRun: false };
  const interrupted = expire(as("eraser"), { ...expiry, interrupt: interrupt.signal }, (step) => {
    shown.push(step);
    interrupt.abort();
  });
  await expect(interrupted).rejects.toThrow();
  expect(shown.at(-1)).toMatchObject({ originals: 2000, rows: 2000 });
  await scene.expectSound();
  const done = await run({ withRows: true });
  expect(done).toMatchObject({
    originals: 2501,
    rows: 2501,
    periods: [{ ...parts[0]!, originals: 2500, rows: 2500 }, parts[1]!],
  });
  expect(done.periods[0]!.entries.length).toBe(2);
  expect(await period("2018-03-04")).toEqual({ originals: true, logins: true });
  expect(await scene.revealed(scene.ip("203.0.113.30"))).toEqual(["203.0.113.30"]);
  await scene.expectSound();
  await releaseHold(as("policy"), hold, "closed");
  expect(await run({ withRows: true })).toMatchObject({ originals: 1, rows: 1, held: NONE });
  const [left] = await owner`select count(*)::int as n from etl.user_logins_without_period
    where create_date < '2019-01-01'`;
  expect(left?.n).toBe(0);
  await scene.expectSound();
});

test("rows without a date, and periods that ended less than 15 days ago, never go", async () => {
  const { owner, load, ip } = scene;
  await load(
    { user: "dateless", ip: "203.0.113.40", day: daysAgo(16) },
    { user: "young", ip: "203.0.113.41", day: daysAgo(15) },
    { user: "old", ip: "203.0.113.42", day: daysAgo(16) },
  );
  await owner`update public.user_logins set create_date = null where user_id = 'dateless'`;
  await owner`insert into etl.adopted values (null, 1, 0), (${daysAgo(16)}, -1, 0)`;
  const inPeriods = await owner`select 1 from etl.periods
    where first <= ${daysAgo(16)} and until > ${daysAgo(16)}`;
  await run({ olderThanDays: 15, withRows: true });
  expect((await scene.rowsOf("dateless", "young")).length).toBe(2);
  expect(await scene.inVault(ip("203.0.113.41"))).toBe(1);
  // Alone in its day, or with its month, which is not over for so long.
  expect(await scene.inVault(ip("203.0.113.42"))).toBe(inPeriods.length === 0 ? 0 : 1);
  await scene.expectSound();
});

test("quarantined bodies go with them; with anything held, none does", async () => {
  const { host, as, owner } = scene;
  const bodies = ["{", "[", "}", "]"].map((body, i) => ({
    ...{ id: `body ${i}`, body, sentAt: new Date(daysAgo(i === 2 ? 10 : 450)) },
  }));
  await host.load(as("etl"), bodies);
  // The last one has come late: nobody could look at it before.
  await owner`update etl.quarantine set quarantined_at = sent_at where message_id <> 'body 3'`;
  const hold = await addHold(as("policy"), { user: "nobody" }, "case 1");
  const expected = { bodies: { discarded: 0, held: 2 } };
  expect(await run({ dryRun: true })).toMatchObject(expected);
  expect(await run()).toMatchObject(expected);
  await releaseHold(as("policy"), hold, "closed");
  const rest = { bodies: { discarded: 2, held: 0 } };
  expect(await run({ dryRun: true })).toMatchObject(rest);
  const done = await run();
  expect(done).toMatchObject(rest);
  const states = await owner`
    select state, sealed is null as gone from etl.quarantine order by message_id`;
  expect(states.map((row) => [row.state, row.gone])).toEqual([
    ["discarded", true],
    ["discarded", true],
    ["open", false],
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

test("an expiry whose record, or whose counts, are not as etl.periods has them is found", async () => {
  const { owner } = scene;
  const broken = async (change: string) => {
    const found: unknown[] = [];
    await owner
      .begin(async (sql) => {
        await sql.unsafe(change);
        found.push(
          ...(await sql`select offenders::int, examples from etl.check_erasures_are_on_record()`),
        );
        throw new Error("undone");
      })
      .catch((error: Error) => expect(error.message).toBe("undone"));
    return { ...(found[0] as object) };
  };
  for (const [change, example] of [
    ["delete from etl.periods where first = '2021-01-01'", "period 2021-01-01"],
    ["update etl.periods set until = '2021-01-30' where first = '2021-01-01'", "period 2021-01-01"],
    [
      "update etl.periods set logins_expired_at = null where first = '2021-01-01'",
      "period 2021-01-01",
    ],
    ["update etl.expired_logins set logins = 3 where day = '2021-01-08'", "rows of 2021-01-08"],
    ["delete from etl.expired_logins where day = '2021-01-08'", "rows of 2021-01-08"],
    ["insert into etl.expired_logins values ('2017-01-01', 1)", "rows of 2017-01-01"],
    [
      "insert into etl.periods values ('2017-01-01', '2017-01-02', now(), null)",
      "period 2017-01-01",
    ],
  ] as const) {
    const { offenders, examples } = (await broken(change)) as Record<string, unknown>;
    expect([change, examples]).toEqual([change, expect.arrayContaining([example])]);
    expect(offenders).toBeGreaterThanOrEqual(1);
  }
});

test("nothing expires without a reason, before its time, or that is no period", async () => {
  const sql = scene.database.sql(scene.database.url("eraser"));
  const id = `'${randomUUID()}'`;
  for (const [statement, code] of [
    ["plan_expire(14, false)", "VL006"],
    ["plan_expire(null, false)", "VL006"],
    ["plan_expire(36501, false)", "VL006"],
    ["plan_expire(400, null)", "VL006"],
    ["plan_expire_period(null, false)", "VL006"],
    [`plan_expire_period('${daysAgo(14)}', false)`, "VL006"],
    ["plan_expire_period('infinity', false)", "VL006"],
    ["plan_expire_period('-infinity', false)", "VL042"],
    ["plan_expire_period('2021-01-02', false)", "VL042"],
    [`expire_period('2021-01-02', false, ${id}, 'r')`, "VL042"],
    [`expire_period('${daysAgo(14)}', false, ${id}, 'r')`, "VL006"],
    [`expire_period(null, false, ${id}, 'r')`, "VL006"],
    [`expire_period('2021-01-01', null, ${id}, 'r')`, "VL006"],
    ["expire_period('2021-01-01', false, null, 'r')", "VL006"],
    [`expire_period('2021-01-01', false, ${id}, null)`, "VL030"],
    [`expire_period('2021-01-01', false, ${id}, ' ')`, "VL030"],
    [`expire_bodies(400, ${id}, ' ', false)`, "VL030"],
    ["expire_bodies(400, null, 'r', false)", "VL006"],
    [`expire_bodies(14, ${id}, 'r', false)`, "VL006"],
  ] as const) {
    const full = `select * from pii_vault.${statement}`;
    expect([statement, await attempt(sql, full)]).toEqual([statement, code]);
  }
  for (const role of ["etl", "analyst", "policy", "operator", "auditor", "revealer"] as const) {
    const other = scene.database.sql(scene.database.url(role));
    for (const call of [
      "plan_expire(400, false)",
      `expire_period('2021-01-01', true, ${id}, 'r')`,
    ]) {
      expect([role, await attempt(other, `select * from pii_vault.${call}`)]).toEqual([
        role,
        "42501",
      ]);
    }
  }
  await sql.unsafe("begin isolation level repeatable read");
  expect(
    await sql.unsafe(`select * from pii_vault.expire_period('2021-01-01', true, ${id}, 'r')`).then(
      () => "done",
      (error: postgres.PostgresError) => error.code,
    ),
  ).toBe("VL015");
  await sql.unsafe("rollback");
});
