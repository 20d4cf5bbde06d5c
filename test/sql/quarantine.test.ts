// What could not become a row: kept, looked at on record, replayed once, or given up; over a real login
// of veil_operator.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import type postgres from "postgres";
import { readIdentities, readOptionalTokenKey, readVerifyKey } from "../../src/config/keys.ts";
import { OpeningKeys } from "../../src/keys/open.ts";
import { load } from "../../src/line/load.ts";
import type { Database } from "../../src/postgres/database.ts";
import { discard, listEntries, openBodies } from "../../src/recovery/quarantine.ts";
import { type ReplayOutcome, replay } from "../../src/recovery/replay.ts";
import { seal } from "../../vault/seal.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { attempt, outcome } from "./attempt.ts";
import { type Host, makeHost } from "./host.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
let etl: Database;
let operator: Database;
beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
});
afterAll(async () => {
  await database.drop();
});
beforeEach(async () => {
  await owner.unsafe(
    `truncate public.user_logins, etl.ledger, etl.quarantine, pii_vault.originals,
       pii_vault.data_keys, pii_vault.key_generations`,
  );
  host = await makeHost();
  etl = database.open(database.url("etl"));
  operator = database.open(database.url("operator"));
});
afterEach(() => Promise.all([etl.close(), operator.close()]));

const openingKeys = (keys = host.keys): OpeningKeys =>
  new OpeningKeys({
    identities: readIdentities(keys),
    verifyKey: readVerifyKey(keys),
    subkeys: readOptionalTokenKey(keys),
  });

const bodiesFor = (reason: string | null) => ({ database: operator, keys: openingKeys(), reason });

const SENT = new Date("2026-02-28T23:59:59Z");

/** A body that today's rules take and that yesterday's did not. */
const FIXED = JSON.stringify({ user_id: "u1", ip: "203.0.113.1", device_id: "d1", locale: "de" });

/** Quarantines a body whatever the rules say, as an older version would have. */
async function quarantine(id: string, body: string): Promise<void> {
  const batch = await host.protect([{ id, sentAt: SENT, body: "broken" }]);
  const sealed = seal(batch.key.dataKey.bytes, { kind: "quarantine", messageId: id }, body);
  const rejected = [{ messageId: id, sentAt: SENT, reason: "an old rule", sealed }];
  expect(
    await load(etl, host.subkeys, batch.key, { rows: [], originals: new Map(), rejected }),
  ).toMatchObject({ quarantined: 1 });
}

const replayAll = async (
  database: Database,
  ids: readonly string[],
  reason: string | null = null,
  dataKeys = host.dataKeys,
): Promise<ReplayOutcome[]> => {
  const outcomes: ReplayOutcome[] = [];
  const replayer = { database, keys: openingKeys(), reason, subkeys: host.subkeys, dataKeys };
  await replay(replayer, ids, (outcome) => outcomes.push(outcome));
  return outcomes;
};

const audit = async (id: string) => {
  const rows = await owner`
    select action, login, items, reason from pii_vault.audit
    where message_ids @> array[${id}] or request in (
      select request from pii_vault.audit where message_ids @> array[${id}]
    ) order by id`;
  return rows.map((row) => [row.action, row.login, row.items, row.reason]);
};

test("an entry is listed with its reason and without its body, and listing is not on record", async () => {
  await host.load(etl, [
    { id: "list-2", sentAt: new Date("2026-02-02T00:00:00Z"), body: '{"user_id": 7}' },
    { id: "list-1", sentAt: new Date("2026-02-01T00:00:00Z"), body: "not json 203.0.113.1" },
  ]);
  const entries = await listEntries(operator, "open");
  expect(entries).toEqual([
    {
      messageId: "list-1",
      sentAt: "2026-02-01T00:00:00.000Z",
      state: "open",
      reason: "the body is not JSON",
    },
    {
      messageId: "list-2",
      sentAt: "2026-02-02T00:00:00.000Z",
      state: "open",
      reason: "user_id is a number, expected a string",
    },
  ]);
  expect(await listEntries(operator, "replayed")).toEqual([]);
  expect(await listEntries(operator, "all")).toHaveLength(2);
  expect(await audit("list-1")).toEqual([]);
});

