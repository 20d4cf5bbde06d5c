// user_logins and the vault, partitioned by period: how periods are made, and what stands in which.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { expire } from "../../src/erasure/expire.ts";
import { forget } from "../../src/erasure/forget.ts";
import { dayOf } from "../../src/line/known-originals.ts";
import { createDatabase } from "../support/database.ts";
import { type ErasureScene, FRESH, makeErasureScene } from "./erasure-scene.ts";
import { callLoad, loadArguments } from "./host.ts";

let scene: ErasureScene;
beforeAll(async () => {
  scene = await makeErasureScene();
});
afterAll(() => scene?.database.drop());

const fresh = async (): Promise<ErasureScene> => {
  const made = await makeErasureScene(await createDatabase());
  // What migrating made is of the real day; from here on the day is the test's.
  await made.owner`delete from etl.periods`;
  const partitions = await made.owner`
    select i.inhrelid::regclass::text as name from pg_catalog.pg_inherits i
    where i.inhrelid::regclass::text ~ '(user_logins|originals)_[0-9]{8}$'`;
  for (const { name } of partitions) await made.owner.unsafe(`drop table ${name}`);
  return made;
};

const housekeep = async (owner: postgres.Sql, day: string): Promise<number> => {
  const [row] = await owner`select periods from etl.housekeep_on(${day}::date)`;
  return Number(row?.periods);
};

/** `2030-01-01 2030-02-01`, in their order. */
const periods = async (owner: postgres.Sql): Promise<string[]> => {
  const rows = await owner`
    select first::text || ' ' || until::text as bounds from etl.periods order by first`;
  return rows.map((row) => String(row.bounds));
};

/** Which partition each row of the user stands in, by its day. */
const places = async ({ owner }: ErasureScene, user: string): Promise<string[]> => {
  const rows = await owner`
    select tableoid::regclass::text || ' ' || create_date as place from public.user_logins
    where user_id = ${user} order by create_date`;
  return rows.map((row) => String(row.place));
};

/** The periods in which the vault has this token. */
const periodsOf = async ({ owner }: ErasureScene, token: string): Promise<string[]> => {
  const rows = await owner`
    select period::text as period from pii_vault.originals where token = ${token} order by period`;
  return rows.map((row) => String(row.period));
};

test("periods reach from five weeks back to two weeks ahead, and the next one is made in time", async () => {
  const { owner, database } = await fresh();
  expect(await housekeep(owner, "2030-01-10")).toBe(2);
  expect(await periods(owner)).toEqual(["2029-12-01 2030-01-01", "2030-01-01 2030-02-01"]);
  expect(await housekeep(owner, "2030-01-17")).toBe(0);
  expect(await housekeep(owner, "2030-01-18")).toBe(1);
  expect(await housekeep(owner, "2030-01-18")).toBe(0);
  expect((await periods(owner)).at(-1)).toBe("2030-02-01 2030-03-01");
  // After half a year without any housekeeping: what lies between has no period.
  expect(await housekeep(owner, "2030-08-10")).toBe(2);
  expect((await periods(owner)).slice(-2)).toEqual([
    ...["2030-07-01 2030-08-01", "2030-08-01 2030-09-01"],
  ]);
  await database.drop();
});

test("a clock that was wrong for a while leaves no gap behind", async () => {
  const { owner, database } = await fresh();
  await housekeep(owner, "2030-01-10");
  // Ten years ahead, and right again.
  await housekeep(owner, "2040-01-10");
  expect(await housekeep(owner, "2030-01-20")).toBe(1);
  expect(await periods(owner)).toEqual([
    ...["2029-12-01 2030-01-01", "2030-01-01 2030-02-01", "2030-02-01 2030-03-01"],
    ...["2039-12-01 2040-01-01", "2040-01-01 2040-02-01"],
  ]);
  await owner`update etl.period_length set length = 'week'`;
  await housekeep(owner, "2039-11-20");
  expect((await periods(owner)).slice(-4)).toEqual([
    ...["2039-11-21 2039-11-28", "2039-11-28 2039-12-01"],
    ...["2039-12-01 2040-01-01", "2040-01-01 2040-02-01"],
  ]);
  await database.drop();
});

