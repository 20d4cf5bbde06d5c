// The vault's key and what it takes for a token: each token once, whoever brings it when, and nothing else.
import { afterAll, beforeAll, expect, test } from "bun:test";
import type postgres from "postgres";
import { array } from "../../src/postgres/values.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { outcome } from "./attempt.ts";
import { callLoad, type Host, loadArguments, type Message, makeHost } from "./host.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  host = await makeHost();
  await host.load(database.open(database.url("etl")), [{ id: "first", body: { user_id: "u" } }]);
});
afterAll(() => database.drop());

const login = (id: string, n: number): Message => ({
  id,
  body: { user_id: `u${n}`, ip: `203.0.113.${n}`, device_id: `d${n}` },
});

test("a token is in the vault once, however many loads bring it at the same time", async () => {
  const sqls = Array.from({ length: 8 }, () => database.sql(database.url("etl")));
  const numbers = Array.from({ length: 100 }, (_, n) => n);
  for (let round = 0; round < 5; round++) {
    await owner.unsafe("truncate pii_vault.originals");
    const batches = await Promise.all(
      sqls.map(async (_, i) => {
        const mine = i % 2 === 0 ? numbers : [...numbers].reverse();
        const messages = mine.map((n) => login(`${round}-${i}-${n}`, n));
        return loadArguments(host, await host.protect(messages));
      }),
    );
    const answers = await Promise.all(sqls.map((sql, i) => callLoad(sql, batches[i]!)));
    expect(answers.reduce((sum, answer) => sum + Number(answer?.new_originals), 0)).toBe(200);
    const [row] = await owner`
      select count(*)::int as rows, count(distinct token)::int as tokens from pii_vault.originals`;
    expect(row).toEqual({ rows: 200, tokens: 200 });
  }
});

test("the vault takes tokens and nothing that is nearly one", async () => {
  const letters = "abcdefghijklmnopqrstuvwxy";
  const [key] = await owner`select id from pii_vault.data_keys limit 1`;
  const put = (token: string) =>
    outcome(
      owner`insert into pii_vault.originals (token, period, data_key, sealed)
        values (${token}, '2030-01-01', ${key?.id}, ${Buffer.alloc(44)})`,
    );
  for (const token of [`ip1_${letters}a`, `dev1_${letters}4`, `ip20_234567${"z".repeat(19)}y`]) {
    expect([token, await put(token)]).toEqual([token, "allowed"]);
    expect([token, await put(token)]).toEqual([token, "23505"]);
  }
  for (const token of [
    ...["", "ip1_", "203.0.113.1", `ip1_${letters}`, `ip1_${letters}aa`, `ip1_${letters}b`],
    ...[`ip0_${letters}a`, `ip01_${letters}a`, `ip_${letters}a`, `user1_${letters}a`],
    ...[`IP1_${letters}a`, `ip1_${letters.toUpperCase()}a`, `ip1_1${letters.slice(1)}a`],
    ...[` ip1_${letters}a`, `ip1_${letters}a `, `ip1_${letters}a\n`, `x\nip1_${letters}a`],
    ...[`ip1_${letters}_a`, `ip1__${letters.slice(1)}a`, `ip1_ä${letters.slice(1)}a`],
    ...[`ip1_ip1_${letters}a`, `ip1${letters}aa`, `ip1-${letters}a`],
  ]) {
    expect([token, await put(token)]).toEqual([token, "23514"]);
  }
});

test("a list of tokens with a null in it excuses no row from its originals", async () => {
  const sql = database.sql(database.url("etl"));
  const values = loadArguments(host, await host.protect([login("null-1", 201)]));
  const lacking = { ...values, tokens: "{NULL}", sealed: "{NULL}" };
  expect(await outcome(callLoad(sql, lacking))).toBe("VL013");
  const other = array([host.token("ip", "203.0.113.201"), null]);
  const [sealed] = String(values.sealed).slice(1).split(",");
  expect(
    await outcome(callLoad(sql, { ...values, tokens: other, sealed: `{${sealed},NULL}` })),
  ).toBe("VL013");
});

test("loads do not read the vault through, also where it was empty when their plans were made", async () => {
  await owner.unsafe("truncate pii_vault.originals");
  await owner.unsafe("vacuum analyze pii_vault.originals");
  const scans = async () => {
    const [row] = await owner`
      select sum(s.seq_scan)::int as all, sum(s.idx_scan)::int as single
      from pg_partition_tree('pii_vault.originals') p
      join pg_catalog.pg_stat_all_tables s on s.relid = p.relid`;
    return row as { all: number; single: number };
  };
  const before = await scans();
  const sql = database.sql(database.url("etl"));
  for (let round = 0; round < 10; round++) {
    const batch = await host.protect([login(`plan-${round}`, round)]);
    await callLoad(sql, loadArguments(host, batch));
    const again = loadArguments(host, await host.protect([login(`plan-again-${round}`, round)]));
    await callLoad(sql, { ...again, tokens: "{}", sealed: "{}" });
  }
  // What a session counts is told at its end, if not before.
  await sql.end();
  let after = await scans();
  while (after.single < before.single + 20) after = await scans();
  expect(after.all).toBe(before.all);
});
