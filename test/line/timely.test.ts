// Which days a load takes: from 35 days back to one ahead, by the database's clock. And what this process knows
// of a period that ends while loads go on.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { checkInvariant, INVARIANTS } from "../../src/check.ts";
import { KnownOriginals } from "../../src/line/known-originals.ts";
import { refuseUntimely } from "../../src/line/timely.ts";
import { LINE_WAITS } from "../../src/line/waits.ts";
import { parseMessage } from "../../src/login/parse.ts";
import type { Database } from "../../src/postgres/database.ts";
import type { Message } from "../../src/sqs/queue.ts";
import { type Host, makeHost } from "../sql/host.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { storeMessages } from "../support/store-messages.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
let etl: Database;
beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  host = await makeHost();
  etl = database.open(database.url("etl"));
});
afterAll(() => database?.drop());

/** By the database's clock, in UTC. */
async function today(): Promise<number> {
  const [row] = await owner`select etl.utc_day(clock_timestamp())::text as day`;
  return Date.parse(`${row?.day}T00:00:00Z`);
}

const DAY_MS = 86_400_000;

const login = (user: string, sentAt: Date, device = "phone"): Message => ({
  id: randomUUID(),
  body: JSON.stringify({ user_id: user, device_id: device }),
  sentAt,
  receipt: randomUUID(),
});

const store = async (messages: Message[], knownOriginals = new KnownOriginals()) => {
  const { subkeys, dataKeys } = host;
  return await storeMessages({ database: etl, subkeys, dataKeys, knownOriginals }, messages, 0);
};

test("what was sent more than 35 days ago, or later than tomorrow, is quarantined and says so", async () => {
  // Midnight may pass between two looks at a clock: then the days are one further apart.
  let start: number;
  let stored: Awaited<ReturnType<typeof store>>;
  const at = (ms: number) => new Date(ms);
  do {
    start = await today();
    stored = await store([
      login("old", at(start - 35 * DAY_MS - 1)),
      login("oldest", at(start - 35 * DAY_MS)),
      login("now", at(start)),
      login("tomorrow", at(start + 2 * DAY_MS - 1)),
      login("too soon", at(start + 2 * DAY_MS)),
      login("far", new Date("2199-01-01T00:00:00Z")),
    ]);
  } while ((await today()) !== start);
  expect(stored.length).toBe(1);
  expect(stored[0]!.result).toMatchObject({ loaded: 3, quarantined: 3, duplicates: 0 });
  expect(stored[0]!.batch.rejected.map(({ reason }) => reason)).toEqual([
    "sent more than 35 days ago",
    "sent later than tomorrow, by the time that the queue gives",
    "sent later than tomorrow, by the time that the queue gives",
  ]);
  const rows = await owner`select user_id from public.user_logins order by create_date`;
  expect(rows.map((row) => row.user_id)).toEqual(["oldest", "now", "tomorrow"]);
});

test("this host's clock decides nothing: the database is asked before a message is refused", async () => {
  const sent = new Date(await today());
  const suspected = { id: "m", sentAt: sent, body: "{}", parsed: parseMessage('{"user_id":"u"}') };
  const realNow = Date.now;
  const RealDate = Date;
  // As if this host had been started without a clock: what is of today seems decades ahead.
  class Stopped extends RealDate {
    constructor(...given: [] | [number | string | Date]) {
      if (given.length === 0) super(0);
      else super(given[0]);
    }
  }
  globalThis.Date = Stopped as DateConstructor;
  try {
    const part = await refuseUntimely([suspected], {
      database: etl,
      subkeys: host.subkeys,
      loadMs: LINE_WAITS.loadMs,
    });
    expect(part).toEqual([suspected]);
  } finally {
    globalThis.Date = RealDate;
  }
  expect(Date.now).toBe(realNow);
});

test("around the end of a period, with redeliveries across it, each message is stored once and sealed in its period", async () => {
  // Today and yesterday are two periods, whatever the calendar says.
  await owner.unsafe(
    "truncate public.user_logins, pii_vault.originals, etl.ledger, etl.quarantine",
  );
  const start = await today();
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  const [last] = await owner`select max(until)::text as until from etl.periods`;
  for (const row of await owner`
    select i.inhrelid::regclass::text as name from pg_catalog.pg_inherits i
    where i.inhrelid::regclass::text ~ '(user_logins|originals)_[0-9]{8}$'`) {
    await owner.unsafe(`drop table ${row.name}`);
  }
  await owner`delete from etl.periods`;
  const first = day(start - 40 * DAY_MS);
  await owner`select etl.make_period(${first}, ${day(start)})`;
  await owner`select etl.make_period(${day(start)}, ${last?.until})`;

  const known = new KnownOriginals();
  const messages = Array.from({ length: 400 }, (_, n) =>
    // Every other one of the last moments of yesterday; devices come back on both sides.
    login(`user ${n}`, new Date(n % 2 === 0 ? start - 1 - n : start + n), `device ${n % 37}`),
  );
  let loaded = 0;
  let duplicates = 0;
  for (let round = 0; round < 3; round++) {
    for (let from = 0; from < messages.length; from += 50) {
      // Each part comes again with the next one.
      const part = messages.slice(Math.max(0, from - 25), from + 50);
      for (const { result } of await store(part, known)) {
        loaded += result.loaded;
        duplicates += result.duplicates;
      }
    }
  }
  expect(loaded).toBe(400);
  expect(duplicates).toBe(3 * 400 + 3 * 7 * 25 - 400);
  const [counted] = await owner`
    select count(*)::int as rows, count(distinct user_id)::int as users from public.user_logins`;
  expect({ ...counted }).toEqual({ rows: 400, users: 400 });
  const originals = await owner`
    select period::text as period, count(*)::int as n from pii_vault.originals group by 1 order by 1`;
  expect(originals.map((row) => [row.period, row.n])).toEqual([
    [first, 37],
    [day(start), 37],
  ]);
  const auditor = database.open(database.ownerUrl);
  for (const invariant of INVARIANTS) {
    const { offenders } = await checkInvariant(auditor, invariant);
    expect([invariant.name, offenders]).toEqual([invariant.name, 0]);
  }
});
