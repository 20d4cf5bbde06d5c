import { afterAll, beforeAll, expect, test } from "bun:test";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys } from "../support/keys.ts";
import { createQueue } from "../support/servers.ts";
import { veil } from "../support/veil.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

test("a row that the database refuses is quarantined alone, and its neighbours land", async () => {
  const owner = database.sql(database.ownerUrl);
  // What nobody foresaw: a constraint that somebody has added since.
  await owner.unsafe(
    "alter table user_logins add constraint no_poison check (user_id <> 'poison')",
  );
  const queue = await createQueue();
  const poisoned = [0, 7, 8, 311];
  for (let i = 0; i < 400; i++) {
    const user_id = poisoned.includes(i) ? "poison" : `u${i}`;
    queue.send(JSON.stringify({ user_id, ip: `198.51.100.${i % 50}`, device_id: `d${i}` }));
  }
  queue.send("{");
  const keys = await makeKeys();
  const env = { ...queue.env, ...keys, DATABASE_URL: database.url("etl") };
  const run = await veil(["etl", "--json"], { env });
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(run.stdout)).toMatchObject({
    received: 401,
    loaded: 396,
    duplicates: 0,
    quarantined: 5,
    acknowledged: 401,
  });
  const reasons = await owner`
    select reason, count(*)::int as messages from etl.quarantine group by 1 order by 2`;
  expect([...reasons]).toEqual([
    { reason: "the body is not JSON", messages: 1 },
    { reason: "the database refused the row with error 23514", messages: 4 },
  ]);
  // Once the constraint is gone, they are rows like any other.
  await owner.unsafe("alter table user_logins drop constraint no_poison");
  const replay = await veil(["quarantine", "replay", "--json"], {
    env: { ...keys, DATABASE_URL: database.url("operator") },
  });
  expect(replay.code).toBe(1); // the one that is not JSON
  const [rows] = await owner`select count(*)::int as n from user_logins where user_id = 'poison'`;
  expect(rows?.n).toBe(4);
});

test("a database that refuses every row ends the run instead of filling the quarantine", async () => {
  const own = await createDatabase();
  try {
    const owner = own.sql(own.ownerUrl);
    await owner.unsafe("alter table user_logins add constraint nothing check (false)");
    const queue = await createQueue({ VisibilityTimeout: "600" });
    for (let i = 0; i < 40; i++) queue.send(JSON.stringify({ user_id: `u${i}` }));
    const keys = await makeKeys();
    const env = { ...queue.env, ...keys, DATABASE_URL: own.url("etl") };
    const run = await veil(["etl", "--json"], { env });
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("23514 (constraint nothing)");
    expect(JSON.parse(run.stdout)).toMatchObject({ loaded: 0, quarantined: 10, acknowledged: 10 });
    // The others were handed back.
    await owner.unsafe("alter table user_logins drop constraint nothing");
    const again = await veil(["etl", "--json"], { env });
    expect(JSON.parse(again.stdout)).toMatchObject({ received: 30, loaded: 30, quarantined: 0 });
  } finally {
    await own.drop();
  }
});