test("periods of another length begin where those that are made end, and leave no gap", async () => {
  const { owner, database } = await fresh();
  await housekeep(owner, "2030-01-10");
  await owner`update etl.period_length set length = 'week'`;
  await housekeep(owner, "2030-02-10");
  expect((await periods(owner)).slice(1)).toEqual([
    "2030-01-01 2030-02-01",
    // To the next Monday first.
    "2030-02-01 2030-02-04",
    "2030-02-04 2030-02-11",
    "2030-02-11 2030-02-18",
    "2030-02-18 2030-02-25",
  ]);
  await owner`update etl.period_length set length = 'day'`;
  expect(await housekeep(owner, "2030-02-14")).toBe(4);
  await owner`update etl.period_length set length = 'month'`;
  expect(await housekeep(owner, "2030-02-16")).toBe(1);
  expect((await periods(owner)).slice(-3)).toEqual([
    "2030-02-27 2030-02-28",
    "2030-02-28 2030-03-01",
    "2030-03-01 2030-04-01",
  ]);
  await database.drop();
});

test("each partition has what its table has: keys, indexes, identity, and no samples of seals", async () => {
  const rows = await scene.owner`
    select c.oid::regclass::text as name, c.relreplident::text as identity, c.relowner::regrole::text as owner,
      (select count(*)::int from pg_index i where i.indrelid = c.oid) as indexes,
      (select a.attstattarget from pg_attribute a where a.attrelid = c.oid and a.attname = 'sealed')
        as samples
    from pg_class c
    where c.oid::regclass::text ~ '(user_logins|originals)_[0-9]{8}$' order by 1`;
  expect(rows.length).toBeGreaterThan(3);
  for (const row of rows) {
    const isVault = String(row.name).startsWith("pii_vault.");
    expect({ ...row }).toEqual({
      name: row.name,
      identity: isVault ? "d" : "f",
      owner: "veil_owner",
      indexes: isVault ? 1 : 4,
      samples: isVault ? 0 : null,
    });
  }
});

test("a batch that spans two periods has its rows and originals in both, and knows both by their bounds", async () => {
  const one = await fresh();
  const { owner, host, ip, device, database } = one;
  await housekeep(owner, "2030-02-01");
  const at = (id: string, time: string) => ({
    id,
    sentAt: new Date(time),
    body: { user_id: "u", ip: "203.0.113.1", device_id: id === "b" ? "phone" : `phone ${id}` },
  });
  const result = await host.load(one.as("etl"), [
    at("b", "2030-02-01T00:00:00.000Z"),
    at("a", "2030-01-31T23:59:59.999Z"),
    at("c", "2030-02-01T00:00:00.001Z"),
  ]);
  const days = ["2030-01-01", "2030-02-01", "2030-03-01"].map((day) => dayOf(new Date(day)));
  expect(result).toMatchObject({
    loaded: 3,
    newOriginals: 5,
    periods: [
      { first: days[0]!, until: days[1]! },
      { first: days[1]!, until: days[2]! },
    ],
  });
  expect(await places(one, "u")).toEqual([
    "etl.user_logins_20300101 2030-01-31",
    "etl.user_logins_20300201 2030-02-01",
    "etl.user_logins_20300201 2030-02-01",
  ]);
  expect(await periodsOf(one, ip("203.0.113.1"))).toEqual(["2030-01-01", "2030-02-01"]);
  expect(await periodsOf(one, device("phone"))).toEqual(["2030-02-01"]);
  // A seal that stands in two periods is one seal.
  await one.expectSound();
  await database.drop();
});

test("a token that is known of one period only is asked for in the other", async () => {
  const one = await fresh();
  const { owner, host, database } = one;
  await housekeep(owner, "2030-02-01");
  const etl = database.sql(database.url("etl"));
  const login = (id: string, day: string) => ({
    id,
    sentAt: new Date(`${day}T12:00:00Z`),
    body: { user_id: "u", ip: "203.0.113.1" },
  });
  await host.load(one.as("etl"), [login("a", "2030-01-31")]);
  const without = { tokens: "{}", sealed: "{}" };
  const next = loadArguments(host, await host.protect([login("b", "2030-02-01")]));
  const refused = callLoad(etl, { ...next, ...without });
  expect(await refused.catch((error) => error.code)).toBe("VL013");
  const same = loadArguments(host, await host.protect([login("c", "2030-01-30")]));
  expect(await callLoad(etl, { ...same, ...without })).toMatchObject({
    loaded: 1,
    new_originals: 0,
  });
  await database.drop();
});

