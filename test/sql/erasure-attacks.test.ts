// What an eraser's or an ETL host's login could try, or meet, beside what its command does: holds on what no token
// stands for, settings of the session, arrays of another shape, transactions that are never ended, plans.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash, randomUUID } from "node:crypto";
import type postgres from "postgres";
import { forget, planForget } from "../../src/erasure/forget.ts";
import { addHold, releaseHold } from "../../src/erasure/holds.ts";
import { createDatabase, type Role } from "../support/database.ts";
import { attempt, outcome } from "./attempt.ts";
import { type ErasureScene, FRESH, makeErasureScene } from "./erasure-scene.ts";
import { type Argument, callLoad, countRows, loadArguments } from "./host.ts";

let scene: ErasureScene;
beforeAll(async () => {
  scene = await makeErasureScene();
});
afterAll(() => scene?.database.drop());

const connect = (role: Role): postgres.Sql => scene.database.sql(scene.database.url(role));

/** Its own abbreviation says that UTC is a week away, before the server's list does (since PostgreSQL 18). */
const SHIFTED = "set timezone = 'UTC-167'";

const today = (): string => new Date().toISOString().slice(0, 10);

async function loadOver(
  sql: postgres.Sql,
  bend: (all: Record<string, Argument>) => void = () => {},
) {
  const [ip, user] = [`198.51.100.${Math.floor(Math.random() * 250)}`, randomUUID()];
  const batch = await scene.host.protect([
    { id: randomUUID(), body: { user_id: user, ip, device_id: randomUUID() } },
    { id: randomUUID(), body: { user_id: user, ip, device_id: randomUUID() } },
    { id: randomUUID(), body: "{" },
    { id: randomUUID(), body: "{" },
  ]);
  const all = loadArguments(scene.host, batch);
  bend(all);
  return { user, answer: await outcome(callLoad(sql, all)) };
}

test("a held user is not forgotten, whatever the rows hold: plain values, fresh tokens, nothing", async () => {
  const adopted = await createDatabase();
  try {
    const owner = adopted.sql(adopted.ownerUrl);
    await owner.unsafe(`
      insert into public.user_logins (user_id, masked_ip, masked_device_id) values
        ('plain', '192.0.2.7', 'a phone'), ('mixed', '192.0.2.8', 'ip1_${"a".repeat(26)}'),
        ('fresh', 'ip0_${"a".repeat(26)}', null), ('none', null, null)`);
    const policy = adopted.open(adopted.url("policy"));
    const url = adopted.url("eraser");
    const [eraser, sql] = [adopted.open(url), adopted.sql(url)];
    const rows = () => owner`select * from public.user_logins order by user_id`;
    const before = [...(await rows())];
    for (const user of ["plain", "mixed", "fresh", "none", "who never logged in"]) {
      const hold = await addHold(policy, { user }, "court order");
      const refused = await outcome(sql`select pii_vault.forget_user(${user}, 'request')`);
      expect({ user, refused }).toEqual({ user, refused: "VL040" });
      for (const { outcome } of await planForget(eraser, { user })) expect(outcome).toBe("held");
      expect([...(await rows())]).toEqual(before);
      await releaseHold(policy, hold, "closed");
    }
    const done = await forget(eraser, { user: "plain" }, "request");
    expect(done.receipt).toMatchObject({ plain: 2, rows: 1 });
  } finally {
    await adopted.drop();
  }
});

