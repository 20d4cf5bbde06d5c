// A table user_logins of before veil: it gets another name and keeps all that it had; its rows are copied into periods.
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import type postgres from "postgres";
import { TEXTS } from "../../sql/texts.ts";
import { forget } from "../../src/erasure/forget.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { veil } from "../support/veil.ts";
import { outcome } from "./attempt.ts";
import { makeHost } from "./host.ts";
import {
  asSuperuser,
  brokenInvariants,
  COLUMNS,
  expectSideBySide,
  periodsOf,
  refusal,
  shapeOf,
  token,
} from "./old-table.ts";

let database: TestDatabase;
let admin: postgres.Sql;
const logins: string[] = [];
beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  admin = database.sql(database.ownerUrl);
});
afterEach(async () => {
  for (const login of logins.splice(0)) {
    await admin.unsafe(
      `reassign owned by ${login} to current_user; drop owned by ${login} cascade`,
    );
    await admin.unsafe(`drop role ${login}`);
  }
  await database.drop();
});

async function addLogin(kind: string, options = ""): Promise<string> {
  const login = `test_${kind}_${randomBytes(5).toString("hex")}`;
  await admin.unsafe(`create role ${login} login ${options} password 'test'`);
  logins.push(login);
  return login;
}

function urlOf(login: string): string {
  const url = new URL(database.ownerUrl);
  url.username = login;
  url.password = "test";
  return url.href;
}

const day = (offset: number): string =>
  new Date(Date.now() + offset * 86_400_000).toISOString().slice(0, 10);

/** Each kind of value and of day that such a table may hold. */
async function fill(): Promise<void> {
  const insert = (...row: (string | null)[]) =>
    admin`insert into public.user_logins (user_id, masked_ip, masked_device_id, create_date)
      values (${row[0]!}, ${row[1]!}, ${row[2]!}, ${row[3]!}::text::date)`;
  await insert("ann", "192.0.2.1", "a phone", "2019-03-31");
  await insert("ann", "192.0.2.1", null, "2019-04-01");
  await insert("ann", token("ip", "b", 0), "", null);
  await insert("ann", "192.0.2.1", "a phone", day(0));
  await insert("bob", token("ip", "b"), token("dev", "b"), "2019-04-01");
  await insert("bob", token("ip", "b"), token("ip", "b"), null);
  await insert(null, null, null, day(-20));
  await insert("eve", token("ip", "c"), null, "infinity");
  await insert("eve", "old", "old", "-infinity");
  await insert("eve", "old", "old", "0044-03-15 BC");
  await insert("eve", "soon", token("dev", "c", 7), "2999-01-01");
}

const rowsOf = async (table: string): Promise<string[]> =>
  (await admin.unsafe(`select l::text as line from ${table} l order by 1`)).map(({ line }) =>
    String(line),
  );

