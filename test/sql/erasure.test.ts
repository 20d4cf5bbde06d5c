// Forgetting, over real logins: what goes, what others share and keep, what the receipt says, and who may.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash, randomUUID } from "node:crypto";
import { chainAudit } from "../../src/audit/chain.ts";
import { forget, placeOf, planForget, type Subject } from "../../src/erasure/forget.ts";
import { addHold, listHolds, releaseHold } from "../../src/erasure/holds.ts";
import { Failure } from "../../src/failure.ts";
import { array } from "../../src/postgres/values.ts";
import { createDatabase, ROLES } from "../support/database.ts";
import { attempt, outcome } from "./attempt.ts";
import { type ErasureScene, FRESH, makeErasureScene } from "./erasure-scene.ts";

let scene: ErasureScene;
beforeAll(async () => {
  scene = await makeErasureScene();
});
afterAll(() => scene?.database.drop());

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
const eraser = () => scene.as("eraser");
const policy = () => scene.as("policy");

async function refusal(work: Promise<unknown>): Promise<Failure> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

/** All that veil has stored, the record of it included if not said otherwise. */
async function everything(but = ""): Promise<string> {
  const parts: string[] = [];
  for (const table of [
    ...["public.user_logins", "pii_vault.originals", "pii_vault.tombstones", "pii_vault.holds"],
    ...["pii_vault.audit", "etl.quarantine", "etl.ledger"],
  ]) {
    if (table === but) continue;
    const [row] = await scene.owner.unsafe(
      `select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) as digest from ${table} t`,
    );
    parts.push(`${table} ${row?.digest}`);
  }
  return parts.join("\n");
}

test("who shares an address with three others is forgotten, and the others notice nothing", async () => {
  const { load, ip, device, rowsOf, revealed, owner } = scene;
  const [home, cafe, phone] = ["203.0.113.1", "203.0.113.2", "ann's phone"];
  const others = ["bob", "cid", "dan"];
  await load(
    { user: "ann", ip: home, device: phone, day: "2026-01-01" },
    { user: "ann", ip: home, device: phone, day: "2026-01-02" },
    { user: "ann", ip: cafe, device: phone, day: "2026-01-03" },
    { user: "ann", ip: cafe, device: null, day: "2026-01-04" },
    ...others.flatMap((user) => [
      { user, ip: cafe, device: `${user}'s phone`, day: "2026-01-03" },
      { user, ip: cafe, device: `${user}'s phone`, day: "2026-01-05" },
    ]),
  );
  const ofOthers = async () => ({
    rows: await rowsOf(...others),
    duplicates: [
      ...(await owner`
        select masked_ip, count(*)::int as logins, count(distinct user_id)::int as users
        from public.user_logins where user_id = any(${others}) group by 1
        union all
        select masked_device_id, count(*)::int, count(distinct user_id)::int
        from public.user_logins where user_id = any(${others}) group by 1 order by 1`),
    ],
    originals: await revealed(ip(cafe), ...others.map((user) => device(`${user}'s phone`))),
  });
  const before = await ofOthers();
  expect(before.originals).toEqual([cafe, "bob's phone", "cid's phone", "dan's phone"]);
  const shared = async () => {
    const [row] = await owner`
      select users::int, logins::int from public.user_logins_shared_tokens where token = ${ip(cafe)}`;
    return { ...row };
  };
  expect(await shared()).toEqual({ users: 4, logins: 8 });

  const plan = await planForget(eraser(), { user: "ann" });
  const of = (token: string) => plan.find((one) => one.token === token);
  expect(plan.length).toBe(3);
  expect(of(ip(home))).toMatchObject({ field: "ip", outcome: "erase", logins: 2, others: 0 });
  expect(of(ip(cafe))).toMatchObject({ field: "ip", outcome: "keep", logins: 2, others: 3 });
  expect(of(device(phone))).toMatchObject({ field: "device_id", outcome: "erase", logins: 3 });

  const done = await forget(eraser(), { user: "ann" }, "request 2026-118");
  expect(done.receipt).toMatchObject({
    kind: "user",
    subject: sha256("ann"),
    erased: { ip: 1, device_id: 1 },
    kept: { ip: 1, device_id: 0 },
    plain: 0,
    originals: 2,
    rows: 4,
  });
  expect(done.outcomes.map(({ token, outcome }) => [token, outcome]).sort()).toEqual(
    plan.map(({ token, outcome }) => [token, outcome]).sort(),
  );

  // Hers: one fresh token for each old one, in none of the others' rows.
  const hers = await rowsOf("ann");
  expect(hers.map((row) => row.create_date)).toEqual([1, 2, 3, 4].map((day) => `2026-01-0${day}`));
  const [first, second, third, fourth] = hers;
  expect([second!.masked_ip, fourth!.masked_ip]).toEqual([first!.masked_ip, third!.masked_ip]);
  expect([second!.masked_device_id, third!.masked_device_id, fourth!.masked_device_id]).toEqual([
    first!.masked_device_id,
    first!.masked_device_id,
    null,
  ]);
  const fresh = [first!.masked_ip!, third!.masked_ip!, first!.masked_device_id!];
  expect(new Set(fresh).size).toBe(3);
  for (const token of fresh) expect(token).toMatch(FRESH);
  expect(fresh.map((token) => token.slice(0, 4))).toEqual(["ip0_", "ip0_", "dev0"]);

  // Theirs, token by token.
  expect(await ofOthers()).toEqual(before);
  expect(await shared()).toEqual({ users: 3, logins: 6 });
  expect(await revealed(ip(home), ip(cafe), device(phone), ...fresh)).toEqual([
    ...[null, cafe, null],
    ...[null, null, null],
  ]);
  expect(await scene.tombstones(ip(home), ip(cafe), device(phone))).toBe(2);
  await scene.expectSound();
});