test("no time zone of a session makes today old, moves a login to another day, or dates a receipt", async () => {
  const { owner, host, as } = scene;
  const loading = connect("etl");
  await loading.unsafe(SHIFTED);
  const { user, answer } = await loadOver(loading);
  expect(answer).toBe("allowed");
  expect((await scene.rowsOf(user)).map((row) => row.create_date)).toEqual([today(), today()]);
  const [quarantined] = await owner`
    select count(*)::int as n from etl.ledger where sent_on <> ${today()}`;
  expect(quarantined?.n).toBe(0);
  // The same message from a host with another time zone is the same message.
  const again = { id: randomUUID(), body: { user_id: "twice", ip: "203.0.113.1" } };
  await host.load(as("etl"), [again]);
  const all = loadArguments(host, await host.protect([again]));
  // And an original that no row has is as old as its sealing.
  await owner`insert into pii_vault.originals (token, period, data_key, sealed)
    select ${scene.ip("203.0.113.2")}, period, data_key, sha256(sealed) || sha256(token::bytea)
      || substring(sealed for 12) from pii_vault.originals limit 1`;
  expect(await callLoad(loading, all)).toMatchObject({ loaded: 0, duplicates: 1 });

  for (const zone of [SHIFTED, "set timezone = 'UTC+167'"]) {
    const erasing = connect("eraser");
    await erasing.unsafe(zone);
    const id = `'${randomUUID()}'`;
    // Of a day that ended 14 days ago, wherever it is asked.
    const young = new Date(Date.now() - 15 * 86_400_000).toISOString().slice(0, 10);
    const call = `select * from pii_vault.expire_period('${young}', true, ${id}, 'r')`;
    expect([zone, await outcome(erasing.unsafe(call))]).toEqual([zone, "VL006"]);
    const plan = await erasing.unsafe(
      "select * from pii_vault.plan_expire(15, true) where first >= $1",
      [young],
    );
    expect([zone, plan.length]).toEqual([zone, 0]);
    for (const dry of [true, false]) {
      const bodies = `select * from pii_vault.expire_bodies(15, ${id}, 'r', ${dry})`;
      expect([zone, { ...(await erasing.unsafe(bodies))[0] }]).toEqual([
        ...[zone, { discarded: 0, held: 0 }],
      ]);
    }
    const [forgotten] = await erasing.unsafe(
      "select receipt ->> 'at' as at from pii_vault.forget_user('twice', 'r')",
    );
    expect(String(forgotten?.at).slice(0, 10)).toBe(today());
  }

  const housekeeping = connect("etl");
  await housekeeping.unsafe(SHIFTED);
  await housekeeping.unsafe("select * from etl.housekeep()");
  const [last] = await owner`
    select max(c.relname) as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'etl.ledger'::regclass and c.relname ~ '^ledger_[0-9]{8}$'`;
  const ahead = new Date(Date.now() + 7 * 86_400_000).toISOString().slice(0, 10);
  expect(last?.name).toBe(`ledger_${ahead.replaceAll("-", "")}`);
  const auditing = connect("auditor");
  await auditing.unsafe(SHIFTED);
  const [days] = await auditing.unsafe("select * from etl.check_invariant('days-add-up')");
  expect(days).toMatchObject({ offenders: "0", examples: [] });

  const named = await owner`
    select p.oid::regprocedure::text as name from pg_proc p
    where p.pronamespace in ('etl'::regnamespace, 'pii_vault'::regnamespace)
      and p.prosrc ~* 'time zone ''|current_(date|time)|localtime'`;
  expect(named.map((row) => row.name)).toEqual([]);
});

test("an array of another shape is refused by a load, and pairs nothing with what is not its own", async () => {
  const { ip, host } = scene;
  await scene.load({ user: "ann", ip: "203.0.113.10" }, { user: "bob", ip: "203.0.113.11" });
  await forget(scene.as("eraser"), { user: "ann" }, "request");
  const sql = connect("etl");
  const before = await countRows(scene.owner);
  const batch = await host.protect([
    { id: randomUUID(), body: { user_id: "ann", ip: "203.0.113.10", device_id: "a" } },
    { id: randomUUID(), body: { user_id: "bob", ip: "203.0.113.11", device_id: "b" } },
    ...[
      { id: randomUUID(), body: "{" },
      { id: randomUUID(), body: "{" },
    ],
  ]);
  const all = loadArguments(host, batch);
  const names = Object.keys(all).filter((name) => String(all[name]).startsWith("{"));
  expect(names.length).toBe(15);
  for (const name of names) {
    const items = String(all[name]);
    const [row] = await scene.owner.unsafe("select cardinality($1::text[]) as length", [items]);
    const shifted = `[0:${Number(row?.length) - 1}]=${items}`;
    expect([name, await outcome(callLoad(sql, { ...all, [name]: shifted }))]).toEqual([
      name,
      "VL014",
    ]);
    const nested = `{${items}}`;
    expect([name, await outcome(callLoad(sql, { ...all, [name]: nested }))]).toEqual([
      name,
      "VL014",
    ]);
  }
  expect(await countRows(scene.owner)).toEqual(before);
  await callLoad(sql, all);
  const [ann] = (await scene.rowsOf("ann")).slice(-1);
  expect(ann!.masked_ip).toMatch(FRESH);
  expect((await scene.rowsOf("bob")).map((row) => row.masked_ip)).toEqual(
    Array(2).fill(ip("203.0.113.11")),
  );
  await scene.expectSound();
});