test("the published table is copied, and is left as it was under its other name", async () => {
  const [keeper, reader, half, writer] = await Promise.all(
    ["keeper", "reader", "half", "writer"].map((kind) => addLogin(kind)),
  );
  await admin.unsafe(`
    create table public.user_logins (${COLUMNS});
    create index user_logins_user_id_idx on public.user_logins (lower(user_id)) where user_id <> '';
    create view public.recent as select user_id from public.user_logins;
    create rule noted as on update to public.user_logins do also select 1;
    create function public.noted() returns trigger language plpgsql as 'begin return new; end';
    create trigger noted before insert on public.user_logins for each row execute function public.noted();
    grant select on public.user_logins to ${reader};
    grant select (user_id, locale) on public.user_logins to ${half};
    grant insert on public.user_logins to ${writer};
    alter table public.user_logins owner to ${keeper}`);
  await fill();
  const before = await rowsOf("public.user_logins");
  const [old] = await admin`select 'public.user_logins'::regclass::oid as oid`;

  const migrated = await asSuperuser(database);
  expect(migrated.applied).toEqual([...TEXTS.steps.map(({ name }) => name), "functions"]);
  expect(migrated.copied).toEqual({ rows: 11, plainValues: 12, foreignTokens: 5 });
  expect(await rowsOf("public.user_logins")).toEqual(before);
  expect(await rowsOf("public.user_logins_before_veil")).toEqual(before);
  expect(await brokenInvariants(database)).toEqual([]);

  const [kept] = await admin`
    select c.oid, c.relowner::regrole::text as owner,
      (select count(*)::int from pg_catalog.pg_index i where i.indrelid = c.oid) as indexes,
      (select count(*)::int from pg_catalog.pg_trigger t where t.tgrelid = c.oid) as triggers,
      (select count(*)::int from pg_catalog.pg_rewrite r where r.ev_class = c.oid) as rules,
      pg_catalog.pg_get_viewdef('public.recent'::regclass) as view
    from pg_catalog.pg_class c where c.oid = 'public.user_logins_before_veil'::regclass`;
  expect({ ...kept }).toMatchObject({
    oid: old?.oid,
    owner: keeper,
    indexes: 1,
    triggers: 1,
    rules: 1,
  });
  expect(kept?.view).toContain("user_logins_before_veil");

  const reading = (login: string, what = "*") =>
    outcome(database.sql(urlOf(login)).unsafe(`select ${what} from public.user_logins`));
  expect(await reading(reader!)).toBe("allowed");
  expect(await reading(keeper!)).toBe("allowed");
  expect(await reading(half!, "user_id, locale")).toBe("allowed");
  expect(await reading(half!)).toBe("42501");
  expect(await reading(writer!)).toBe("42501");
  const [rights] = await admin`
    select pg_catalog.string_agg(distinct a.privilege_type, ',') as all from pg_catalog.pg_class c,
      pg_catalog.aclexplode(c.relacl) a
    where c.oid = 'public.user_logins'::regclass and a.grantee <> c.relowner`;
  expect(rights?.all).toBe("SELECT");

  const again = await asSuperuser(database);
  expect(again).toMatchObject({ applied: [], copied: null });
  expect(await rowsOf("public.user_logins")).toEqual(before);
});

test("whoever could select it as PUBLIC still can", async () => {
  const anybody = await addLogin("anybody");
  await admin.unsafe(`create table public.user_logins (${COLUMNS});
    grant select on public.user_logins to public`);
  await asSuperuser(database);
  expect(await outcome(database.sql(urlOf(anybody))`select from public.user_logins`)).toBe(
    "allowed",
  );
});

test("where policies said who sees which rows, all are copied, and no right to select is handed on", async () => {
  const reader = await addLogin("reader");
  await admin.unsafe(`create table public.user_logins (${COLUMNS});
    insert into public.user_logins (user_id) values ('ann'), ('bob');
    alter table public.user_logins enable row level security;
    alter table public.user_logins force row level security;
    create policy own on public.user_logins using (user_id = current_user);
    grant select on public.user_logins to ${reader}`);
  expect((await asSuperuser(database)).copied?.rows).toBe(2);
  expect(await outcome(database.sql(urlOf(reader))`select from public.user_logins`)).toBe("42501");
  const [policies] = await admin`select count(*)::int as n from pg_catalog.pg_policy
    where polrelid = 'public.user_logins_before_veil'::regclass`;
  expect(policies?.n).toBe(1);
});

test("rows stand in the months of their days, side by side with those that housekeeping makes", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS})`);
  await fill();
  await asSuperuser(database);
  const periods = await periodsOf(admin);
  expect(periods.slice(0, 2)).toEqual([
    { first: "2019-03-01", until: "2019-04-01" },
    { first: "2019-04-01", until: "2019-05-01" },
  ]);
  expectSideBySide(periods.slice(2));
  const places = await admin`
    select tableoid::regclass::text as place, count(*)::int as rows
    from public.user_logins group by 1 order by 1`;
  const counts = Object.fromEntries(places.map(({ place, rows }) => [place, rows]));
  expect(counts).toMatchObject({
    "etl.user_logins_20190301": 1,
    "etl.user_logins_20190401": 2,
    "etl.user_logins_without_date": 2,
    "etl.user_logins_without_period": 4,
  });
  // Day after day, for a year, and past days that nobody has a period for.
  await admin.unsafe("set role veil_owner");
  for (let n = 0; n < 400; n += 20) await admin`select etl.housekeep_on(${day(n)}::date)`;
  await admin.unsafe("reset role");
  expectSideBySide((await periodsOf(admin)).slice(2));
  expect(await brokenInvariants(database)).toEqual([]);
});

test("with weeks, the last month ends where the first week begins", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS});
    insert into public.user_logins (create_date)
    select (now() at time zone 'UTC')::date - n from generate_series(0, 400) n`);
  expect(await asSuperuser(database, "week")).toMatchObject({
    period: "week",
    copied: { rows: 401 },
  });
  const periods = await periodsOf(admin);
  expectSideBySide(periods);
  const weeks = periods.filter(
    ({ first, until }) => Date.parse(until) - Date.parse(first) === 7 * 86_400_000,
  );
  expect(weeks.length).toBeGreaterThan(6);
  for (const { first } of weeks) expect(new Date(first).getUTCDay()).toBe(1);
  const [left] = await admin`select count(*)::int as n from etl.user_logins_default`;
  expect(left?.n).toBe(0);
});