test("the next message with a forgotten value gets a token of its own, each time another one", async () => {
  const { load, ip, device, rowsOf } = scene;
  await load({ user: "eve", ip: "203.0.113.10", device: "eve's phone" });
  await forget(eraser(), { user: "eve" }, "request");
  const again = await load(
    { user: "eve", ip: "203.0.113.10", device: "eve's phone" },
    { user: "eve", ip: "203.0.113.10", device: "eve's phone" },
    { user: "eve", ip: "203.0.113.11", device: "eve's phone" },
  );
  expect(again).toMatchObject({ loaded: 3, duplicates: 0, quarantined: 0, newOriginals: 1 });
  const rows = await rowsOf("eve");
  const devices = rows.map((row) => row.masked_device_id);
  expect(new Set(devices).size).toBe(4);
  for (const token of devices) expect(token).toMatch(FRESH);
  expect(rows.filter((row) => row.masked_ip === ip("203.0.113.11")).length).toBe(1);
  expect(rows.filter((row) => FRESH.test(row.masked_ip!)).length).toBe(3);
  expect(await scene.inVault(ip("203.0.113.10"), device("eve's phone"))).toBe(0);
  // Whoever else has the value is in the same place: a tombstone is of a value, not of a person.
  await load({ user: "fay", device: "eve's phone" });
  expect((await rowsOf("fay"))[0]!.masked_device_id).toMatch(FRESH);
  await scene.expectSound();
});

test("where policy lets it, a forgotten value comes back, and one whose tombstone was lifted", async () => {
  const { load, ip, device, rowsOf, owner } = scene;
  const gil = { user: "gil", ip: "203.0.113.20", device: "gil's phone" };
  await load(gil);
  await forget(eraser(), { user: "gil" }, "request");
  await owner`update pii_vault.policies set erased_may_return = true where field = 'ip'`;
  try {
    expect((await load(gil)).newOriginals).toBe(1);
  } finally {
    await owner`update pii_vault.policies set erased_may_return = false where field = 'ip'`;
  }
  expect(await scene.tombstones(ip(gil.ip), device(gil.device))).toBe(1);
  const lift = async (tokens: string[], reason: string | null) => {
    const [row] = await policy().query("select pii_vault.lift_tombstones($1, $2) as n", [
      array(tokens),
      reason,
    ]);
    return Number(row?.n);
  };
  expect((await refusal(lift([device(gil.device)], null))).code).toBe("VL030");
  expect(await lift([device(gil.device), ip(gil.ip)], "the user is back")).toBe(1);
  expect((await load(gil)).newOriginals).toBe(1);
  expect(await scene.revealed(ip(gil.ip), device(gil.device))).toEqual([gil.ip, gil.device]);
  const rows = await rowsOf("gil");
  expect(rows.filter((row) => row.masked_ip === ip(gil.ip)).length).toBe(2);
  expect(rows.filter((row) => row.masked_device_id === device(gil.device)).length).toBe(1);
  const [entry] = await owner`
    select tokens, items, reason from pii_vault.audit where action = 'tombstone.lifted'`;
  expect({ ...entry }).toEqual({
    tokens: [device(gil.device)],
    items: 1,
    reason: "the user is back",
  });
  await scene.expectSound();
});

