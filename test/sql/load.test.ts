// The one statement that stores a batch: all of it or nothing, once however often it is sent.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import type postgres from "postgres";
import { Failure } from "../../src/failure.ts";
import { load, requireTokenKey } from "../../src/line/load.ts";
import type { Database } from "../../src/postgres/database.ts";
import { array, byteaArray } from "../../src/postgres/values.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys } from "../support/keys.ts";
import { outcome } from "./attempt.ts";
import {
  type Argument,
  type Batch,
  callLoad,
  countRows,
  type Host,
  loadArguments,
  type Message,
  makeHost,
} from "./host.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
let etl: Database;
beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
});
afterAll(() => database.drop());

// Each test begins with a vault that no key is registered in.
beforeEach(async () => {
  await owner.unsafe(
    `truncate public.user_logins, etl.ledger, etl.quarantine, pii_vault.originals,
       pii_vault.data_keys, pii_vault.key_generations`,
  );
  host = await makeHost();
  etl = database.open(database.url("etl"));
});
afterEach(() => etl.close());

const login = (n: number, more: object = {}): Message => ({
  id: `m${n}`,
  body: { user_id: `u${n}`, ip: `203.0.113.${n}`, device_id: `d${n}`, ...more },
});

async function refusal(work: Promise<unknown>): Promise<string | null> {
  try {
    await work;
    return "allowed";
  } catch (error) {
    if (error instanceof Failure) return error.code;
    throw error;
  }
}

/** Asserts that the work is refused with this code and that no table has a row more or less. */
async function expectNothingWritten(work: () => Promise<unknown>, code: string): Promise<void> {
  const before = await countRows(owner);
  expect(await refusal(work())).toBe(code);
  expect(await countRows(owner)).toEqual(before);
}

test("a batch becomes rows, originals and ledger entries, and its redelivery changes nothing", async () => {
  const batch = await host.protect([login(1)]);
  const { key, ...rest } = batch;
  expect(await load(etl, host.subkeys, key, rest)).toMatchObject({
    loaded: 1,
    duplicates: 0,
    quarantined: 0,
    newOriginals: 2,
  });
  const before = await countRows(owner);
  expect(await load(etl, host.subkeys, key, rest)).toMatchObject({
    loaded: 0,
    duplicates: 1,
    quarantined: 0,
    newOriginals: 0,
  });
  // Sealed anew, as another host would: still the same message.
  expect(await (await makeHost(host.keys)).load(etl, [login(1)])).toMatchObject({ duplicates: 1 });
  expect(await countRows(owner)).toEqual(before);
});

test("a row holds what the message said, and its tokens", async () => {
  const sentAt = new Date("2026-05-04T10:00:00Z");
  const body = {
    ...{ user_id: "ü'\"\\{},NULL", device_type: "NULL", locale: "", app_version: "2.3.0" },
    ...{ ip: "203.0.113.1", device_id: 'a "b" \\c\n{d},e' },
  };
  await host.load(etl, [
    { id: 'i"\\d,{}', sentAt, body },
    { id: "NULL", sentAt, body: { user_id: "u2" } },
  ]);
  const rows = await owner`
    select user_id, device_type, masked_ip, masked_device_id, locale, app_version,
      create_date::text from public.user_logins order by user_id collate "C" desc`;
  expect([...rows]).toEqual([
    {
      user_id: "ü'\"\\{},NULL",
      device_type: "NULL",
      masked_ip: host.token("ip", "203.0.113.1"),
      masked_device_id: host.token("device_id", 'a "b" \\c\n{d},e'),
      locale: "",
      app_version: 2003000,
      create_date: "2026-05-04",
    },
    {
      user_id: "u2",
      device_type: null,
      masked_ip: null,
      masked_device_id: null,
      locale: null,
      app_version: null,
      create_date: "2026-05-04",
    },
  ]);
  const ids = await owner`select message_id from etl.ledger order by 1`;
  expect(ids.map((row) => row.message_id)).toEqual(["NULL", 'i"\\d,{}']);
});