test("a body is shown to the operator as it was sent, on record", async () => {
  const body = 'not json "\\ü\u0000 203.0.113.1';
  await host.load(etl, [
    { id: "show-1", sentAt: SENT, body },
    { id: "show-2", sentAt: SENT, body: "" },
  ]);
  const asked = ["show-1", "show-2", "show-unknown"];
  const { bodies } = await openBodies(bodiesFor("ticket 7"), asked, "show");
  expect(bodies.map((entry) => [entry.messageId, entry.body, entry.verified])).toEqual([
    ["show-1", body, true],
    ["show-2", "", true],
  ]);
  const login = database.login("operator");
  expect(await audit("show-1")).toEqual([
    ["quarantine.show", login, 3, "ticket 7"],
    ["quarantine.fetch", login, 2, null],
  ]);
});

test("the operator cannot select a sealed body or its key, and fetches none without a commit", async () => {
  await quarantine("direct-1", FIXED);
  const sql = database.sql(database.url("operator"));
  for (const statement of [
    "select sealed from etl.quarantine",
    "select data_key from etl.quarantine",
    "select * from etl.quarantine",
    "select q from etl.quarantine q",
    "select count(*) from pii_vault.data_keys",
    "select count(*) from pii_vault.originals",
    "select count(*) from pii_vault.requests",
    "select count(*) from pii_vault.audit",
    "update etl.quarantine set state = 'open'",
    "delete from etl.quarantine",
  ]) {
    expect([statement, await attempt(sql, statement)]).toEqual([statement, "42501"]);
  }
  expect(await attempt(sql, "select reason from etl.quarantine where state = 'open'")).toBe(
    "allowed",
  );
  await sql.unsafe("begin");
  const [row] = await sql`select etl.request_bodies(array['direct-1'], 'show', null) as id`;
  expect(await outcome(sql`select * from etl.fetch_bodies(${row?.id}, 'show')`)).toBe("VL002");
  await sql.unsafe("rollback");
  expect(await audit("direct-1")).toEqual([]);
});

test("a request for bodies is refused for a wrong purpose, for no ids and for too many", async () => {
  const sql = database.sql(database.url("operator"));
  const ask = (ids: string, purpose = "'show'", reason = "null") =>
    attempt(sql, `select etl.request_bodies(${ids}, ${purpose}, ${reason})`);
  expect(await ask("array['a']")).toBe("allowed");
  expect(await ask("array['a']", "null")).toBe("VL006");
  expect(await ask("array['a']", "'reveal'")).toBe("VL006");
  expect(await ask("null")).toBe("VL006");
  expect(await ask("'{}'")).toBe("VL006");
  expect(await ask("array['a', null]")).toBe("VL006");
  expect(await ask("array['']")).toBe("VL006");
  expect(await ask("array[repeat('a', 128)]")).toBe("allowed");
  expect(await ask("array[repeat('a', 129)]")).toBe("VL006");
  expect(await ask("array[array['a'], array['b']]")).toBe("VL006");
  expect(await ask("array_fill('a'::text, array[10001])")).toBe("VL006");
  expect(await ask("array['a']", "'show'", "repeat('x', 1001)")).toBe("VL006");
});

