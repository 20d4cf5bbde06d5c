// An expiry beside loads, readers, holds and erasures, over connections of their own: it waits and looks again, no load
// fails or waits for long, and what is counted is what went.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { expire } from "../../src/erasure/expire.ts";
import { forget } from "../../src/erasure/forget.ts";
import { addHold, releaseHold } from "../../src/erasure/holds.ts";
import { until } from "../line/stored.ts";
import { type ErasureScene, FRESH, makeErasureScene } from "./erasure-scene.ts";
import { callLoad, loadArguments, makeHost } from "./host.ts";

let scene: ErasureScene;
beforeAll(async () => {
  scene = await makeErasureScene();
});
afterAll(() => scene?.database.drop());

async function makePeriod(first: string, end: string): Promise<void> {
  await scene.owner.begin(async (sql) => {
    await sql.unsafe("set local role veil_owner; set local lock_timeout = '20s'");
    await sql`select etl.make_period(${first}::date, ${end}::date)`;
  });
}

/** As one statement, without the program's patience. */
const expirePeriod = (sql: postgres.Sql, first: string) =>
  sql`select originals::int, "rows"::int, held_originals::int, held_rows::int, is_over
    from pii_vault.expire_period(${first}, true, ${randomUUID()}, 'retention')`;

/** An analyst in the middle of a long query. */
async function openCursor(): Promise<postgres.Sql> {
  const url = new URL(scene.database.url("analyst"));
  const analyst = scene.database.sql(url.href, { connection: { application_name: "a report" } });
  await analyst.unsafe("begin");
  await analyst.unsafe("declare long cursor for select * from public.user_logins");
  await analyst.unsafe("fetch 1 from long");
  return analyst;
}

/** Whether an expiry has counted, and waits between two attempts. */
const isWaiting = async (): Promise<boolean> => {
  const [row] = await scene.owner`
    select count(*)::int as n from pg_stat_activity
    where datname = current_database() and query like '%expire_period%'
      and wait_event = 'PgSleep'`;
  return Number(row?.n) > 0;
};

const detailsOf = async (first: string) => {
  const rows = await scene.owner`
    select details from pii_vault.audit
    where action = 'erasure.expire' and details ->> 'first' = ${first} order by id`;
  return rows.map((row) => row.details as Record<string, unknown>);
};

test("a long query delays an expiry, which names its session; loads go on, and nothing has changed", async () => {
  const { load, ip, database } = scene;
  await makePeriod("2020-01-01", "2020-02-01");
  await load({ user: "ann", ip: "203.0.113.1", day: "2020-01-05" });
  const analyst = await openCursor();
  const [self] = await analyst`select pg_backend_pid() as pid`;
  const erasing = database.sql(database.url("eraser"));
  const refused = expirePeriod(erasing, "2020-01-01").catch((error: unknown) => error);
  await until(isWaiting);
  let isOver = false;
  const loading = (async () => {
    let loads = 0;
    while (!isOver) {
      await load(
        { user: "ann", ip: "203.0.113.1" },
        { user: "ann", ip: "203.0.113.1", day: "2020-01-06" },
      );
      loads++;
    }
    return loads;
  })();
  const error = (await refused) as postgres.PostgresError;
  isOver = true;
  const loads = await loading;
  expect(loads).toBeGreaterThan(0);
  expect(error.code).toBe("55P03");
  expect(error.message).toContain(
    `session ${self!.pid} (login ${database.login("analyst")}, application a report), which uses public.user_logins`,
  );
  expect(error.message).not.toContain("cursor");
  expect(error.hint).toContain("pg_terminate_backend");
  expect((await scene.rowsOf("ann")).length).toBe(2 * loads + 1);
  expect(await detailsOf("2020-01-01")).toEqual([]);
  await analyst.unsafe("commit");
  expect({ ...(await expirePeriod(erasing, "2020-01-01"))[0] }).toEqual({
    ...{ originals: 1, rows: loads + 1, held_originals: 0, held_rows: 0, is_over: true },
  });
  expect(await scene.revealed(ip("203.0.113.1"))).toEqual(["203.0.113.1"]);
  await scene.expectSound();
});

test("what comes between the count and the lock is looked at: late rows, holds, what is forgotten", async () => {
  const { load, ip, device, as, database } = scene;
  await makePeriod("2021-01-01", "2021-02-01");
  await load(
    { user: "bob", ip: "203.0.113.2", device: "bob's phone", day: "2021-01-05" },
    { user: "cid", ip: "203.0.113.3", device: "cid's phone", day: "2021-01-05" },
    { user: "dan", ip: "203.0.113.4", device: "dan's phone", day: "2021-01-06" },
  );
  const analyst = await openCursor();
  const expiring = expirePeriod(database.sql(database.url("eraser")), "2021-01-01");
  const answer = expiring.then((rows) => ({ ...rows[0] }));
  await until(isWaiting);
  await load({ user: "late", ip: "203.0.113.5", device: "bob's phone", day: "2021-01-07" });
  const hold = await addHold(as("policy"), { user: "cid" }, "case 1");
  await forget(as("eraser"), { user: "dan" }, "request");
  await analyst.unsafe("commit");
  expect(await answer).toEqual({
    ...{ originals: 3, rows: 3, held_originals: 2, held_rows: 1, is_over: true },
  });
  expect(await detailsOf("2021-01-01")).toMatchObject([
    { days: { "2021-01-05": 1, "2021-01-06": 1, "2021-01-07": 1 }, originals: 3, rows: 3 },
  ]);
  expect(await scene.revealed(ip("203.0.113.3"), device("cid's phone"))).toEqual([
    ...["203.0.113.3", "cid's phone"],
  ]);
  expect(await scene.revealed(ip("203.0.113.4"), ip("203.0.113.5"))).toEqual([null, null]);
  await scene.expectSound();
  await releaseHold(as("policy"), hold, "closed");
});