test("the first original of a token stays, whoever sends it again", async () => {
  await host.load(etl, [login(1)]);
  const [first] = await owner`select data_key, sealed from pii_vault.originals
    where token = ${host.token("ip", "203.0.113.1")}`;
  const second = await makeHost(host.keys);
  expect(await second.load(etl, [login(2, { ip: "::ffff:203.0.113.1" })])).toMatchObject({
    loaded: 1,
    newOriginals: 1,
  });
  const [after] = await owner`select data_key, sealed from pii_vault.originals
    where token = ${host.token("ip", "203.0.113.1")}`;
  expect(after).toEqual(first!);
});

test("a second host with another token key for the same generation is refused before anything", async () => {
  await host.load(etl, [login(1)]);
  const other = await makeHost();
  await expectNothingWritten(() => other.load(etl, [login(2)]), "VL010");
  await expectNothingWritten(() => other.load(etl, [{ id: "m3", body: "broken" }]), "VL010");
  await expectNothingWritten(() => requireTokenKey(etl, other.subkeys), "VL010");
});

test("another generation is refused, and registers only in a database that has none", async () => {
  await host.load(etl, [login(1)]);
  const second = await makeHost(await makeKeys(2));
  await expectNothingWritten(() => second.load(etl, [login(2)]), "VL011");
  await expectNothingWritten(() => requireTokenKey(etl, second.subkeys), "VL011");
  await owner.unsafe("truncate pii_vault.key_generations");
  expect(await second.load(etl, [login(2)])).toMatchObject({ loaded: 1 });
  await expectNothingWritten(() => host.load(etl, [login(3)]), "VL011");
});

test("an empty load writes nothing and registers no key", async () => {
  const before = await countRows(owner);
  await requireTokenKey(etl, host.subkeys);
  await host.load(etl, []);
  expect(await countRows(owner)).toEqual(before);
  // And so two keys may both be asked about before one of them stores something.
  await requireTokenKey(etl, (await makeHost()).subkeys);
});

test("of two first loads with two generations, or two keys, exactly one registers", async () => {
  for (let round = 0; round < 10; round++) {
    await owner.unsafe("truncate pii_vault.key_generations, etl.ledger");
    const generations = round % 2 === 0 ? [1, 2, 3, 4] : [1, 1, 1, 1];
    const hosts = await Promise.all(
      generations.map(async (generation) => await makeHost(await makeKeys(generation))),
    );
    const databases = hosts.map(() => database.open(database.url("etl")));
    const codes = await Promise.all(
      hosts.map((racing, i) => refusal(racing.load(databases[i]!, [login(i)]))),
    );
    expect(codes.filter((code) => code === "allowed")).toHaveLength(1);
    const expected = round % 2 === 0 ? "VL011" : "VL010";
    expect(codes.filter((code) => code === expected)).toHaveLength(3);
    const [row] = await owner`
      select (select count(*)::int from pii_vault.key_generations) as keys,
        (select count(*)::int from etl.ledger) as stored`;
    expect(row).toEqual({ keys: 1, stored: 1 });
    await Promise.all(databases.map((racing) => racing.close()));
  }
});

test("the same id twice in one batch is one row and one duplicate", async () => {
  const twice = [login(1), login(2), { ...login(3), id: "m1" }];
  expect(await host.load(etl, twice)).toMatchObject({ loaded: 2, duplicates: 1, quarantined: 0 });
  expect(await countRows(owner)).toMatchObject({ "public.user_logins": 2, "etl.ledger": 2 });
});

test("an id that is a row and rejected in one batch is the row, and a broken one twice is once", async () => {
  const batch: Message[] = [
    login(1),
    { id: "m1", body: "broken" },
    { id: "b1", body: "broken" },
    { id: "b1", body: "broken too" },
  ];
  expect(await host.load(etl, batch)).toMatchObject({
    loaded: 1,
    duplicates: 2,
    quarantined: 1,
    newOriginals: 2,
  });
  const entries = await owner`select message_id, state from etl.quarantine`;
  expect([...entries]).toEqual([{ message_id: "b1", state: "open" }]);
  expect(await host.load(etl, batch)).toMatchObject({ loaded: 0, duplicates: 4, quarantined: 0 });
  // What was quarantined does not become a row by being sent again.
  expect(await host.load(etl, [{ ...login(9), id: "b1" }])).toMatchObject({ duplicates: 1 });
});