test("tokens are forgotten one by one: of one user, of nobody, shared, unknown, before", async () => {
  const { load, ip, device, rowsOf, owner } = scene;
  await load(
    { user: "hal", ip: "203.0.113.30", device: "hal's phone" },
    { user: "hal", ip: "203.0.113.30", device: "hal's phone" },
    { user: "ida", ip: "203.0.113.31", device: "ida's phone" },
    { user: "jim", ip: "203.0.113.31", device: "jim's phone" },
    { user: "kim", ip: "203.0.113.32", device: null },
  );
  // An original without a row, as a decoy is one, too.
  const lone = ip("203.0.113.33");
  const decoy = ip("203.0.113.34");
  await owner`insert into pii_vault.originals (token, period, data_key, sealed)
    select t, period, data_key, sha256(sealed || t::bytea) || sha256(sealed) || substring(sealed for 12)
    from pii_vault.originals, unnest(${[lone, decoy]}::text[]) t where token = ${ip("203.0.113.30")}`;
  await owner`insert into pii_vault.canaries (token) values (${decoy})`;
  const tokens = [
    ip("203.0.113.30"),
    ip("203.0.113.31"),
    device("hal's phone"),
    lone,
    ip("203.0.113.99"),
    `dev0_${"a".repeat(26)}`,
    decoy,
    ip("203.0.113.30"),
  ];
  const outcomes = ["erase", "keep", "erase", "erase", "unknown", "unknown", "unknown"];
  const plan = await planForget(eraser(), { tokens });
  expect(plan.map(({ token, outcome }) => [token, outcome])).toEqual(
    tokens.slice(0, 7).map((token, i) => [token, outcomes[i]!]),
  );
  expect(plan.slice(0, 4).map(({ logins, others }) => [logins, others])).toEqual([
    ...[
      [2, 0],
      [2, 1],
      [2, 0],
    ],
    [0, 0],
  ]);
  const done = await forget(eraser(), { tokens }, "case 1");
  expect(done.outcomes.map(({ token, outcome }) => [token, outcome])).toEqual(
    plan.map(({ token, outcome }) => [token, outcome]),
  );
  expect(done.receipt).toMatchObject({
    kind: "tokens",
    erased: { ip: 2, device_id: 1 },
    kept: { ip: 1, device_id: 0 },
    originals: 3,
    rows: 2,
  });
  const [one, two] = await rowsOf("hal");
  expect(one).toEqual(two!);
  expect(one!.masked_ip).toMatch(FRESH);
  expect(await rowsOf("ida", "jim")).toMatchObject([
    { masked_ip: ip("203.0.113.31") },
    { masked_ip: ip("203.0.113.31") },
  ]);
  expect(await scene.inVault(decoy)).toBe(1);
  await owner`delete from pii_vault.canaries where token = ${decoy}`;
  // Once more: nothing is left to do, and that is on record too.
  const again = await forget(eraser(), { tokens: tokens.slice(0, 3) }, "case 1");
  expect(again.outcomes.map((one) => one.outcome)).toEqual(["forgotten", "keep", "forgotten"]);
  expect(again.receipt).toMatchObject({ erased: { ip: 0, device_id: 0 }, rows: 0 });
  expect(again.receipt.digest).toBe(sha256(""));
  await scene.expectSound();
});