test("a replay makes the row with the message's own id and date, once, on record", async () => {
  await quarantine("replay-1", FIXED);
  const outcomes = await replayAll(operator, ["replay-1", "unknown-1"], "fixed in 2.0");
  expect(outcomes).toEqual([
    { messageId: "replay-1", outcome: "replayed", reason: null },
    { messageId: "unknown-1", outcome: "not open", reason: null },
  ]);
  const rows = await owner`
    select user_id, masked_ip, masked_device_id, locale, create_date::text from public.user_logins`;
  expect([...rows]).toEqual([
    {
      user_id: "u1",
      masked_ip: host.token("ip", "203.0.113.1"),
      masked_device_id: host.token("device_id", "d1"),
      locale: "de",
      create_date: "2026-02-28",
    },
  ]);
  const login = database.login("operator");
  expect(await audit("replay-1")).toEqual([
    ["quarantine.replay", login, 2, "fixed in 2.0"],
    ["quarantine.fetch", login, 1, null],
    ["quarantine.replayed", login, 1, null],
  ]);
  const [entry] = await owner`
    select state, changed_by, sealed is not null as kept from etl.quarantine`;
  expect(entry).toEqual({ state: "replayed", changed_by: login, kept: false });
  // Again, and by the queue: nothing more.
  expect((await replayAll(operator, ["replay-1"]))[0]?.outcome).toBe("not open");
  expect(await host.load(etl, [{ id: "replay-1", sentAt: SENT, body: FIXED }])).toMatchObject({
    loaded: 0,
    duplicates: 1,
  });
  const [count] = await owner`select count(*)::int as rows from public.user_logins`;
  expect(count?.rows).toBe(1);
});

test("two replays of the same entries at once make each row once", async () => {
  const ids = Array.from({ length: 12 }, (_, i) => `race-${i}`);
  for (const id of ids) await quarantine(id, FIXED);
  const operators = Array.from({ length: 4 }, () => database.open(database.url("operator")));
  const outcomes = await Promise.all(
    operators.map(async (each, i) => {
      const { dataKeys } = await makeHost(host.keys);
      const order = i % 2 === 0 ? ids : [...ids].reverse();
      return await replayAll(each, order, null, dataKeys);
    }),
  );
  const replayed = outcomes.flat().filter((one) => one.outcome === "replayed");
  expect(replayed.map((one) => one.messageId).sort()).toEqual([...ids].sort());
  expect(outcomes.flat().every((one) => /^(replayed|not open)$/.test(one.outcome))).toBe(true);
  const [count] = await owner`select count(*)::int as rows from public.user_logins`;
  expect(count?.rows).toBe(ids.length);
});

test("what is still broken stays open, and what does not open is refused", async () => {
  await quarantine("still-1", '{"user_id": ""}');
  await quarantine("altered-1", FIXED);
  await owner`
    update etl.quarantine set sealed = set_byte(sealed, 20, 255 - get_byte(sealed, 20))
    where message_id = 'altered-1'`;
  expect(await replayAll(operator, ["still-1", "altered-1"])).toEqual([
    { messageId: "still-1", outcome: "still broken", reason: "user_id is empty" },
    { messageId: "altered-1", outcome: "refused", reason: null },
  ]);
  const entries = await listEntries(operator, "open");
  expect(entries.map((entry) => entry.messageId)).toEqual(["altered-1", "still-1"]);
});

test("a body that was moved to another message is refused", async () => {
  await quarantine("moved-1", FIXED);
  await quarantine("moved-2", JSON.stringify({ user_id: "u2" }));
  await owner`
    update etl.quarantine set sealed = (
      select sealed from etl.quarantine where message_id = 'moved-1'
    ) where message_id = 'moved-2'`;
  const outcomes = await replayAll(operator, ["moved-1", "moved-2"]);
  expect(outcomes.map((one) => one.outcome)).toEqual(["replayed", "refused"]);
});

/** The bare statement of a replay, of a body without personal values. */
const replayBare = (sql: postgres.Sql, request: string, id: string, check = host.subkeys.check) =>
  sql`select etl.replay(${request}, ${id}, 1, ${check}, null, null, null, null, '{}', '{}',
    'u1', null, null, null, null, null) as done`;