test("a batch of which a part is known already stores the rest", async () => {
  await host.load(etl, [login(1), { id: "b1", body: "broken" }]);
  const next = [login(1), login(2), { id: "b1", body: "broken" }, { id: "b2", body: "broken" }];
  expect(await host.load(etl, next)).toMatchObject({
    loaded: 1,
    duplicates: 2,
    quarantined: 1,
    newOriginals: 2,
  });
});

test("loads that overlap in opposite orders all end well, and store each message once", async () => {
  const connections = 16;
  const messages = Array.from({ length: 120 }, (_, i) => login(i));
  const sqls = Array.from({ length: connections }, () => database.sql(database.url("etl")));
  const hosts = await Promise.all(sqls.map(() => makeHost(host.keys)));
  await host.load(etl, [{ id: "first", body: { user_id: "u" } }]);
  for (let round = 0; round < 5; round++) {
    const batches = await Promise.all(
      hosts.map(async (loading, i) => {
        const mine = messages.map((message) => ({ ...message, id: `${round}-${message.id}` }));
        if (i % 2 === 1) mine.reverse();
        // Each leaves out another part, so that no two are alike.
        return loadArguments(loading, await loading.protect(mine.slice(i, mine.length)));
      }),
    );
    // The bare statement: a deadlock would surface, where `load` would hide it by trying again.
    const answers = await Promise.all(sqls.map((sql, i) => callLoad(sql, batches[i]!)));
    const loaded = answers.reduce((sum, answer) => sum + Number(answer?.loaded), 0);
    expect(loaded).toBe(messages.length);
    await owner.unsafe("truncate pii_vault.originals");
  }
  await Promise.all(sqls.map((sql) => sql.end()));
  const [row] = await owner`
    select count(*)::int as rows, count(distinct user_id)::int as users from public.user_logins`;
  expect(row).toEqual({ rows: 5 * messages.length + 1, users: messages.length + 1 });
});

test("a row whose token has no original is refused, and anything that is no token", async () => {
  await host.load(etl, [login(1)]);
  const sql = database.sql(database.url("etl"));
  const values = loadArguments(host, await host.protect([login(2)]));
  const before = await countRows(owner);
  const call = (change: Record<string, Argument>) =>
    outcome(callLoad(sql, { ...values, ...change }));
  expect(await call({ tokens: "{}", sealed: "{}" })).toBe("VL013");
  expect(await call({ masked_ips: array([host.token("ip", "203.0.113.99")]) })).toBe("VL013");
  expect(await call({ masked_device_ids: array(["d2"]) })).toBe("VL013");
  expect(await call({ masked_ips: array(["203.0.113.2"]) })).toBe("VL013");
  // A plain value with a seal of its own is no token: the vault's own check refuses it.
  const [sealed] = (await host.protect([login(2)])).originals.values();
  expect(
    await call({
      tokens: array(["203.0.113.2", host.token("device_id", "d2")]),
      sealed: byteaArray([sealed!, sealed!]),
      masked_ips: array(["203.0.113.2"]),
    }),
  ).toBe("23514");
  expect(await countRows(owner)).toEqual(before);
  // One that the vault has from before needs none.
  expect(
    await call({
      masked_ips: array([host.token("ip", "203.0.113.1")]),
      masked_device_ids: array([host.token("device_id", "d1")]),
      tokens: "{}",
      sealed: "{}",
    }),
  ).toBe("allowed");
});

test("originals that no row of the batch has are not stored", async () => {
  const batch = await host.protect([login(1), login(2)]);
  const { key, rows, originals } = batch;
  const result = await load(etl, host.subkeys, key, { rows: [rows[0]!], originals, rejected: [] });
  expect(result.newOriginals).toBe(2);
});

test("arrays of unequal length, and null ones, are refused and nothing is written", async () => {
  const batch = await host.protect([login(1), login(2), { id: "b1", body: "broken" }]);
  const values = loadArguments(host, batch);
  const sql = database.sql(database.url("etl"));
  const before = await countRows(owner);
  const one: Record<string, Argument> = {
    ...{ tokens: "{x}", sealed: "{x}", message_ids: "{x}", sent_ats: "{2026-01-01}" },
    ...{ user_ids: "{x}", device_types: "{x}", masked_ips: "{NULL}" },
    ...{ masked_device_ids: "{NULL}", locales: "{x}", app_versions: "{1}" },
    ...{ rejected_ids: "{}", rejected_sent_ats: "{}", rejected_reasons: "{}" },
    ...{ rejected_bodies: "{}" },
  };
  for (const [name, shorter] of Object.entries(one)) {
    for (const value of [shorter, null]) {
      const code = await outcome(callLoad(sql, { ...values, [name]: value }));
      expect([name, value, code]).toEqual([name, value, "VL014"]);
    }
  }
  expect(await countRows(owner)).toEqual(before);
});