test("a user without rows, without values, and forgotten before: nothing to do, on record", async () => {
  await scene.load({ user: "lea" }, { user: "may", ip: "203.0.113.40" });
  await forget(eraser(), { user: "may" }, "request");
  const rows = await scene.rowsOf("may");
  for (const user of ["nobody at all", "lea", "may"]) {
    expect(await planForget(eraser(), { user })).toEqual([]);
    const { receipt, outcomes } = await forget(eraser(), { user }, "request");
    expect(outcomes).toEqual([]);
    expect(receipt).toMatchObject({ erased: { ip: 0, device_id: 0 }, originals: 0, rows: 0 });
    expect(receipt.subject).toBe(sha256(user));
  }
  expect(await scene.rowsOf("may")).toEqual(rows);
});

test("the receipt is what the audit has, says nothing of what was erased, and is in the chain", async () => {
  const { load, ip, device, owner } = scene;
  await load({ user: "ned o'user", ip: "203.0.113.50", device: "ned's phone" });
  const gone = [ip("203.0.113.50"), device("ned's phone")].sort();
  const { entry, receipt } = await forget(eraser(), { user: "ned o'user" }, "request 7");
  const [row] = await owner`select * from pii_vault.audit where id = ${entry}`;
  expect(row).toMatchObject({
    action: "erasure.forget",
    login: scene.database.login("eraser"),
    tokens: [],
    message_ids: [],
    items: 2,
    reason: "request 7",
  });
  expect(row?.details).toEqual(receipt);
  expect(receipt.digest).toBe(sha256(gone.join("\n")));
  const stones = await owner`
    select token from pii_vault.tombstones where erasure = ${receipt.erasure}`;
  expect(
    sha256(
      stones
        .map((stone) => String(stone.token))
        .sort()
        .join("\n"),
    ),
  ).toBe(receipt.digest);
  for (const said of [...gone, "203.0.113.50", "ned"]) {
    expect(JSON.stringify(row)).not.toContain(said);
  }
  expect(await placeOf(eraser(), entry)).toBeNull();
  expect(await chainAudit(eraser())).toBe(true);
  const [chained] = await owner`
    select position::int, encode(hash, 'hex') as hash from pii_vault.audit_chain
    where entry = ${entry}`;
  expect((await placeOf(eraser(), entry)) as object).toEqual({ ...chained });
  // Of one's own entries only.
  const other = scene.database.open(await scene.database.addLogin("eraser"));
  expect(await placeOf(other, entry)).toBeNull();
  const [request] = await owner`
    select max(id)::int as id from pii_vault.audit where action = 'reveal.request'`;
  expect(await placeOf(eraser(), Number(request?.id))).toBeNull();
});

test("a dry run changes nothing but for the record of it", async () => {
  const { load, ip } = scene;
  await load({ user: "oda", ip: "203.0.113.60", device: "oda's phone" });
  const before = await everything("pii_vault.audit");
  expect((await planForget(eraser(), { user: "oda" })).length).toBe(2);
  expect((await planForget(eraser(), { tokens: [ip("203.0.113.60")] })).length).toBe(1);
  expect(await everything("pii_vault.audit")).toBe(before);
});

test("nothing is forgotten without a reason, for what is no token, and for too much", async () => {
  const { load, ip } = scene;
  await load({ user: "pam", ip: "203.0.113.70" });
  const before = await everything();
  const sql = scene.database.sql(scene.database.url("eraser"));
  const token = `'${ip("203.0.113.70")}'`;
  for (const [statement, code] of [
    [`forget_user('pam', null)`, "VL030"],
    [`forget_user('pam', '  ')`, "VL030"],
    [`forget_user('pam', repeat('x', 1001))`, "VL006"],
    [`forget_user(null, 'r')`, "VL006"],
    [`forget_user('', 'r')`, "VL006"],
    [`forget_user(repeat('x', 129), 'r')`, "VL006"],
    [`forget_tokens(array[${token}], null)`, "VL030"],
    [`forget_tokens(null, 'r')`, "VL006"],
    [`forget_tokens('{}', 'r')`, "VL006"],
    [`forget_tokens(array[${token}, null], 'r')`, "VL006"],
    [`forget_tokens(array['203.0.113.70'], 'r')`, "VL006"],
    [`forget_tokens(array[array[${token}]], 'r')`, "VL006"],
    [`forget_tokens(array_fill(${token}::text, array[100001]), 'r')`, "VL006"],
    [`plan_forget_tokens(array['203.0.113.70'])`, "VL006"],
    [`plan_forget_user('')`, "VL006"],
  ] as const) {
    const full = `select * from pii_vault.${statement}`;
    expect([statement, await attempt(sql, full)]).toEqual([statement, code]);
  }
  await sql.unsafe("begin isolation level repeatable read");
  expect(await outcome(sql.unsafe("select pii_vault.forget_user('pam', 'r')"))).toBe("VL015");
  await sql.unsafe("rollback");
  expect(await everything()).toBe(before);
});

