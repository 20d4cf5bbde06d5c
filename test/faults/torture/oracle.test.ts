// The oracle sees what it is there to see: a database that veil filled is clean, and each way to spoil it
// afterwards is found, under its own name.
import { afterAll, beforeAll, expect, test } from "bun:test";
import type postgres from "postgres";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { makeKeys, type TestKeys } from "../../support/keys.ts";
import { createQueue } from "../../support/servers.ts";
import { veil } from "../../support/veil.ts";
import { startSqsProxy } from "../proxies/sqs-proxy.ts";
import { shareQueue } from "../proxies/sqs-shared.ts";
import { message, sentAtOf } from "./messages.ts";
import { Oracle } from "./oracle.ts";

const MESSAGES = 200;
const OPTIONS = { seed: 9 };

let database: TestDatabase;
let keys: TestKeys;
let sql: postgres.Sql;
const ids: string[] = [];
const sentAt = sentAtOf(Date.now());

beforeAll(async () => {
  database = await createDatabase();
  keys = await makeKeys();
  sql = database.sql(database.ownerUrl, { max: 3 });
  const queue = await createQueue();
  for (let n = 0; n < MESSAGES; n++) ids.push(queue.send(message(OPTIONS, n).body));
  const address = queue.env.AWS_ENDPOINT_URL_SQS ?? "";
  const proxy = await startSqsProxy(shareQueue({ address, sentAt }));
  const run = await veil(["etl"], {
    env: {
      ...queue.env,
      ...proxy.env,
      DATABASE_URL: database.url("etl"),
      VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
      VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
    },
  });
  await proxy.stop();
  expect(run.code).toBe(0);
}, 300_000);
afterAll(() => database.drop());

const newOracle = (): Oracle => {
  const generate = (n: number) => message(OPTIONS, n);
  const oracle = new Oracle({ message: generate, sentAt, keys, sql, watch: sql });
  for (const [n, id] of ids.entries()) oracle.sent(n, id);
  return oracle;
};
const compared = async (): Promise<string> => {
  const oracle = newOracle();
  await oracle.compare();
  return oracle.findings.text();
};

const isLogin = (n: number) => message(OPTIONS, n).login !== null;
const first = ids.findIndex.bind(ids);
const loginWith = (field: "ip" | "device_id", beginning: string): number =>
  first((_, n) => message(OPTIONS, n).login?.[field]?.startsWith(beginning) ?? false);
const userOf = (n: number) => message(OPTIONS, n).login?.user_id ?? "";

test("what veil stored is clean", async () => {
  expect(await compared()).toBe(
    "lost 0, twice 0, wrong 0, orphan tokens 0, acknowledged before stored 0",
  );
});

test("a delete of what is not stored is told at once", async () => {
  const oracle = newOracle();
  await oracle.onDelete(ids.slice(0, 10).map((id) => ({ id, sentAt: sentAt(id) })));
  expect(oracle.findings.count("early")).toBe(0);
  const unknown = "ffffffff-0000-4000-8000-000000000000";
  await Promise.all([
    oracle.onDelete([{ id: unknown, sentAt: sentAt(unknown) }]),
    oracle.onDelete([{ id: ids[0]!, sentAt: sentAt(ids[0]!) }]),
  ]);
  expect(oracle.findings.list()).toEqual([
    {
      kind: "early",
      what: "a delete of what was not committed",
      count: 1,
      examples: [unknown],
    },
  ]);
});

