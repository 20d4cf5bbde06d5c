// The ledger's daily partitions, with the day injected: made ahead, taken away after 30 days, and
// never at the cost of a load.
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import type postgres from "postgres";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { callLoad, type Host, loadArguments, makeHost } from "./host.ts";

setDefaultTimeout(60_000);

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
beforeEach(async () => {
  database = await createDatabase();
  host = await makeHost();
  owner = asOwner();
  // What migrating made is of the real day; from here on the day is the test's.
  await housekeep(owner, "2030-01-01");
});
afterEach(() => database.drop());

const asOwner = (): postgres.Sql => database.sql(database.ownerUrl);

type Kept = { readonly created: number; readonly dropped: number };

async function housekeep(sql: postgres.Sql, day: string): Promise<Kept> {
  const [row] = await sql`select created, dropped from etl.housekeep_on(${day}::date)`;
  return { created: Number(row?.created), dropped: Number(row?.dropped) };
}

async function partitions(): Promise<string[]> {
  const rows = await owner`
    select c.relname as name from pg_catalog.pg_inherits i
    join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'etl.ledger'::regclass order by 1`;
  return rows.map((row) => String(row.name));
}

async function store(sql: postgres.Sql, id: string, day: string): Promise<void> {
  const sentAt = new Date(`${day}T12:00:00Z`);
  const batch = await host.protect([{ id, sentAt, body: { user_id: "u" } }]);
  await callLoad(sql, loadArguments(host, batch));
}

const placeOf = async (id: string): Promise<string | undefined> => {
  const [row] = await owner`
    select tableoid::regclass::text as name from etl.ledger where message_id = ${id}`;
  return row?.name;
};

test("partitions are made from fourteen days back to seven ahead, and again changes nothing", async () => {
  expect(await partitions()).toEqual([
    ...["18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31"].map(
      (day) => `ledger_203012${day}`.replace("2030", "2029"),
    ),
    ...["01", "02", "03", "04", "05", "06", "07", "08"].map((day) => `ledger_203001${day}`),
    "ledger_default",
  ]);
  expect(await housekeep(owner, "2030-01-01")).toEqual({ created: 0, dropped: 0 });
});

test("the next day makes one partition, and a day is dropped when it is more than 30 days old", async () => {
  expect(await housekeep(owner, "2030-01-02")).toEqual({ created: 1, dropped: 0 });
  expect(await partitions()).toContain("ledger_20300109");
  // 30 days after 2029-12-18 it is still there.
  expect((await housekeep(owner, "2030-01-17")).dropped).toBe(0);
  expect(await partitions()).toContain("ledger_20291218");
  expect((await housekeep(owner, "2030-01-18")).dropped).toBe(1);
  expect(await partitions()).not.toContain("ledger_20291218");
  expect(await partitions()).toContain("ledger_20291219");
});

test("a partition refuses what the ledger refuses, and is found by its day", async () => {
  const etl = database.sql(database.url("etl"));
  await store(etl, "m1", "2030-01-03");
  expect(await placeOf("m1")).toBe("etl.ledger_20300103");
  const [row] = await owner`
    select count(*)::int as n from pg_catalog.pg_index
    where indrelid = 'etl.ledger_20300103'::regclass and indisprimary`;
  expect(row?.n).toBe(1);
});

test("the default partition takes days far away, and its rows block no other day", async () => {
  const etl = database.sql(database.url("etl"));
  await store(etl, "past", "1999-12-31");
  await store(etl, "future", "2099-01-01");
  await store(etl, "soon", "2030-02-10");
  for (const id of ["past", "future", "soon"]) {
    expect(await placeOf(id)).toBe("etl.ledger_default");
  }
  // All days from 2030-01-20 to 2030-02-10 but the one that the default partition holds.
  expect((await housekeep(owner, "2030-02-03")).created).toBe(21);
  expect(await partitions()).not.toContain("ledger_20300210");
  expect(await placeOf("soon")).toBe("etl.ledger_default");
  // Old rows leave the default partition too; a redelivery of them cannot come any more.
  expect(await placeOf("past")).toBe(undefined);
  expect(await placeOf("future")).toBe("etl.ledger_default");
  await housekeep(owner, "2030-03-12");
  expect(await placeOf("soon")).toBe("etl.ledger_default");
  await housekeep(owner, "2030-03-13");
  expect(await placeOf("soon")).toBe(undefined);
});

test("a redelivery is known from the default partition as from any other", async () => {
  const etl = database.sql(database.url("etl"));
  const sentAt = new Date("2040-05-05T00:00:00Z");
  const batch = await host.protect([{ id: "m1", sentAt, body: { user_id: "u" } }]);
  expect((await callLoad(etl, loadArguments(host, batch)))?.loaded).toBe(1);
  expect((await callLoad(etl, loadArguments(host, batch)))?.loaded).toBe(0);
});

test("beside an open load in the default partition it gives up, and catches up later", async () => {
  const etl = database.sql(database.url("etl"));
  const before = await partitions();
  await etl.unsafe("begin");
  await store(etl, "m1", "2030-06-01");
  expect(await housekeep(owner, "2030-03-01")).toEqual({ created: 0, dropped: 0 });
  expect(await partitions()).toEqual(before);
  await etl.unsafe("commit");
  const { created, dropped } = await housekeep(owner, "2030-03-01");
  expect(created).toBe(22);
  expect(dropped).toBe(before.length - 1);
  expect(await placeOf("m1")).toBe("etl.ledger_default");
});

test("beside open loads in existing partitions it still makes the next ones", async () => {
  const etl = database.sql(database.url("etl"));
  await etl.unsafe("begin");
  await store(etl, "m1", "2030-01-01");
  expect(await housekeep(owner, "2030-01-02")).toEqual({ created: 1, dropped: 0 });
  await etl.unsafe("commit");
});

test("many open loads and calls at once bring no error, and every message is stored once", async () => {
  const hosts = Array.from({ length: 6 }, () => database.sql(database.url("etl")));
  const keepers = Array.from({ length: 3 }, asOwner);
  // The token key registers itself before, so that no load waits for another one.
  await store(hosts[0]!, "first", "2030-01-10");
  await Promise.all([
    ...hosts.map(async (sql, h) => {
      for (let i = 0; i < 20; i++) {
        const day = String(1 + ((h * 7 + i) % 28)).padStart(2, "0");
        await store(sql, `m${h}-${i}`, `2030-04-${day}`);
      }
    }),
    ...keepers.map(async (sql) => {
      for (let i = 0; i < 10; i++) await housekeep(sql, "2030-02-01");
    }),
  ]);
  const [row] = await owner`
    select count(*)::int as rows, count(distinct message_id)::int as ids from etl.ledger`;
  expect(row).toEqual({ rows: 121, ids: 121 });
});

test("of two at once the second has nothing to do and does not wait", async () => {
  const second = asOwner();
  await owner.unsafe("begin");
  expect((await housekeep(owner, "2030-01-05")).created).toBe(4);
  expect(await housekeep(second, "2030-01-05")).toEqual({ created: 0, dropped: 0 });
  await owner.unsafe("commit");
  expect(await housekeep(second, "2030-01-05")).toEqual({ created: 0, dropped: 0 });
  expect(await partitions()).toContain("ledger_20300112");
});

test("the etl's login keeps house by the real day, and cannot choose one", async () => {
  const etl = database.sql(database.url("etl"));
  const [row] = await etl`select created, dropped from etl.housekeep()`;
  expect(row?.created).toBe(22);
  // Partitions of days to come, from the test's day, are not old.
  expect(row?.dropped).toBe(0);
});