test("a login whose default is another isolation level can forget", async () => {
  const { load, ip, owner, database } = scene;
  await load({ user: "quin", ip: "203.0.113.80" });
  const url = await database.addLogin("eraser");
  const login = new URL(url).username;
  await owner.unsafe(`alter role ${login} set default_transaction_isolation = 'serializable'`);
  await forget(database.open(url), { user: "quin" }, "request");
  expect(await scene.tombstones(ip("203.0.113.80"))).toBe(1);
});

test("a hold stands against forgetting, all of it, until it is released; so does one on another user", async () => {
  const { load, ip, device } = scene;
  await load(
    { user: "rob", ip: "203.0.113.90", device: "rob's phone" },
    { user: "sue", ip: "203.0.113.91", device: "rob's phone" },
    { user: "tom", ip: "203.0.113.92", device: "tom's phone" },
  );
  const before = await scene.rowsOf("rob", "sue", "tom");
  const refused = async (subject: Subject, ...tokens: string[]) => {
    const { code, message } = await refusal(forget(eraser(), subject, "request"));
    expect(code).toBe("VL040");
    expect([...(message.match(/(ip|dev)1_\w+/g) ?? [])].sort()).toEqual(tokens.sort());
    return message;
  };
  const held = [ip("203.0.113.90"), device("rob's phone"), ip("203.0.113.91")];

  const onToken = await addHold(policy(), { token: ip("203.0.113.90") }, "case 1");
  expect(await refused({ user: "rob" }, held[0]!)).toStartWith("1 of 2 tokens");
  await refused({ tokens: [held[0]!, ip("203.0.113.92")] }, held[0]!);
  await releaseHold(policy(), onToken, "case 1 is closed");

  const onUser = await addHold(policy(), { user: "sue" }, "case 2");
  await refused({ user: "sue" }, held[1]!, held[2]!);
  // Shared with her, so it is kept whatever happens; his rows are what must not change.
  await refused({ user: "rob" }, held[1]!);
  await refused({ tokens: [held[2]!] }, held[2]!);
  const plan = await planForget(eraser(), { user: "rob" });
  expect(plan.map(({ outcome }) => outcome).sort()).toEqual(["erase", "held"]);
  await addHold(policy(), { user: "who never logged in" }, "case 3");
  const { code, message } = await refusal(
    forget(eraser(), { user: "who never logged in" }, "request"),
  );
  expect({ code, message }).toEqual({
    code: "VL040",
    message: "this user is under a legal hold, so nothing was erased",
  });
  expect(await scene.rowsOf("rob", "sue", "tom")).toEqual(before);
  expect(await scene.tombstones(...held)).toBe(0);

  await releaseHold(policy(), onUser, "case 2 is closed");
  expect((await refusal(releaseHold(policy(), onUser, "again"))).code).toBe("VL042");
  expect((await refusal(releaseHold(policy(), randomUUID(), "x"))).code).toBe("VL042");
  await forget(eraser(), { user: "rob" }, "request");
  expect(await scene.tombstones(...held)).toBe(1);

  expect((await listHolds(eraser(), false)).map(({ user }) => user)).toEqual([
    "who never logged in",
  ]);
  const all = await listHolds(policy(), true);
  expect(all.map(({ reason, releaseReason }) => [reason, releaseReason])).toEqual([
    ["case 1", "case 1 is closed"],
    ["case 2", "case 2 is closed"],
    ["case 3", null],
  ]);
  const entries = await scene.owner`
    select action, tokens, reason, details from pii_vault.audit
    where action in ('hold.added', 'hold.released') order by id`;
  expect(entries.map((entry) => [entry.action, entry.tokens, entry.reason])).toEqual([
    ["hold.added", [held[0]!], "case 1"],
    ["hold.released", [held[0]!], "case 1 is closed"],
    ["hold.added", [], "case 2"],
    ["hold.added", [], "case 3"],
    ["hold.released", [], "case 2 is closed"],
  ]);
  expect(entries[2]!.details).toEqual({ hold: onUser, kind: "user", subject: sha256("sue") });
  await releaseHold(policy(), all[2]!.id, "done");
});