test("of very many months, the newest 240 are periods, and the others' rows are found all the same", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS});
    insert into public.user_logins (user_id, create_date)
    select 'u' || n, date '1990-01-15' + make_interval(months => n) from generate_series(0, 419) n`);
  expect((await asSuperuser(database)).copied?.rows).toBe(420);
  const periods = await periodsOf(admin);
  const months = periods.filter(({ first }) => first < day(-70));
  expect(months.length).toBeLessThanOrEqual(240);
  expect(months.length).toBeGreaterThan(230);
  const [row] = await admin`
    select tableoid::regclass::text as place from public.user_logins where create_date = '1990-01-15'`;
  expect(row?.place).toBe("etl.user_logins_without_period");
  expect(await brokenInvariants(database)).toEqual([]);
});

test("loads go on beside copied rows, and what is lost or put there later is noticed", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS})`);
  await fill();
  await asSuperuser(database);
  const host = await makeHost();
  const etl = database.open(await database.addLogin("etl"));
  const loaded = await host.load(etl, [
    { id: "m1", body: { user_id: "ann", ip: "192.0.2.1", device_id: "a phone" } },
    { id: "m2", body: { user_id: "zoe", ip: "192.0.2.9" } },
  ]);
  expect(loaded).toMatchObject({ loaded: 2, newOriginals: 3 });
  expect(await brokenInvariants(database)).toEqual([]);
  const lost = host.token("ip", "192.0.2.9");
  await admin`delete from pii_vault.originals where token = ${lost}`;
  expect(await brokenInvariants(database)).toEqual([`tokens-have-originals 1: ${lost}`]);
  // On a day and without a day where other tokens were copied.
  await admin`delete from public.user_logins where user_id = 'zoe'`;
  await admin`update etl.adopted set tokens = tokens - 1 where day is null or day = '2019-04-01'`;
  const broken = await brokenInvariants(database);
  expect(broken[0]).toStartWith("tokens-have-originals 2: dev1_b");
});

test("forgetting a user replaces what was copied, in each period and without a date", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS})`);
  await fill();
  await asSuperuser(database);
  const eraser = database.open(await database.addLogin("eraser"));
  const { outcomes, receipt } = await forget(eraser, { user: "ann" }, "request");
  expect(outcomes.map((one) => one.outcome)).toEqual(outcomes.map(() => "replace"));
  expect(receipt).toMatchObject({ rows: 4, plain: 3 });
  const left = await admin`
    select masked_ip, masked_device_id, create_date from public.user_logins where user_id = 'ann'`;
  expect(left.length).toBe(4);
  for (const { masked_ip, masked_device_id } of left) {
    expect(masked_ip).toMatch(/^ip0_[a-z2-7]{26}$/);
    if (masked_device_id !== null) expect(masked_device_id).toMatch(/^dev0_[a-z2-7]{26}$/);
  }
  expect(await brokenInvariants(database)).toEqual([]);
});

test("a table that somebody uses all the time stays as it is, and it is said", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS})`);
  const other = database.sql(database.ownerUrl);
  await other.unsafe("begin; select from public.user_logins");
  const [step] = TEXTS.steps.filter(({ before }) => before !== undefined);
  const renaming = admin.begin(async (transaction) => {
    await transaction.unsafe(
      "set local search_path = pg_catalog, pg_temp; set local lock_timeout = '50ms'",
    );
    await transaction.unsafe(String(step?.before));
  });
  const refused = await renaming.then(
    () => null,
    (error: { code?: string; message?: string }) => error,
  );
  expect([refused?.code, refused?.message]).toEqual([
    "55P03",
    "public.user_logins is in use, and is to be renamed; nothing was changed",
  ]);
  await other.unsafe("rollback");
});