test("days without a period stay in the default partitions, and periods are made around them", async () => {
  const one = await fresh();
  const { owner, load, ip, database } = one;
  await housekeep(owner, "2030-01-10");
  await load({ user: "u", ip: "203.0.113.1", day: "2030-03-03" });
  await load({ user: "u", ip: "203.0.113.1", day: "2030-03-04" });
  await load({ user: "u", ip: "203.0.113.1", day: "1999-12-31" });
  expect(await places(one, "u")).toEqual([
    "etl.user_logins_without_period 1999-12-31",
    "etl.user_logins_without_period 2030-03-03",
    "etl.user_logins_without_period 2030-03-04",
  ]);
  // Each day is a period of its own.
  expect(await periodsOf(one, ip("203.0.113.1"))).toEqual([
    "1999-12-31",
    "2030-03-03",
    "2030-03-04",
  ]);
  await housekeep(owner, "2030-03-02");
  expect((await periods(owner)).slice(-3)).toEqual([
    "2030-02-01 2030-03-01",
    "2030-03-01 2030-03-03",
    "2030-03-05 2030-04-01",
  ]);
  await load({ user: "v", ip: "203.0.113.1", day: "2030-03-04" });
  await load({ user: "v", ip: "203.0.113.1", day: "2030-03-05" });
  expect(await places(one, "v")).toEqual([
    "etl.user_logins_without_period 2030-03-04",
    "etl.user_logins_20300305 2030-03-05",
  ]);
  await one.expectSound();
  await database.drop();
});

test("one row ahead of the periods takes its day from them and no more", async () => {
  const one = await fresh();
  const { owner, load, database } = one;
  await housekeep(owner, "2030-01-10");
  await load({ user: "u", day: "2030-03-31" }, { user: "u", day: "2030-04-01" });
  expect(await housekeep(owner, "2030-03-20")).toBe(3);
  expect((await periods(owner)).slice(-3)).toEqual([
    ...["2030-02-01 2030-03-01", "2030-03-01 2030-03-31", "2030-04-02 2030-05-01"],
  ]);
  await load({ user: "v", day: "2030-03-10" });
  expect(await places(one, "v")).toEqual(["etl.user_logins_20300301 2030-03-10"]);
  await database.drop();
});

test("no two periods have a day in common, and a time without end is in none", async () => {
  const one = await fresh();
  const { owner, host, database } = one;
  await housekeep(owner, "2030-03-01");
  const planted = owner`insert into etl.periods (first, until) values ('2030-03-10', '2030-03-11')`;
  expect(await planted.catch((error) => error.code)).toBe("23P01");
  const etl = database.sql(database.url("etl"));
  for (const endless of ["infinity", "-infinity"]) {
    const batch = await host.protect([{ id: "endless", body: { user_id: "u" } }]);
    const bent = { ...loadArguments(host, batch), sent_ats: `{${endless}}` };
    expect(await callLoad(etl, bent).catch((error) => error.code)).toBe("VL014");
  }
  await database.drop();
});

test("whatever form of dates a database is set to, loads find their period and periods are made", async () => {
  const one = await fresh();
  const { owner, host, database } = one;
  const [row] = await owner`select current_database() as name`;
  for (const style of ["SQL, YMD", "Postgres, YMD", "German, DMY", "SQL, DMY", "Postgres, MDY"]) {
    await owner.unsafe(`alter database ${row?.name} set datestyle = '${style}'`);
    const keeper = database.sql(database.ownerUrl);
    const etl = database.sql(database.url("etl"));
    await keeper`delete from etl.periods`;
    for (const { name } of await keeper`
      select i.inhrelid::regclass::text as name from pg_catalog.pg_inherits i
      where i.inhrelid::regclass::text ~ '(user_logins|originals)_[0-9]{8}$'`) {
      await keeper.unsafe(`drop table ${name}`);
    }
    expect(await housekeep(keeper, "2030-03-01")).toBeGreaterThan(0);
    const login = (id: string) => ({
      id: `${style} ${id}`,
      sentAt: new Date("2030-03-02T00:00:00Z"),
      body: { user_id: style, ip: "203.0.113.1" },
    });
    await callLoad(etl, loadArguments(host, await host.protect([login("first")])));
    const again = loadArguments(host, await host.protect([login("again")]));
    expect(await callLoad(etl, { ...again, tokens: "{}", sealed: "{}" })).toMatchObject({
      ...{ loaded: 1, new_originals: 0 },
    });
  }
  await database.drop();
});

test("an etl login cannot keep house without a word, nor in an old snapshot", async () => {
  const one = await fresh();
  const etl = one.database.sql(one.database.url("etl"));
  await etl.unsafe("begin isolation level repeatable read");
  expect(await etl`select etl.housekeep()`.catch((error) => error.code)).toBe("VL015");
  await etl.unsafe("rollback");
  await etl.unsafe("begin");
  await etl`select etl.housekeep()`;
  const [row] = await etl`
    select current_setting('idle_in_transaction_session_timeout') as timeout`;
  expect(row?.timeout).toBe("10s");
  await etl.unsafe("rollback");
  await one.database.drop();
});