test("a hold is of one token or one user, and has a reason", async () => {
  const sql = scene.database.sql(scene.database.url("policy"));
  const token = `'${scene.ip("203.0.113.1")}'`;
  for (const [values, code] of [
    [`null, null, 'r'`, "VL006"],
    [`${token}, 'u', 'r'`, "VL006"],
    [`'203.0.113.1', null, 'r'`, "VL006"],
    [`'ip0_${"a".repeat(26)}', null, 'r'`, "VL006"],
    [`null, '', 'r'`, "VL006"],
    [`${token}, null, null`, "VL030"],
    [`${token}, null, 'r'`, "allowed"],
  ] as const) {
    expect([values, await attempt(sql, `select pii_vault.add_hold(${values})`)]).toEqual([
      values,
      code,
    ]);
  }
});

test("tombstones and holds take no write from any role, and tombstones no change from their owner", async () => {
  for (const role of ROLES) {
    const sql = scene.database.sql(scene.database.url(role));
    for (const statement of [
      "insert into pii_vault.tombstones (token) values ('x')",
      "delete from pii_vault.tombstones",
      "update pii_vault.tombstones set erased_at = now()",
      "insert into pii_vault.holds (token) values ('x')",
      "update pii_vault.holds set released_at = now()",
      "lock table pii_vault.erasure_gate in row share mode",
      "select pii_vault.close_gate()",
      "select pii_vault.bury('{}', gen_random_uuid())",
      ...(role === "eraser" ? [] : ["select pii_vault.forget_user('ann', 'r')"]),
      ...(role === "policy" ? [] : ["select pii_vault.add_hold(null, 'ann', 'r')"]),
      ...(role === "policy" ? [] : ["select pii_vault.lift_tombstones('{}', 'r')"]),
    ]) {
      expect([role, statement, await attempt(sql, statement)]).toEqual([role, statement, "42501"]);
    }
    await sql.end();
  }
  await scene.owner.unsafe("set role veil_owner");
  for (const statement of [
    "update pii_vault.tombstones set erased_at = now()",
    "truncate pii_vault.tombstones",
    "delete from pii_vault.holds",
    "truncate pii_vault.holds",
  ]) {
    expect([statement, await attempt(scene.owner, statement)]).toEqual([statement, "VL020"]);
  }
  await scene.owner.unsafe("reset role");
});

test("where user_logins does not take a change, nothing is erased", async () => {
  const { load, ip, owner } = scene;
  await load({ user: "una", ip: "203.0.113.100" });
  await owner.unsafe(`
    create function public.drops() returns trigger language plpgsql as 'begin return null; end';
    create trigger drops before update on public.user_logins
      for each row execute function public.drops()`);
  try {
    expect((await refusal(forget(eraser(), { user: "una" }, "request"))).code).toBe("VL016");
    const tokens = [ip("203.0.113.100")];
    expect((await refusal(forget(eraser(), { tokens }, "request"))).code).toBe("VL016");
  } finally {
    await owner.unsafe("drop trigger drops on public.user_logins; drop function public.drops()");
  }
  expect(await scene.inVault(ip("203.0.113.100"))).toBe(1);
});

test("an analyze keeps no sample of a seal", async () => {
  const { owner } = scene;
  await owner.unsafe("analyze pii_vault.originals; analyze etl.quarantine");
  const rows = await owner`
    select tablename, attname from pg_stats where schemaname in ('pii_vault', 'etl')
      and tablename in ('originals', 'quarantine')`;
  expect(rows.some((row) => row.tablename === "originals" && row.attname === "token")).toBe(true);
  expect(rows.filter((row) => row.attname === "sealed")).toEqual([]);
});