// Each spoils the database in a transaction of the whole table's contents, and puts it back.
const SPOILED: readonly (readonly [
  what: string,
  spoil: (sql: postgres.Sql) => Promise<unknown>,
  words: RegExp,
])[] = [
  [
    "a row that is missing",
    (sql) =>
      sql`delete from public.user_logins where user_id = ${userOf(first((_, n) => isLogin(n)))}`,
    /^lost 1, twice 0, wrong [0-2], .*\n(?:.*\n)*? {2}lost: a login without a row: 1/,
  ],
  [
    "a row that is there twice",
    (sql) => sql`insert into public.user_logins
      select * from public.user_logins where user_id = ${userOf(first((_, n) => isLogin(n)))}`,
    /^lost 0, twice 1, wrong 0, /,
  ],
  [
    "a row with another version",
    (sql) => sql`update public.user_logins set app_version = 77
      where user_id = ${userOf(first((_, n) => isLogin(n)))}`,
    /^lost 0, twice 0, wrong 1, .*\n {2}wrong: a row with another app_version: 1/,
  ],
  [
    "a row of nobody",
    (sql) => sql`insert into public.user_logins (user_id) values ('somebody')`,
    /wrong: a row of no message: 1/,
  ],
  [
    "a token without an original",
    (sql) => sql`delete from pii_vault.originals where token = (
      select masked_ip from public.user_logins where user_id = ${userOf(loginWith("ip", "2001"))})`,
    /^lost 0, twice 0, wrong 0, orphan tokens 1, /,
  ],
  [
    "an original that is sealed for another token",
    (sql) => sql`update pii_vault.originals o set sealed = other.sealed, data_key = other.data_key
      from pii_vault.originals other
      where o.token = (
          select masked_ip from public.user_logins where user_id = ${userOf(loginWith("ip", "2001"))})
        and other.token = (
          select masked_device_id from public.user_logins
          where user_id = ${userOf(loginWith("device_id", "593"))})`,
    /^lost 0, twice 0, wrong 1, .*\n {2}wrong: an original that does not open to its token: 1/,
  ],
  [
    "a proof that does not fit",
    (sql) => sql`update pii_vault.data_keys set proof = decode(repeat('00', 32), 'hex')`,
    /wrong: a data key whose proof does not fit: 1/,
  ],
  [
    "a message that is not in the ledger",
    (sql) => sql`delete from etl.ledger where message_id = ${ids[5]!}`,
    /^lost 1, twice 0, wrong 0, .*\n {2}lost: a message without a ledger entry: 1/,
  ],
  [
    "a message that is in the ledger on two days",
    (sql) => sql`insert into etl.ledger
      select sent_on - 5, message_id from etl.ledger where message_id = ${ids[5]!}`,
    /^lost 0, twice 1, /,
  ],
  [
    "a broken message that is not in the quarantine",
    (sql) =>
      sql`delete from etl.quarantine where message_id = ${ids[first((_, n) => !isLogin(n))]!}`,
    /^lost 1, .*\n {2}lost: a broken message that is not in the quarantine: 1/,
  ],
  [
    "a login in the quarantine",
    (sql) => sql`insert into etl.quarantine (message_id, sent_at, reason, data_key, sealed)
      select ${ids[first((_, n) => isLogin(n))]!}, sent_at, reason, data_key, sealed
      from etl.quarantine limit 1`,
    /wrong: a quarantine entry of what could have been a row: 1/,
  ],
  [
    "a quarantined body that was changed",
    (sql) => sql`update etl.quarantine set sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)
      where message_id = ${ids[first((_, n) => !isLogin(n))]!}`,
    /wrong: a quarantined body that differs: 1/,
  ],
];

const TABLES = [
  ...["public.user_logins", "etl.ledger", "etl.quarantine"],
  ...["pii_vault.originals", "pii_vault.data_keys"],
];

for (const [what, spoil, words] of SPOILED) {
  test(`found: ${what}`, async () => {
    for (const [i, table] of TABLES.entries()) {
      await sql.unsafe(`create table public.kept_${i} as table ${table}`);
    }
    try {
      await spoil(sql);
      expect(await compared()).toMatch(words);
    } finally {
      for (const [i, table] of TABLES.entries()) {
        await sql.unsafe(`delete from ${table}`);
        await sql.unsafe(`insert into ${table} table public.kept_${i}`);
        await sql.unsafe(`drop table public.kept_${i}`);
      }
    }
  });
}
