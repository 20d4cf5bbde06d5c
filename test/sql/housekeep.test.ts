// The ledger's daily partitions, with the day injected: made ahead, taken away after 36 days, and
// never at the cost of a load.
import { afterEach, beforeEach, expect, test } from "bun:test";
import type postgres from "postgres";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { callLoad, type Host, loadArguments, makeHost } from "./host.ts";

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
  for (;;) {
    const [row] = await sql`select * from etl.housekeep_on(${day}::date)`;
    // Where it has made periods it does nothing of the ledger.
    if (Number(row?.periods) > 0) continue;
    return { created: Number(row?.created), dropped: Number(row?.dropped) };
  }
}

async function partitions(): Promise<string[]> {
  const rows = await owner`
    select c.relname as name from pg_catalog.pg_inherits i
    join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'etl.ledger'::regclass order by 1`;
  return rows.map((row) => String(row.name));
}

/** How many rows the message became: 0 for one that is stored already. */
async function store(
  sql: postgres.Sql,
  id: string,
  day: string,
  time = "12:00:00",
): Promise<number> {
  const sentAt = new Date(`${day}T${time}Z`);
  const batch = await host.protect([{ id, sentAt, body: { user_id: "u" } }]);
  return Number((await callLoad(sql, loadArguments(host, batch)))?.loaded);
}

const placeOf = async (id: string): Promise<string | undefined> => {
  const [row] = await owner`
    select tableoid::regclass::text as name from etl.ledger where message_id = ${id}`;
  return row?.name;
};

