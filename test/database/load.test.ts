import { afterAll, beforeAll, expect, test } from "bun:test";
import { tokenKey } from "../../src/config.ts";
import { DataKeys } from "../../src/data-keys.ts";
import { load } from "../../src/load.ts";
import { parseMessage } from "../../src/message.ts";
import { maxSeals, protect } from "../../src/protect.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys } from "../support/keys.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

test("a batch becomes rows, originals and ledger entries, and its redelivery changes nothing", async () => {
  const keys = await makeKeys();
  const subkeys = tokenKey(keys);
  const dataKeys = new DataKeys(subkeys, [keys.VEIL_RECIPIENTS]);
  const body = JSON.stringify({ user_id: "u1", ip: "203.0.113.1", device_id: "d1" });
  const messages = [{ id: "m1", body, sentAt: new Date(), parsed: parseMessage(body) }];
  const key = await dataKeys.take(maxSeals(1));
  const batch = protect(messages, subkeys, key.dataKey);
  const etl = database.open(database.url("etl"));
  expect(await load(etl, subkeys, key, batch)).toEqual({
    loaded: 1,
    duplicates: 0,
    quarantined: 0,
    newOriginals: 2,
  });
  expect(await load(etl, subkeys, key, batch)).toEqual({
    loaded: 0,
    duplicates: 1,
    quarantined: 0,
    newOriginals: 0,
  });
});
