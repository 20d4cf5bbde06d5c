// How many rows a database may refuse before it counts as at fault itself: counted over all batches of a run.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { KnownOriginals } from "../../src/line/known-originals.ts";
import { parse } from "../../src/line/line.ts";
import { type Refusals, storeInParts } from "../../src/line/split.ts";
import type { Message } from "../../src/sqs/queue.ts";
import { type Host, makeHost } from "../sql/host.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { storeOf } from "../support/store-messages.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  host = await makeHost();
  await owner.unsafe(
    "alter table public.user_logins add constraint no_poison check (user_id <> 'poison')",
  );
});
afterAll(() => database?.drop());

const batchOf = (good: number, poison: number): Message[] =>
  Array.from({ length: good + poison }, (_, i) => ({
    id: randomUUID(),
    body: JSON.stringify({ user_id: i < good ? `u${i}` : "poison" }),
    sentAt: new Date(),
    receipt: randomUUID(),
  }));

/** How many messages of a batch were quarantined, and with which SQLSTATE it failed, or null. */
async function storing(messages: readonly Message[], refusals: Refusals) {
  const { subkeys, dataKeys } = host;
  const etl = database.open(database.url("etl"));
  const knownOriginals = new KnownOriginals();
  const store = storeOf({ database: etl, subkeys, dataKeys, knownOriginals }, 0);
  let quarantined = 0;
  try {
    for await (const { result } of storeInParts(store, refusals, parse(messages))) {
      quarantined += result.quarantined;
    }
  } catch (error) {
    return { quarantined, failure: String((error as { code?: unknown }).code) };
  }
  return { quarantined, failure: null };
}

test("ten in a row over all batches that are under way, then each of them ends", async () => {
  const refusals: Refusals = { sinceTaken: 0 };
  const batches = await Promise.all([1, 2, 3].map(() => storing(batchOf(0, 15), refusals)));
  expect(batches.reduce((sum, { quarantined }) => sum + quarantined, 0)).toBe(10);
  expect(batches.map(({ failure }) => failure)).toEqual(["23514", "23514", "23514"]);
});

test("a row that is taken, by whichever batch, begins the count anew", async () => {
  const refusals: Refusals = { sinceTaken: 0 };
  for (let round = 0; round < 3; round++) {
    expect(await storing(batchOf(0, 9), refusals)).toEqual({ quarantined: 9, failure: null });
    expect(await storing(batchOf(1, 0), refusals)).toEqual({ quarantined: 0, failure: null });
  }
});

test("many bad ones beside a good one are quarantined all the same", async () => {
  const refusals: Refusals = { sinceTaken: 0 };
  expect(await storing(batchOf(1, 30), refusals)).toEqual({ quarantined: 30, failure: null });
});

test("a run that has stored rows ends as well once its database takes no more", async () => {
  const refusals: Refusals = { sinceTaken: 0 };
  await storing(batchOf(5, 0), refusals);
  expect(await storing(batchOf(0, 6), refusals)).toEqual({ quarantined: 6, failure: null });
  expect(await storing(batchOf(0, 6), refusals)).toEqual({ quarantined: 4, failure: "23514" });
});