/** What is written down of days that the ledger has forgotten. */
const totals = async (): Promise<Record<string, number>> => {
  const rows = await owner`
    select sent_on::text as day, messages::int from etl.ledger_totals order by sent_on`;
  return Object.fromEntries(rows.map((row) => [row.day, row.messages]));
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

test("the next day makes one partition, and a day is dropped when it is more than 36 days old", async () => {
  expect(await housekeep(owner, "2030-01-02")).toEqual({ created: 1, dropped: 0 });
  expect(await partitions()).toContain("ledger_20300109");
  // 36 days after 2029-12-18 it is still there.
  expect((await housekeep(owner, "2030-01-23")).dropped).toBe(0);
  expect(await partitions()).toContain("ledger_20291218");
  expect((await housekeep(owner, "2030-01-24")).dropped).toBe(1);
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
  await housekeep(owner, "2030-03-18");
  expect(await placeOf("soon")).toBe("etl.ledger_default");
  await housekeep(owner, "2030-03-19");
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

test("on both sides of midnight a message stands under its own day, and is known there", async () => {
  const etl = database.sql(database.url("etl"));
  for (const today of ["2030-01-01", "2030-01-02"]) {
    await housekeep(owner, today);
    const fresh = today === "2030-01-01" ? 1 : 0;
    expect(await store(etl, "before", "2030-01-01", "23:59:59.999")).toBe(fresh);
    expect(await store(etl, "after", "2030-01-02", "00:00:00.000")).toBe(fresh);
  }
  expect(await placeOf("before")).toBe("etl.ledger_20300101");
  expect(await placeOf("after")).toBe("etl.ledger_20300102");
});

test("a message as old as the queue keeps one has a partition, and is known until after it is gone", async () => {
  const etl = database.sql(database.url("etl"));
  expect(await store(etl, "old", "2029-12-18", "00:00:00")).toBe(1);
  expect(await placeOf("old")).toBe("etl.ledger_20291218");
  // Just before midnight, just after it, and until the day is more than 36 days ago.
  for (const today of ["2030-01-01", "2030-01-02", "2030-01-16", "2030-01-23"]) {
    await housekeep(owner, today);
    expect([today, await store(etl, "old", "2029-12-18", "00:00:00")]).toEqual([today, 0]);
  }
});

test("a message of the far future is stored, known again, and in nobody's way", async () => {
  const etl = database.sql(database.url("etl"));
  expect(await store(etl, "future", "9999-12-31", "23:59:59.999")).toBe(1);
  for (const today of ["2030-01-01", "2030-01-02", "2032-01-01"]) {
    await housekeep(owner, today);
    expect(await store(etl, "future", "9999-12-31", "23:59:59.999")).toBe(0);
  }
  expect(await placeOf("future")).toBe("etl.ledger_default");
  expect(await partitions()).toContain("ledger_20320108");
  expect(await totals()).toEqual({});
});

test("a day whose first rows came before its partition stays whole in the default one", async () => {
  const etl = database.sql(database.url("etl"));
  // The queue was idle for longer than partitions are ahead, and a load comes before the housekeeping.
  expect(await store(etl, "first", "2030-01-20")).toBe(1);
  expect(await placeOf("first")).toBe("etl.ledger_default");
  expect((await housekeep(owner, "2030-01-20")).created).toBe(18);
  expect(await partitions()).not.toContain("ledger_20300120");
  expect(await store(etl, "first", "2030-01-20")).toBe(0);
  expect(await store(etl, "second", "2030-01-20")).toBe(1);
  expect(await placeOf("second")).toBe("etl.ledger_default");
  expect(await store(etl, "next", "2030-01-21")).toBe(1);
  expect(await placeOf("next")).toBe("etl.ledger_20300121");
  expect(await store(etl, "third", "2030-01-20")).toBe(1);
  // And no load waits again because of that day.
  await owner.unsafe("begin");
  expect(await housekeep(owner, "2030-01-20")).toEqual({ created: 0, dropped: 0 });
  const [row] = await owner`
    select count(*)::int as locks from pg_catalog.pg_locks
    where relation = 'etl.ledger_default'::regclass and pid = pg_backend_pid()
      and mode = 'AccessExclusiveLock'`;
  expect(row?.locks).toBe(0);
  await owner.unsafe("commit");
  await housekeep(owner, "2030-02-26");
  expect((await totals())["2030-01-20"]).toBe(3);
});

// Otherwise the load, which has looked for its partition already, is refused by the default one (23514).
test("a load that comes while its day's partition is being made waits for it and lands there", async () => {
  const days = ["2030-01-10", "2030-01-15", "2030-01-16"];
  await owner.unsafe("begin");
  // No day is old enough to be dropped: that alone would make every load wait.
  expect(await housekeep(owner, "2030-01-15")).toEqual({ created: 14, dropped: 0 });
  const storing = days.map((day) => store(database.sql(database.url("etl")), day, day));
  await waitingForLocks(days.length);
  await owner.unsafe("commit");
  expect(await Promise.all(storing)).toEqual([1, 1, 1]);
  for (const day of days) {
    expect(await placeOf(day)).toBe(`etl.ledger_${day.replaceAll("-", "")}`);
  }
});

test("a day that a load puts into the default partition at that moment gets no partition", async () => {
  const etl = database.sql(database.url("etl"));
  // The first that housekeeping comes to: it has looked for such rows just before.
  const days = ["2030-01-09", "2030-01-17"];
  await etl.unsafe("begin");
  for (const day of days) await store(etl, day, day);
  const keeping = housekeep(owner, "2030-01-15");
  await Promise.race([waitingForLocks(1), keeping]);
  await etl.unsafe("commit");
  await keeping;
  await housekeep(owner, "2030-01-15");
  const made = await partitions();
  for (const day of days) {
    expect(await placeOf(day)).toBe("etl.ledger_default");
    expect(made).not.toContain(`ledger_${day.replaceAll("-", "")}`);
  }
  expect(made).toContain("ledger_20300115");
  expect(made).toContain("ledger_20300118");
});

/** Until so many wait for a lock in this database, or nobody has for a while. */
async function waitingForLocks(waiters: number): Promise<void> {
  const admin = asOwner();
  for (let i = 0; i < 1000; i++) {
    const [row] = await admin`
      select count(*)::int as waiting from pg_catalog.pg_locks l
      join pg_catalog.pg_stat_activity a using (pid)
      where not l.granted and a.datname = current_database()`;
    if (row?.waiting >= waiters) break;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await admin.end();
}

test("no load waits while the partitions of days ahead are made", async () => {
  const etl = database.sql(database.url("etl"));
  await owner.unsafe("begin");
  expect(await housekeep(owner, "2030-01-02")).toEqual({ created: 1, dropped: 0 });
  expect(await store(etl, "m1", "2030-01-02")).toBe(1);
  await owner.unsafe("commit");
});

test("beside an open load, of today's partitions none is made, and of the days ahead all are", async () => {
  const etl = database.sql(database.url("etl"));
  await etl.unsafe("begin");
  await store(etl, "m1", "2030-01-01");
  // Days to come from the 13th on; those up to then need a moment without loads.
  expect((await housekeep(owner, "2030-01-11")).created).toBe(6);
  expect(await partitions()).toContain("ledger_20300118");
  expect(await partitions()).not.toContain("ledger_20300112");
  await etl.unsafe("commit");
  expect((await housekeep(owner, "2030-01-11")).created).toBe(4);
  expect(await partitions()).toContain("ledger_20300112");
});

test("what a day's ledger held is written down when its partition is dropped, and added up", async () => {
  const etl = database.sql(database.url("etl"));
  for (const id of ["a", "b", "c"]) await store(etl, id, "2030-01-01");
  await store(etl, "d", "2030-01-03");
  await store(etl, "past", "1999-12-31");
  await store(etl, "future", "2099-12-31");
  await housekeep(owner, "2030-01-02");
  expect(await totals()).toEqual({ "1999-12-31": 1 });
  await housekeep(owner, "2030-02-06");
  expect(await totals()).toEqual({ "1999-12-31": 1 });
  await housekeep(owner, "2030-02-07");
  expect(await totals()).toEqual({ "1999-12-31": 1, "2030-01-01": 3 });
  // Days long gone, once more: into the default partition, and on top when that lets them go.
  await store(etl, "e", "2030-01-01");
  await store(etl, "f", "2030-01-02");
  await store(etl, "past", "1999-12-31");
  await housekeep(owner, "2030-03-01");
  const expected = { "1999-12-31": 2, "2030-01-01": 4, "2030-01-02": 1, "2030-01-03": 1 };
  expect(await totals()).toEqual(expected);
  await housekeep(owner, "2030-03-01");
  expect(await totals()).toEqual(expected);
  expect(await placeOf("future")).toBe("etl.ledger_default");
});

test("beside a load into an old partition it gives up, and counts what that load stored next time", async () => {
  const etl = database.sql(database.url("etl"));
  await store(etl, "a", "2029-12-20");
  await etl.unsafe("begin");
  await store(etl, "b", "2029-12-20");
  const { dropped } = await housekeep(owner, "2030-01-27");
  expect({ dropped, totals: await totals() }).toEqual({ dropped: 0, totals: {} });
  await etl.unsafe("commit");
  expect(await store(etl, "b", "2029-12-20")).toBe(0);
  expect((await housekeep(owner, "2030-01-27")).dropped).toBe(4);
  expect(await totals()).toEqual({ "2029-12-20": 2 });
});

test("beside a reader of the ledger it gives up, stops no load, and catches up later", async () => {
  const etl = database.sql(database.url("etl"));
  await store(etl, "a", "2029-12-20");
  const reader = asOwner();
  await reader.unsafe("begin");
  await reader`select count(*) from etl.ledger`;
  expect(await housekeep(owner, "2030-01-27")).toEqual({ created: 0, dropped: 0 });
  expect(await store(etl, "b", "2030-01-21")).toBe(1);
  await reader.unsafe("commit");
  const { created, dropped } = await housekeep(owner, "2030-01-27");
  // The day of the load that came meanwhile stays in the default partition.
  expect({ created, dropped }).toEqual({ created: 21, dropped: 4 });
  expect(await totals()).toEqual({ "2029-12-20": 1 });
});

test("the etl's login keeps house by the real day, and cannot choose one", async () => {
  const etl = database.sql(database.url("etl"));
  const [row] = await etl`select created, dropped from etl.housekeep()`;
  expect(row?.created).toBe(22);
  // Partitions of days to come, from the test's day, are not old.
  expect(row?.dropped).toBe(0);
});