test("rows without a date are in no period's way, and are not looked through when one is made", async () => {
  const one = await fresh();
  const { owner, database } = one;
  await owner.unsafe("set role veil_owner");
  await owner`insert into public.user_logins (user_id) values ('nobody')`;
  const scans = await owner.begin(async (sql) => {
    await sql`select etl.make_period('2030-01-01', '2030-02-01')`;
    return await sql`
      select relname as name, seq_scan::int as scans from pg_stat_xact_user_tables
      where relname in ('user_logins_without_date', 'user_logins_without_period')
      order by relname`;
  });
  expect(scans.map((row) => [row.name, row.scans])).toEqual([
    ["user_logins_without_date", 0],
    ["user_logins_without_period", 1],
  ]);
  const [place] = await owner`select tableoid::regclass::text as name from public.user_logins`;
  expect(place?.name).toBe("etl.user_logins_without_date");
  await database.drop();
});

test("beside a load into the period's days, or a reader, no period is made; the next call makes it", async () => {
  const one = await fresh();
  const { owner, host, database } = one;
  const etl = database.sql(database.url("etl"));
  const analyst = database.sql(database.url("analyst"));
  await host.load(one.as("etl"), [{ id: "first", body: { user_id: "u" } }]);
  for (const [sql, statement] of [
    [etl, null],
    [analyst, "select count(*) from public.user_logins"],
  ] as const) {
    await sql.unsafe("begin");
    if (statement === null) {
      const sentAt = new Date("2030-01-10T00:00:00Z");
      const batch = await host.protect([{ id: randomUUID(), sentAt, body: { user_id: "u" } }]);
      await callLoad(sql, loadArguments(host, batch));
    } else await sql.unsafe(statement);
    expect(await housekeep(owner, "2030-01-10")).toBe(0);
    await sql.unsafe("rollback");
  }
  expect(await housekeep(owner, "2030-01-10")).toBe(2);
  await database.drop();
});

test("loads, housekeeping and readers at once: no error, and every message is stored once", async () => {
  const one = await fresh();
  const { owner, host, database } = one;
  await housekeep(owner, "2030-01-01");
  await owner`update etl.period_length set length = 'day'`;
  await host.load(one.as("etl"), [{ id: "first", body: { user_id: "first" } }]);
  const loading = Array.from({ length: 4 }, async (_, lane) => {
    const etl = database.open(database.url("etl"));
    for (let n = 0; n < 25; n++) {
      const messages = Array.from({ length: 8 }, (_, i) => ({
        id: `${lane}-${n}-${i}`,
        sentAt: new Date(Date.UTC(2030, 0, 28 + ((n + i) % 9))),
        body: { user_id: "u", ip: `203.0.113.${(n * i) % 200}`, device_id: `d${n}` },
      }));
      // As the line does where a partition was made under its hands, or locks were in its way.
      for (;;) {
        try {
          await host.load(etl, messages);
          break;
        } catch (error) {
          if (!/^(NEW_PARTITION|55P03|40P01)$/.test((error as { code: string }).code)) throw error;
        }
      }
    }
  });
  let isDone = false;
  const all = Promise.all(loading).finally(() => {
    isDone = true;
  });
  const keeping = (async () => {
    for (let day = 2; !isDone; day++) {
      await housekeep(
        database.sql(database.ownerUrl),
        `2030-01-${String((day % 27) + 1).padStart(2, "0")}`,
      );
    }
  })();
  const reading = (async () => {
    const analyst = database.sql(database.url("analyst"));
    while (!isDone)
      await analyst`select count(*) from public.user_logins where masked_ip is not null`;
  })();
  await Promise.all([all, keeping, reading]);
  const [row] = await owner`select count(*)::int as n from public.user_logins where user_id = 'u'`;
  expect(row?.n).toBe(4 * 25 * 8);
  await one.expectSound();
  await database.drop();
});