test("twenty at once copy it once", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS})`);
  await fill();
  const done = await Promise.all(Array.from({ length: 20 }, () => asSuperuser(database)));
  expect(done.filter(({ copied }) => copied !== null).map(({ copied }) => copied?.rows)).toEqual([
    11,
  ]);
  expect((await rowsOf("public.user_logins")).length).toBe(11);
});

describe("a login that is no superuser", () => {
  async function ownDatabase(): Promise<string> {
    // The roles are there, whoever made them.
    const other = await createDatabase();
    const login = await addLogin("owner", "createrole");
    await admin.unsafe(`
      grant veil_owner, veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor, veil_policy,
        veil_approver, veil_breakglass, veil_eraser to ${login} with admin option;
      alter database ${database.name} owner to ${login};
      alter schema public owner to pg_database_owner`);
    await other.drop();
    return login;
  }

  test("copies a table of its own", async () => {
    const login = await ownDatabase();
    await admin.unsafe(`create table public.user_logins (${COLUMNS});
      alter table public.user_logins owner to ${login};
      alter table public.user_logins enable row level security`);
    await fill();
    expect((await migrate(database.open(urlOf(login)))).copied?.rows).toBe(11);
    const [right] = await admin`
      select has_table_privilege(${login}, 'public.user_logins_before_veil', 'select') as old,
        exists (
          select from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
          where c.oid = 'public.user_logins'::regclass and a.grantee = ${login}::regrole
            and a.privilege_type = 'INSERT'
        ) as may_insert`;
    expect({ ...right }).toEqual({ old: true, may_insert: false });
    expect(await brokenInvariants(database)).toEqual([]);
  });

  test("is told what to run where the table is another's, or filtered for its owner too", async () => {
    const login = await ownDatabase();
    const keeper = await addLogin("keeper");
    await admin.unsafe(`create table public.user_logins (${COLUMNS});
      alter table public.user_logins owner to ${keeper};
      alter table public.user_logins enable row level security;
      alter table public.user_logins force row level security;
      revoke select on public.user_logins from ${keeper}`);
    await fill();
    const before = await shapeOf(admin);
    for (const expected of [
      /grant \S+ to \S+;$/,
      /grant select on .*;$/,
      /no force row level security;$/,
    ]) {
      const refused = await refusal(migrate(database.open(urlOf(login))));
      expect([refused.exitCode, refused.code]).toEqual([1, "VL090"]);
      expect(refused.message).toContain("may not rename and read it");
      const [run = ""] = expected.exec(refused.hint ?? "") ?? [];
      expect(refused.hint).toMatch(expected);
      expect((await shapeOf(admin)).map(({ name }) => name)).toEqual(
        before.map(({ name }) => name),
      );
      await admin.unsafe(
        run.startsWith("no") ? "alter table public.user_logins no force row level security" : run,
      );
    }
    expect((await migrate(database.open(urlOf(login)))).copied?.rows).toBe(11);
  });
});

test("the command says how much was copied, and what of it is no token", async () => {
  await admin.unsafe(`create table public.user_logins (${COLUMNS})`);
  await fill();
  const env = { DATABASE_URL: database.ownerUrl };
  const run = await veil(["migrate", "--period", "day"], { env });
  expect(run.code).toBe(0);
  expect(run.stdout.split("\n").slice(1)).toEqual([
    "each period that is yet to be made is a day long",
    "copied from user_logins_before_veil: 11 rows",
    "",
  ]);
  expect(run.stderr).toMatch(
    /^warning: copied as no token: 12 values, .*\nhint: .*\nwarning: .*: 5 values\nhint: .*\n$/,
  );
  expect(run.stdout + run.stderr).not.toContain("192.0.2");
  const again = await veil(["migrate", "--json"], { env });
  expect(JSON.parse(again.stdout)).toEqual({
    ...{
      from: TEXTS.steps.length,
      to: TEXTS.steps.length,
      applied: [],
      copied: null,
      period: "day",
    },
  });
  expect(again.stderr).toBe("");
});