// The recipe of docs/erasure.md. The backup here is a copy of the rows; the tombstones are of after it.
test("after a restore, what was forgotten since the backup is forgotten again", async () => {
  const { load, ip, device, owner } = scene;
  await load(
    { user: "vic", ip: "203.0.113.110", device: "vic's phone" },
    { user: "wes", ip: "203.0.113.110", device: "wes's phone" },
    { user: "xia", ip: "203.0.113.111", device: "xia's phone" },
  );
  await owner.unsafe(`
    create table public.kept_rows as table public.user_logins;
    create table public.kept_originals as table pii_vault.originals`);
  const since = new Date();
  await forget(eraser(), { user: "vic" }, "request");
  await forget(eraser(), { tokens: [device("xia's phone")] }, "request");

  const tokens = await owner`
    select token from pii_vault.tombstones where erased_at > ${since}`;
  const subjects = await owner`
    select details ->> 'subject' as digest from pii_vault.audit
    where action = 'erasure.forget' and details ->> 'subject' is not null and at > ${since}`;
  await owner.unsafe(`
    delete from pii_vault.tombstones t using public.kept_originals k where k.token = t.token;
    delete from public.user_logins;
    insert into public.user_logins table public.kept_rows;
    insert into pii_vault.originals table public.kept_originals on conflict do nothing;
    drop table public.kept_rows, public.kept_originals`);
  expect(await scene.inVault(device("vic's phone"), device("xia's phone"))).toBe(2);

  const users = await owner`
    select distinct user_id from public.user_logins
    where encode(sha256(convert_to(user_id, 'UTF8')), 'hex') = any(${subjects.map((row) => row.digest)})`;
  expect(users.map((row) => row.user_id)).toEqual(["vic"]);
  for (const row of users) await forget(eraser(), { user: row.user_id }, "restored");
  await forget(eraser(), { tokens: tokens.map((row) => row.token) }, "restored");
  expect(await scene.inVault(device("vic's phone"), device("xia's phone"))).toBe(0);
  expect(await scene.revealed(ip("203.0.113.110"), device("xia's phone"))).toEqual([
    "203.0.113.110",
    null,
  ]);
  for (const row of await scene.rowsOf("vic")) {
    expect([row.masked_ip, row.masked_device_id].every((token) => FRESH.test(token!))).toBe(true);
  }
  expect((await scene.rowsOf("wes"))[0]!.masked_ip).toBe(ip("203.0.113.110"));
  await scene.expectSound();
});

test("whatever a user's rows hold is replaced, a token or not, and each spelling by itself", async () => {
  const adopted = await createDatabase();
  try {
    const owner = adopted.sql(adopted.ownerUrl);
    await owner.unsafe(`
      insert into public.user_logins (user_id, masked_ip, masked_device_id) values
        ('ann', '192.0.2.7', 'A phone'), ('ann', '192.0.2.7', 'a phone'), ('ann', null, ''),
        ('Ann', '192.0.2.7', 'A phone'), (null, '192.0.2.7', null), (null, null, null)`);
    const eraserUrl = adopted.url("eraser");
    const done = await forget(adopted.open(eraserUrl), { user: "ann" }, "request");
    expect(done.receipt).toMatchObject({ plain: 4, rows: 3, erased: { ip: 0, device_id: 0 } });
    expect(done.outcomes).toEqual(
      ["ip", "device_id", "device_id", "device_id"].map((field, i) => ({
        ...{ token: null, field, logins: i === 0 ? 2 : 1, outcome: "replace" },
      })) as never,
    );
    const rows = await owner`select * from public.user_logins order by user_id collate "C"`;
    const hers = rows.filter((row) => row.user_id === "ann");
    const values = hers.flatMap((row) => [row.masked_ip, row.masked_device_id]);
    expect(new Set(values).size).toBe(5);
    for (const value of values) if (value !== null) expect(value).toMatch(FRESH);
    expect(hers[0]!.masked_ip ?? hers[1]!.masked_ip).not.toBeNull();
    expect(rows.filter((row) => row.masked_ip === "192.0.2.7").length).toBe(2);
    const again = await forget(adopted.open(eraserUrl), { user: "Ann" }, "request");
    expect(again.receipt).toMatchObject({ plain: 2, rows: 1 });
  } finally {
    await adopted.drop();
  }
});