test("what comes for a period whose originals have expired gets tokens of its own, and no original", async () => {
  const one = await fresh();
  const { owner, load, ip, device, rowsOf, inVault, database } = one;
  await housekeep(owner, "2020-02-01");
  await load({ user: "old", ip: "203.0.113.9", device: null, day: "2019-12-01" });
  const olderThanDays = Math.floor((Date.now() - Date.parse("2020-01-01T00:00:00Z")) / 86_400_000);
  const expiry = { olderThanDays, withRows: false, reason: "retention", dryRun: false };
  expect(await expire(one.as("eraser"), expiry)).toMatchObject({ originals: 1, rows: 0 });
  const result = await load(
    { user: "late", ip: "203.0.113.1", device: "phone", day: "2019-12-31" },
    { user: "late", ip: "203.0.113.1", device: null, day: "2019-12-31" },
    { user: "new", ip: "203.0.113.1", device: "phone", day: "2020-01-01" },
  );
  expect(result).toMatchObject({ loaded: 3, newOriginals: 2 });
  expect(result.periods.length).toBe(1);
  const late = await rowsOf("late");
  const tokens = late.flatMap((row) => [row.masked_ip, row.masked_device_id]).filter(Boolean);
  expect(tokens.length).toBe(3);
  expect(new Set(tokens).size).toBe(3);
  for (const token of tokens) expect(token).toMatch(FRESH);
  expect((await rowsOf("new"))[0]).toMatchObject({
    masked_ip: ip("203.0.113.1"),
    masked_device_id: device("phone"),
  });
  expect(await inVault(ip("203.0.113.1"))).toBe(1);
  await one.expectSound();
  await database.drop();
});

test("a device that comes back over twelve periods is sealed once in each, and every row opens", async () => {
  const one = await fresh();
  const { owner, load, ip, device, revealed, database } = one;
  for (let month = 1; month <= 12; month++) {
    const day = `2030-${String(month).padStart(2, "0")}-15`;
    await housekeep(owner, day);
    const result = await load(
      { user: "u", ip: "203.0.113.1", device: "phone", day },
      { user: "u", ip: "203.0.113.1", device: "phone", day },
    );
    expect(result.newOriginals).toBe(2);
  }
  expect((await periodsOf(one, device("phone"))).length).toBe(12);
  const rows = await one.rowsOf("u");
  expect(rows.length).toBe(24);
  for (const row of rows) {
    expect([row.masked_ip, row.masked_device_id]).toEqual([ip("203.0.113.1"), device("phone")]);
  }
  expect(await revealed(ip("203.0.113.1"), device("phone"))).toEqual(["203.0.113.1", "phone"]);
  await one.expectSound();
  await database.drop();
});

test("who has rows in 24 periods and shares an address with three others is forgotten, token by token", async () => {
  const one = await fresh();
  const { owner, load, ip, device, revealed, rowsOf, inVault, database } = one;
  const others = ["bob", "cyd", "dan"];
  const shared = "203.0.113.1";
  for (let month = 0; month < 24; month++) {
    const day = new Date(Date.UTC(2030, month, 15)).toISOString().slice(0, 10);
    await housekeep(owner, day);
    // The same places in each partition: whoever writes by them alone writes to others' rows.
    const mine = {
      user: "ann",
      ip: month % 2 === 0 ? shared : "203.0.113.2",
      device: "ann's",
      day,
    };
    const theirs = others.map((user) => ({ user, ip: shared, device: `${user}'s`, day }));
    await load(...(month % 3 === 0 ? [mine, ...theirs] : [...theirs, mine]));
  }
  const before = await rowsOf(...others);
  const { receipt, outcomes } = await forget(one.as("eraser"), { user: "ann" }, "request");
  expect(outcomes.map(({ token, outcome }) => [token, outcome]).sort()).toEqual(
    [
      [ip(shared), "keep"],
      [ip("203.0.113.2"), "erase"],
      [device("ann's"), "erase"],
    ].sort(),
  );
  expect(receipt).toMatchObject({ rows: 24, originals: 2, erased: { ip: 1, device_id: 1 } });
  expect(await rowsOf(...others)).toEqual(before);
  const rows = await rowsOf("ann");
  expect(rows.length).toBe(24);
  // Of the same value the same token, so that her own duplicates still show.
  expect(new Set(rows.map((row) => row.masked_device_id)).size).toBe(1);
  expect(new Set(rows.map((row) => row.masked_ip)).size).toBe(2);
  for (const row of rows) {
    expect(row.masked_ip).toMatch(FRESH);
    expect(row.masked_device_id).toMatch(FRESH);
  }
  expect(await inVault(ip("203.0.113.2"), device("ann's"))).toBe(0);
  expect(await inVault(ip(shared))).toBe(24);
  expect(await revealed(ip(shared), device("ann's"), device("bob's"))).toEqual([
    ...[shared, null, "bob's"],
  ]);
  for (const token of [ip("203.0.113.2"), device("ann's")]) {
    const [found] = await owner`
      select count(*)::int as n from public.user_logins l
      where l.masked_ip = ${token} or l.masked_device_id = ${token}`;
    expect(found?.n).toBe(0);
  }
  await one.expectSound();
  await database.drop();
});