test("a load that is under way is waited for, and its rows are counted", async () => {
  const { host, database } = scene;
  await makePeriod("2022-01-01", "2022-02-01");
  await scene.load({ user: "eve", ip: "203.0.113.6", day: "2022-01-05" });
  const loading = database.sql(database.url("etl"));
  const late = await host.protect([
    { id: randomUUID(), body: { user_id: "eve" }, sentAt: new Date("2022-01-06T00:00:00Z") },
  ]);
  await loading.unsafe("begin");
  await callLoad(loading, loadArguments(host, late));
  const answer = expirePeriod(database.sql(database.url("eraser")), "2022-01-01").then((rows) => ({
    ...rows[0],
  }));
  await until(isWaiting);
  await loading.unsafe("commit");
  expect(await answer).toMatchObject({ originals: 1, rows: 2, is_over: true });
  await scene.expectSound();
});

test("a load that waited for an expiry finds it done: no original, and a token that stands for nothing", async () => {
  const { host, database } = scene;
  await makePeriod("2022-03-01", "2022-04-01");
  await scene.load({ user: "fay", ip: "203.0.113.7", day: "2022-03-05" });
  const erasing = database.sql(database.url("eraser"));
  await erasing.unsafe("begin");
  await expirePeriod(erasing, "2022-03-01");
  const late = await host.protect([
    ...[
      {
        id: randomUUID(),
        body: { user_id: "fay", ip: "203.0.113.7" },
        sentAt: new Date("2022-03-06"),
      },
    ],
    { id: randomUUID(), body: { user_id: "fay", ip: "203.0.113.7" } },
  ]);
  const answer = callLoad(database.sql(database.url("etl")), loadArguments(host, late));
  const waits = async () => {
    const [row] = await scene.owner`
      select count(*)::int as n from pg_locks l join pg_database d on d.oid = l.database
      where d.datname = current_database() and not l.granted
        and l.relation = 'pii_vault.erasure_gate'::regclass`;
    return Number(row?.n) > 0;
  };
  await until(waits);
  await erasing.unsafe("commit");
  expect(await answer).toMatchObject({ loaded: 2, new_originals: 1 });
  const [old, today] = await scene.rowsOf("fay");
  expect(old!.masked_ip).toMatch(FRESH);
  expect(today!.masked_ip).toBe(scene.ip("203.0.113.7"));
  await scene.expectSound();
});

test("loads beside expiries: none fails, and no row is lost", async () => {
  const { database, host, owner } = scene;
  const months = Array.from({ length: 12 }, (_, n) => `2023-${String(n + 1).padStart(2, "0")}`);
  for (const [n, month] of months.entries()) {
    await makePeriod(`${month}-01`, n === 11 ? "2024-01-01" : `${months[n + 1]}-01`);
  }
  let isOver = false;
  let sent = 0;
  const loader = async (each: number) => {
    const other = await makeHost(host.keys);
    const sql = database.sql(database.url("etl"));
    for (let round = 0; !isOver || round < 5; round++) {
      // Some of today, and some of months that are about to go, or gone.
      const batch = await other.protect(
        Array.from({ length: 20 }, (_, i) => ({
          id: randomUUID(),
          body: { user_id: `beside ${each}`, ip: `198.51.100.${(round * 20 + i) % 250}` },
          ...(i % 3 > 0 ? {} : { sentAt: new Date(`${months[(round + i) % 12]}-10T00:00:00Z`) }),
        })),
      );
      expect(await callLoad(sql, loadArguments(other, batch))).toMatchObject({ loaded: 20 });
      sent += 20;
    }
  };
  const expiring = async () => {
    for (const withRows of [false, true, true]) {
      const expiry = { olderThanDays: 365, withRows, reason: "retention", dryRun: false };
      await expire(scene.as("eraser"), expiry);
    }
    isOver = true;
  };
  await Promise.all([loader(0), loader(1), expiring().finally(() => (isOver = true))]);
  const [left] = await owner`
    select count(*)::int as n from public.user_logins where user_id like 'beside %'`;
  const [gone] = await owner`
    select coalesce(sum(logins), 0)::int as n from etl.expired_logins where day >= '2023-01-01'`;
  expect(Number(left?.n) + Number(gone?.n)).toBe(sent);
  await scene.expectSound();
});

test("one expiry at a time: the other waits, and finds nothing left", async () => {
  const { database } = scene;
  await makePeriod("2024-01-01", "2024-02-01");
  await scene.load({ user: "gil", ip: "203.0.113.8", day: "2024-01-05" });
  const answers = await Promise.all(
    [0, 1].map(() => expirePeriod(database.sql(database.url("eraser")), "2024-01-01")),
  );
  expect(answers.map(([row]) => row!.originals).sort()).toEqual([0, 1]);
  expect((await detailsOf("2024-01-01")).length).toBe(1);
  await scene.expectSound();
});