test("a replay needs a committed request of this login, for a replay, that names the message", async () => {
  await quarantine("bare-1", FIXED);
  await quarantine("bare-2", FIXED);
  const sql = database.sql(database.url("operator"));
  const ask = async (id: string, purpose: string): Promise<string> => {
    const [row] = await sql`select etl.request_bodies(array[${id}], ${purpose}, null) as id`;
    return String(row?.id);
  };
  expect(await outcome(replayBare(sql, crypto.randomUUID(), "bare-1"))).toBe("VL001");
  await sql.unsafe("begin");
  const open = await ask("bare-1", "replay");
  expect(await outcome(replayBare(sql, open, "bare-1"))).toBe("VL002");
  await sql.unsafe("rollback");
  expect(await outcome(replayBare(sql, await ask("bare-1", "show"), "bare-1"))).toBe("VL001");
  const request = await ask("bare-1", "replay");
  expect(await outcome(replayBare(sql, request, "bare-2"))).toBe("VL001");
  const other = database.sql(await database.addLogin("operator"));
  expect(await outcome(replayBare(other, request, "bare-1"))).toBe("VL001");
  const wrong = new Uint8Array(8);
  expect(await outcome(replayBare(sql, request, "bare-1", wrong))).toBe("VL010");
  const [count] = await owner`select count(*)::int as rows from public.user_logins`;
  expect(count?.rows).toBe(0);
  expect((await listEntries(operator, "open")).length).toBe(2);
  expect((await replayBare(sql, request, "bare-1"))[0]?.done).toBe(true);
  expect((await replayBare(sql, request, "bare-1"))[0]?.done).toBe(false);
});

test("a discard empties the body for good, keeps the entry and is on record", async () => {
  await quarantine("discard-1", FIXED);
  await quarantine("discard-2", FIXED);
  // A request from before gets nothing of what was discarded after it.
  const sql = database.sql(database.url("operator"));
  const [before] = await sql`select etl.request_bodies(array['discard-1'], 'show', null) as id`;
  expect(await discard(operator, ["discard-1", "discard-1", "unknown"], "no use")).toBe(1);
  expect([...(await sql`select * from etl.fetch_bodies(${before?.id}, 'show')`)]).toEqual([]);
  const [entry] = await owner`
    select state, sealed, changed_by, reason from etl.quarantine where message_id = 'discard-1'`;
  expect(entry).toEqual({
    state: "discarded",
    sealed: null,
    changed_by: database.login("operator"),
    reason: "an old rule",
  });
  expect(await discard(operator, ["discard-1"], null)).toBe(0);
  expect((await openBodies(bodiesFor(null), ["discard-1"], "show")).bodies).toEqual([]);
  expect((await replayAll(operator, ["discard-1"]))[0]?.outcome).toBe("not open");
  expect((await audit("discard-1")).filter(([action]) => action === "quarantine.discard")).toEqual([
    ["quarantine.discard", database.login("operator"), 1, "no use"],
  ]);
  expect((await listEntries(operator, "open")).map((one) => one.messageId)).toEqual(["discard-2"]);
  expect((await listEntries(operator, "discarded")).map((one) => one.messageId)).toEqual([
    "discard-1",
  ]);
  // And the queue cannot bring it back.
  expect(await host.load(etl, [{ id: "discard-1", sentAt: SENT, body: FIXED }])).toMatchObject({
    duplicates: 1,
  });
});

test("a replay and a discard of one entry at once: one of them happens", async () => {
  const second = database.open(database.url("operator"));
  for (let round = 0; round < 10; round++) {
    const id = `either-${round}`;
    await quarantine(id, JSON.stringify({ user_id: id }));
    const [replayed, discarded] = await Promise.all([
      replayAll(operator, [id]),
      discard(second, [id], null),
    ]);
    const [row] = await owner`
      select (select count(*)::int from public.user_logins where user_id = ${id}) as rows,
        (select state from etl.quarantine where message_id = ${id}) as state`;
    const wasReplayed = replayed[0]?.outcome === "replayed";
    expect(row).toEqual({
      rows: wasReplayed ? 1 : 0,
      state: wasReplayed ? "replayed" : "discarded",
    });
    expect(discarded).toBe(wasReplayed ? 0 : 1);
  }
});