test("nulls where a load needs a value are refused and nothing is written", async () => {
  const values = loadArguments(host, await host.protect([login(1), { id: "b", body: "broken" }]));
  const sql = database.sql(database.url("etl"));
  const before = await countRows(owner);
  for (const [name, value] of Object.entries({
    ...{ generation: null, key_check: null, data_key: null, wrapped: null, recipients: null },
    ...{ proof: null, message_ids: "{NULL}", sent_ats: "{NULL}", rejected_ids: "{NULL}" },
    ...{ rejected_sent_ats: "{NULL}", rejected_reasons: "{NULL}" },
    ...{ rejected_bodies: "{NULL}", recipients_: "{}" },
  })) {
    const change = { [name.replace(/_$/, "")]: value };
    expect([name, await outcome(callLoad(sql, { ...values, ...change }))]).not.toEqual([
      name,
      "allowed",
    ]);
  }
  expect(await countRows(owner)).toEqual(before);
});

test("a data key's id cannot be used again for another one", async () => {
  const batch = await host.protect([login(1)]);
  await callLoadOnce(loadArguments(host, batch));
  const other: Batch = await (await makeHost(host.keys)).protect([login(2)]);
  const before = await countRows(owner);
  const id = batch.key.wrapped.id;
  const mine = loadArguments(host, await host.protect([login(2)]));
  for (const change of [
    { ...loadArguments(host, other), data_key: id },
    { ...mine, wrapped: other.key.wrapped.wrapped },
    { ...mine, proof: other.key.wrapped.proof },
  ]) {
    expect(await outcome(callLoadOnce(change))).toBe("VL012");
  }
  expect(await countRows(owner)).toEqual(before);
  // The same one again is what every later load of a process sends.
  expect(await outcome(callLoadOnce(mine))).toBe("allowed");
});

const callLoadOnce = async (values: Record<string, Argument>) => {
  const sql = database.sql(database.url("etl"));
  try {
    return await callLoad(sql, values);
  } finally {
    await sql.end();
  }
};

test("a server whose default is repeatable read changes nothing, and a bare load there is refused", async () => {
  const url = await database.addLogin("etl");
  const name = new URL(url).username;
  for (const level of ["repeatable read", "serializable"]) {
    await owner.unsafe(`alter role ${name} set default_transaction_isolation = '${level}'`);
    const isolated = database.open(url);
    const [row] = await isolated.query("select current_setting('transaction_isolation') as level");
    expect(row?.level).toBe(level);
    const message = { ...login(1), id: level };
    expect(await host.load(isolated, [message])).toMatchObject({ loaded: 1 });
    const sql = database.sql(url);
    const values = loadArguments(host, await host.protect([{ ...login(1), id: "bare" }]));
    expect(await outcome(callLoad(sql, values))).toBe("VL015");
  }
});

test("the date is the UTC date, whatever time zone and style the session has", async () => {
  const url = await database.addLogin("etl");
  const name = new URL(url).username;
  const instants = [
    ["2026-03-01T23:59:59.999Z", "2026-03-01"],
    ["2026-03-02T00:00:00.000Z", "2026-03-02"],
    ["2024-02-29T12:00:00.000Z", "2024-02-29"],
    ["2026-12-31T23:59:59.999Z", "2026-12-31"],
  ] as const;
  let n = 0;
  for (const zone of ["Pacific/Kiritimati", "Pacific/Pago_Pago", "America/Sao_Paulo", "UTC"]) {
    for (const style of ["ISO, MDY", "SQL, DMY", "German"]) {
      await owner.unsafe(`alter role ${name} set timezone = '${zone}'`);
      await owner.unsafe(`alter role ${name} set datestyle = '${style}'`);
      const zoned = database.open(url);
      await host.load(
        zoned,
        instants.map(([instant, date]) => ({
          id: `z${n++}`,
          sentAt: new Date(instant),
          body: { user_id: date },
        })),
      );
      await zoned.close();
    }
  }
  const wrong = await owner`
    select user_id, create_date::text from public.user_logins where user_id <> create_date::text`;
  expect([...wrong]).toEqual([]);
  const days = await owner`
    select sent_on::text as day, count(*)::int as n from etl.ledger group by 1 order by 1`;
  expect(days.map((row) => row.day)).toEqual(instants.map(([, date]) => date).sort());
  expect(days.every((row) => row.n === 12)).toBe(true);
});