test("who has asked for no time-outs has them all the same, and shorter ones stay", async () => {
  const settings = async (sql: postgres.Sql) => {
    const [row] = await sql.unsafe(`select current_setting('lock_timeout') as lock,
      current_setting('idle_in_transaction_session_timeout') as idle`);
    return { ...row };
  };
  const load = async (sql: postgres.Sql) => expect((await loadOver(sql)).answer).toBe("allowed");
  const cases = [
    [
      "eraser",
      (sql: postgres.Sql) => sql.unsafe("select pii_vault.forget_user('nobody', 'r')"),
      "5s",
      "10s",
    ],
    [
      "policy",
      (sql: postgres.Sql) => sql.unsafe("select pii_vault.add_hold(null, 'nobody', 'r')"),
      "5s",
      "10s",
    ],
    ["etl", load, "20s", "20s"],
  ] as const;
  for (const [role, work, lock, idle] of cases) {
    for (const [given, ...expected] of [
      ["0", lock, idle],
      ["1d", lock, idle],
      ["2min", lock, idle],
      ["700ms", "700ms", "700ms"],
    ] as const) {
      const sql = connect(role);
      await sql.unsafe(`set lock_timeout = '${given}'; set intervalstyle = 'sql_standard';
        set idle_in_transaction_session_timeout = '${given}'`);
      await sql.unsafe("begin");
      await work(sql);
      expect([role, given, await settings(sql)]).toEqual([
        ...[role, given],
        { lock: expected[0], idle: expected[1] },
      ]);
      await sql.unsafe("rollback");
      await sql.end();
    }
  }
});

test("a plan is on record: of whom, by whom and how much, and no token", async () => {
  const { owner, ip, database } = scene;
  await scene.load({ user: "cid", ip: "203.0.113.20", device: "cid's phone" });
  const eraser = scene.as("eraser");
  await planForget(eraser, { user: "cid" });
  const tokens = [ip("203.0.113.20"), ip("203.0.113.21"), ip("203.0.113.20")];
  await planForget(eraser, { tokens });
  await planForget(eraser, { user: "who never logged in" });
  const digest = (text: string) => createHash("sha256").update(text).digest("hex");
  const entries = await owner`
    select login, tokens, message_ids, items, reason, details from pii_vault.audit
    where action = 'erasure.planned' order by id`;
  const common = { login: database.login("eraser"), tokens: [], message_ids: [], reason: null };
  expect(entries.map((entry) => ({ ...entry }))).toEqual([
    { ...common, items: 2, details: { kind: "user", subject: digest("cid") } },
    {
      ...common,
      items: 2,
      details: { kind: "tokens", subject: digest([...new Set(tokens)].sort().join("\n")) },
    },
    { ...common, items: 0, details: { kind: "user", subject: digest("who never logged in") } },
  ]);
  for (const statement of ["plan_forget_user('cid')", `plan_forget_tokens('{${tokens[0]}}')`]) {
    const sql = connect("eraser");
    await sql.unsafe("set default_transaction_read_only = on");
    expect(await attempt(sql, `select * from pii_vault.${statement}`)).toBe("25006");
  }
});