test("the ledger's default partition takes days far in the past and the future", async () => {
  const days = ["1970-01-01", "1999-12-31", "2199-12-31"];
  const messages = days.map((day) => ({
    ...{ id: day, sentAt: new Date(`${day}T00:00:00Z`), body: { user_id: "u" } },
  }));
  expect(await host.load(etl, messages)).toMatchObject({ loaded: 3 });
  expect(await host.load(etl, messages)).toMatchObject({ loaded: 0, duplicates: 3 });
  const rows = await owner`select message_id from etl.ledger_default order by 1`;
  expect(rows.map((row) => row.message_id)).toEqual(days);
});

test("an answer names the batch that it stored, and another one's answer is not believed", async () => {
  const values = loadArguments(host, await host.protect([login(1)]));
  const answer = await callLoadOnce(values);
  expect(answer?.batch_id).toBe(values.batch);
  const changed = (change: Readonly<Record<string, unknown>>): Database => ({
    ...etl,
    query: async (text, given) =>
      (await etl.query(text, given)).map((row) => ({ ...row, ...change })),
  });
  const mixed = changed({ batch_id: crypto.randomUUID() });
  await expect(host.load(mixed, [login(2)])).rejects.toThrow("names another batch");
  const miscounted = changed({ loaded: 7 });
  await expect(host.load(miscounted, [login(3)])).rejects.toThrow("do not add up");
});

test("where the default isolation level is another, a load still runs at read committed", async () => {
  await owner.unsafe(
    `alter database ${database.name} set default_transaction_isolation = 'serializable'`,
  );
  const strict = database.open(database.url("etl"));
  expect(await host.load(strict, [login(1)])).toMatchObject({ loaded: 1 });
  expect(await host.load(strict, [login(1)])).toMatchObject({ loaded: 0, duplicates: 1 });
  await owner.unsafe(`alter database ${database.name} reset default_transaction_isolation`);
});

test("rows stand in the table in the order of their batch", async () => {
  const users = ["m", "b", "z", "a", "y", "c"];
  const batch = users.map((user, i) => ({ id: `${9 - i}`, body: { user_id: `order-${user}` } }));
  await host.load(etl, [batch[2]!]);
  await host.load(etl, batch);
  const rows = await owner`
    select user_id from public.user_logins where user_id like 'order-%' order by ctid`;
  expect(rows.map((row) => row.user_id)).toEqual(
    ["z", "m", "b", "a", "y", "c"].map((user) => `order-${user}`),
  );
});

test("what the quarantine knows already leaves no second id in the ledger", async () => {
  const broken = (day: string) => ({ id: "broken-twice", sentAt: new Date(day), body: "broken" });
  expect(await host.load(etl, [broken("2026-11-01")])).toMatchObject({ quarantined: 1 });
  expect(await host.load(etl, [login(1), broken("2026-11-02")])).toMatchObject({
    loaded: 1,
    quarantined: 0,
    duplicates: 1,
  });
  const days = await owner`
    select sent_on::text as day from etl.ledger where message_id = 'broken-twice'`;
  expect(days.map(({ day }) => day)).toEqual(["2026-11-01"]);
});

test("a load that fails in its last step has written nothing", async () => {
  const batch = await host.protect([login(1), { id: "b1", body: "broken" }]);
  const values = { ...loadArguments(host, batch), rejected_reasons: array(["x".repeat(501)]) };
  const before = await countRows(owner);
  expect(await outcome(callLoadOnce(values))).toBe("23514");
  expect(await countRows(owner)).toEqual(before);
});

test("the etl's login can read back nothing of what it stored", async () => {
  await host.load(etl, [login(1), { id: "b1", body: "broken" }]);
  for (const table of Object.keys(await countRows(owner))) {
    expect([table, await refusal(etl.query(`select * from ${table}`))]).toEqual([table, "42501"]);
  }
});
