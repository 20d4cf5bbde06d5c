// Bringing a database to this version's schema: from nothing, again, by many at once, by an owner who
// is no superuser, and where another version has been.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import type postgres from "postgres";
import { SCHEMA_VERSION, schemaHash, TEXTS } from "../../sql/texts.ts";
import { Failure } from "../../src/failure.ts";
import { type Migrated, migrate } from "../../src/postgres/migrate.ts";
import { requireSchema } from "../../src/postgres/schema.ts";
import { createDatabase, ROLES, type TestDatabase } from "../support/database.ts";
import { hasOwnServer, startOwnCluster } from "../support/servers.ts";
import { dumpSchema } from "./dump-schema.ts";
import { COLUMNS, shapeOf } from "./old-table.ts";

const made: TestDatabase[] = [];
async function empty(): Promise<TestDatabase> {
  const database = await createDatabase({ migrated: false });
  made.push(database);
  return database;
}
afterEach(async () => {
  await Promise.all(made.splice(0).map((database) => database.drop()));
});

async function failure(work: Promise<unknown>, what = "it"): Promise<Failure> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error(`${what} was not refused`);
}

const asOwner = (database: TestDatabase): Promise<Migrated> =>
  migrate(database.open(database.ownerUrl));

const SNAPSHOT = new URL("../schema.sql", import.meta.url);
/** What a fresh database is said to have got. */
const EVERYTHING = [...TEXTS.steps.map(({ name }) => name), "functions"];

test("an empty database is brought to this version, and the schema is the published snapshot", async () => {
  const database = await empty();
  expect(await asOwner(database)).toMatchObject({ from: 0, to: SCHEMA_VERSION });
  await requireSchema(database.open(database.ownerUrl));
  const dumped = await dumpSchema(database.sql(database.ownerUrl));
  if (process.env.UPDATE_SCHEMA === "1") writeFileSync(SNAPSHOT, dumped);
  expect(dumped).toBe(readFileSync(SNAPSHOT, "utf8"));
});

test("again changes nothing, and waits for nobody who reads or has asked", async () => {
  const database = await empty();
  await asOwner(database);
  const sql = database.sql(database.ownerUrl);
  const before = await dumpSchema(sql);
  const state = () => sql`
    select sum(oid::bigint) as oids, max(xmin::text::bigint) as newest,
      (select count(*) from etl.migrations) as lines
    from pg_catalog.pg_proc where pronamespace in ('etl'::regnamespace, 'pii_vault'::regnamespace)`;
  const [written] = await state();
  // An analyst's long query, and somebody who has asked and does not end the transaction.
  const analyst = database.sql(await database.addLogin("analyst"));
  const revealer = database.sql(await database.addLogin("revealer"));
  for (const [login, statement] of [
    [analyst, "select from public.user_logins_shared_tokens"],
    [revealer, `select pii_vault.request_reveal('{ip1_${"a".repeat(26)}}', 'case 1')`],
  ] as const) {
    await login.unsafe("begin");
    await login.unsafe(statement);
  }
  expect(await asOwner(database)).toEqual({
    from: SCHEMA_VERSION,
    to: SCHEMA_VERSION,
    applied: [],
    copied: null,
    period: "month",
  });
  for (const login of [analyst, revealer]) await login.unsafe("rollback");
  expect(await dumpSchema(sql)).toBe(before);
  expect([...(await state())]).toEqual([written!]);
});

test("twenty at once in one database end well, and each step is applied once", async () => {
  const database = await empty();
  const results = await Promise.all(Array.from({ length: 20 }, () => asOwner(database)));
  expect(results.flatMap((result) => result.applied).sort()).toEqual([...EVERYTHING].sort());
  const rows = await database.sql(database.ownerUrl)`select step, hash from etl.migrations`;
  expect([...rows]).toEqual([{ step: SCHEMA_VERSION, hash: schemaHash(TEXTS) }]);
});

test("twenty databases of one cluster at once end well", async () => {
  const databases: TestDatabase[] = [];
  for (let i = 0; i < 20; i++) databases.push(await empty());
  const results = await Promise.all(databases.map(asOwner));
  expect(results.map((result) => result.applied)).toEqual(databases.map(() => EVERYTHING));
});

test("a database that a newer version has migrated is refused, and left alone", async () => {
  const database = await empty();
  const sql = database.sql(database.ownerUrl);
  const step = { name: "more", sql: "create table etl.more (n integer)" };
  const newer = { ...TEXTS, steps: [...TEXTS.steps, step] };
  await asOwner(database);
  expect(await migrate(database.open(database.ownerUrl), newer)).toEqual({
    from: SCHEMA_VERSION,
    to: SCHEMA_VERSION + 1,
    applied: ["more"],
    copied: null,
    period: "month",
  });
  const before = await dumpSchema(sql);
  const opened = database.open(database.ownerUrl);
  for (const work of [() => asOwner(database), () => requireSchema(opened)]) {
    const refused = await failure(work());
    expect(refused.exitCode).toBe(2);
    expect(refused.message).toContain(`schema version ${SCHEMA_VERSION + 1}`);
    expect(refused.hint).toContain("a newer veil has migrated it");
  }
  expect(await dumpSchema(sql)).toBe(before);
});

test("a step behind is told to migrate", async () => {
  const database = await empty();
  await asOwner(database);
  const sql = database.sql(database.ownerUrl);
  await sql`update etl.migrations set step = step - 1`;
  const refused = await failure(requireSchema(database.open(database.ownerUrl)));
  expect(refused.exitCode).toBe(2);
  expect(refused.message).toContain(`this program needs ${SCHEMA_VERSION}`);
  expect(refused.hint).toContain("veil migrate");
});

describe("the functions of one step", () => {
  const change = `
    create or replace function etl.more() returns integer language sql
      set search_path = pg_catalog, pg_temp as 'select 1';
    create or replace function etl.app_version_text(app_version integer) returns text
      language sql immutable strict parallel safe return 'changed';
    grant execute on function etl.app_version_text(integer) to veil_etl`;
  const changed = {
    ...TEXTS,
    views: `${TEXTS.views}; create or replace view pii_vault.more as select 1 as n`,
    routines: [...TEXTS.routines, change],
  };

  test("are replaced where they were another program's, and until then nothing goes on", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    expect((await migrate(database.open(database.ownerUrl), changed)).applied).toEqual(EVERYTHING);
    const refused = await failure(requireSchema(database.open(database.ownerUrl)));
    expect(refused.exitCode).toBe(2);
    expect(refused.message).toContain("with the functions of another veil");
    expect(refused.hint).toContain("veil migrate");
    expect((await asOwner(database)).applied).toEqual(["functions"]);
    await requireSchema(database.open(database.ownerUrl));
    expect(await dumpSchema(sql)).toBe(readFileSync(SNAPSHOT, "utf8"));
  });

  test("are as they should be after a migration, whatever somebody has made of them", async () => {
    for (const plant of [
      "create function etl.planted() returns integer language sql as 'select 1'",
      `create function pii_vault.planted() returns trigger language plpgsql as 'begin return new; end';
       create trigger planted before insert on pii_vault.audit
         for each row execute function pii_vault.planted()`,
      "create procedure etl.planted() language plpgsql as 'begin end'",
      `create or replace function pii_vault.caller() returns oid language sql
         set search_path = pg_catalog, pg_temp as 'select 10::oid'`,
      "grant execute on function pii_vault.set_policy(text, jsonb, text) to public",
      "drop function etl.discard(text[], text)",
      "drop trigger requests_append_only on pii_vault.requests",
      "alter table pii_vault.audit disable trigger audit_append_only",
      "create rule planted as on insert to pii_vault.audit_waiting do instead nothing",
      "create or replace view pii_vault.occurrences as select 'ip'::text as field, null::text as token, null::text as user_id, null::date as create_date, null::oid as partition, null::tid as place",
    ]) {
      const database = await empty();
      await asOwner(database);
      const sql = database.sql(database.ownerUrl);
      await sql.unsafe(plant);
      expect(await dumpSchema(sql)).not.toBe(readFileSync(SNAPSHOT, "utf8"));
      expect((await asOwner(database)).applied).toEqual([]);
      expect([plant, await dumpSchema(sql)]).toEqual([plant, readFileSync(SNAPSHOT, "utf8")]);
    }
  });

  test("stay where something of somebody else's needs one that is to go, and it is said", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    await migrate(database.open(database.ownerUrl), changed);
    await sql.unsafe("create view public.others as select etl.more() as n");
    const before = await dumpSchema(sql);
    const refused = await failure(asOwner(database));
    expect([refused.exitCode, refused.code]).toEqual([1, "2BP01"]);
    expect(await dumpSchema(sql)).toBe(before);
    await sql.unsafe("drop view public.others");
    expect((await asOwner(database)).applied).toEqual(["functions"]);
  });
});

test("a database of before the steps is refused by name, and left alone", async () => {
  const database = await empty();
  const sql = database.sql(database.ownerUrl);
  await sql.unsafe(`
    create schema etl;
    create table etl.migrations (version integer primary key, name text not null);
    insert into etl.migrations select n, 'load' from generate_series(1, 18) n;
    create function etl.schema_version() returns integer language sql
      as 'select max(version) from etl.migrations'`);
  const before = await dumpSchema(sql);
  const migrating = await failure(asOwner(database));
  expect([migrating.exitCode, migrating.code]).toEqual([1, "VL091"]);
  const opening = await failure(requireSchema(database.open(database.ownerUrl)));
  expect(opening.exitCode).toBe(2);
  expect(opening.message).toContain("its schema version 18");
  for (const refused of [migrating, opening]) {
    expect(refused.message).toContain("made by an older veil");
    expect(refused.hint).toContain("in a new, empty database");
  }
  expect(await dumpSchema(sql)).toBe(before);
});

test("veil_owner keeps no right to create in public", async () => {
  const database = await empty();
  await asOwner(database);
  const rows = await database.sql(database.ownerUrl)`
    select a.privilege_type from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
    where n.nspname = 'public' and a.grantee = 'veil_owner'::regrole
      and a.privilege_type = 'CREATE'`;
  expect([...rows]).toEqual([]);
});

describe("what was there before under a name of veil's in public", () => {
  const THERE: readonly (readonly [string, string, string])[] = [
    [
      "a view's name",
      "user_logins_shared_tokens",
      "create table public.user_logins_shared_tokens (n integer)",
    ],
    [
      "the other view's name",
      "user_logins_per_token_and_day",
      "create view public.user_logins_per_token_and_day as select 1 as n",
    ],
  ];

  test("is refused by that name, and nothing is changed", async () => {
    for (const [what, name, create] of THERE) {
      const database = await empty();
      const sql = database.sql(database.ownerUrl);
      await sql.unsafe(`create table public.user_logins (${COLUMNS}); ${create}`);
      const before = await shapeOf(sql);
      const refused = await failure(asOwner(database), what);
      expect([what, refused.exitCode, refused.code]).toEqual([what, 1, "VL090"]);
      expect(refused.message).toContain(`public.${name} was there before veil`);
      expect(refused.hint).toContain(`rename to ${name}_before_veil`);
      expect([what, await shapeOf(sql)]).toEqual([what, before]);
    }
  });

  const OLD = `create table public.user_logins (${COLUMNS})`;
  const changed = (column: string, type: string) =>
    `create table public.user_logins (${COLUMNS.replace(new RegExp(`${column} [^ ,]+(?=,|$)`), `${column} ${type}`)})`;
  const OTHER: readonly (readonly [string, string])[] = [
    ["create table public.user_logins (n integer)", "there is no column app_version; there is no"],
    ["create view public.user_logins as select 1 as n", "it is a view, and no ordinary table"],
    ["create materialized view public.user_logins as select 1 as n", "it is a materialized view"],
    ["create sequence public.user_logins", "it is a sequence"],
    ["create type public.user_logins as (n integer)", "it is a type"],
    ["create domain public.user_logins as integer", "it is a type"],
    [`${OLD} partition by range (create_date)`, "it is a partitioned table"],
    [
      `create table public.parent (${COLUMNS}) partition by range (create_date);
       create table public.user_logins partition of public.parent default`,
      "it inherits from another table",
    ],
    [`${OLD}; create table public.child () inherits (public.user_logins)`, "another one from it"],
    [changed("app_version", "bigint"), "the column app_version is bigint and not integer"],
    [
      changed("user_id", "varchar(127)"),
      "the column user_id is character varying(127) and not character varying(128)",
    ],
    [changed("locale", "text"), "the column locale is text and not character varying(32)"],
    [
      `create domain public."character varying(32)" as varchar(32);
       ${changed("locale", `public."character varying(32)"`)}`,
      'the column locale is public."character varying(32)" and not',
    ],
    [
      `create domain public.version as integer; ${changed("app_version", "public.version")}`,
      "the column app_version is public.version and not integer",
    ],
    [changed("masked_ip", "inet"), "the column masked_ip is inet and not"],
    [changed("create_date", "timestamptz"), "is timestamp with time zone and not date"],
    [`${OLD}; alter table public.user_logins add id bigserial`, "the column id is one too many"],
    [
      `${OLD}; alter table public.user_logins alter app_version set not null,
         alter app_version add generated always as identity`,
      "the column app_version is generated",
    ],
    [
      `${OLD}; alter table public.user_logins drop locale,
         add locale varchar(32) generated always as ('x') stored`,
      "the column locale is generated",
    ],
    [
      `${OLD}; create function public.f(text) returns text language sql immutable as 'select $1';
       create index mine on public.user_logins (public.f(user_id))`,
      "index public.mine uses a function or a type that is not PostgreSQL's own",
    ],
    [
      `${OLD}; create table public.user_logins_before_veil (n integer)`,
      "public.user_logins_before_veil is there already",
    ],
  ];

  test("a table of logins is refused where it is not the published one, and the difference is named", async () => {
    for (const [create, words] of OTHER) {
      const database = await empty();
      const sql = database.sql(database.ownerUrl);
      await sql.unsafe(create);
      const before = await shapeOf(sql);
      const refused = await failure(asOwner(database), create);
      expect([create, refused.exitCode, refused.code]).toEqual([create, 1, "VL090"]);
      expect(refused.message).toContain("public.user_logins");
      expect(refused.message).toContain(words);
      expect(refused.hint).toContain("rename to ");
      expect([create, await shapeOf(sql)]).toEqual([create, before]);
    }
  });

  test("its columns may stand in any order, and what was dropped does not count", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    await sql.unsafe(`
      create table public.user_logins (${COLUMNS.split(",\n").join(",").split(", ").reverse().join(", ")}, gone integer);
      alter table public.user_logins drop gone;
      insert into public.user_logins (user_id, locale) values ('u1', 'en')`);
    expect((await asOwner(database)).copied?.rows).toBe(1);
    const rows = await sql`select user_id, locale, device_type from public.user_logins`;
    expect([...rows]).toEqual([{ user_id: "u1", locale: "en", device_type: null }]);
  });

  test("a table stays as it is where it was renamed by hand", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    await sql.unsafe(`create table public.user_logins_before_veil (${COLUMNS});
      create index user_logins_user_id_idx on public.user_logins_before_veil (user_id);
      insert into public.user_logins_before_veil (user_id) values ('u1')`);
    expect(await asOwner(database)).toMatchObject({ applied: EVERYTHING, copied: null });
    const rows = await sql`
      select b.user_id, c.relowner = 'veil_owner'::regrole as ours
      from public.user_logins_before_veil b, pg_catalog.pg_class c
      where c.oid = 'public.user_logins_before_veil'::regclass
        and not exists (select from public.user_logins)`;
    expect([...rows]).toEqual([{ user_id: "u1", ours: false }]);
  });
});

// As in every database up to 14 and wherever it was granted: public is writable for everybody, and a
// function there that fits better than the one of pg_catalog is the one that an unqualified call means.
test("what others have planted in public is not run by who migrates", async () => {
  const database = await empty();
  const sql = database.sql(database.ownerUrl);
  await sql.unsafe(`
    create table public.ran (what text, as_whom text default current_user);
    create function public.format(text, text) returns text language plpgsql as $$ begin
      insert into public.ran values ('format'); return pg_catalog.format($1, $2);
    end $$;
    create function public.hashtextextended(text, integer) returns bigint language plpgsql as $$
    begin
      insert into public.ran values ('hashtextextended'); return 1;
    end $$`);
  await asOwner(database);
  const ran = await sql`select distinct what, as_whom from public.ran`;
  expect([...ran]).toEqual([]);
});

// Left out where TEST_DATABASE_URL names the server: its veil roles are there already.
describe.skipIf(!hasOwnServer)("on a cluster without veil's roles", () => {
  let url: string;
  let admin: postgres.Sql;
  let home: TestDatabase;

  beforeAll(async () => {
    const started = await startOwnCluster({ max_connections: "200" });
    url = started.url;
    // Only for its driver and its doors: everything here is on the fresh cluster.
    home = await createDatabase({ migrated: false });
    admin = home.sql(url);
  });
  afterAll(() => home.drop());

  const urlOf = (database: string, login = "postgres"): string => {
    const changed = new URL(url);
    changed.pathname = `/${database}`;
    if (login !== "postgres") {
      changed.username = login;
      changed.password = "test";
    }
    return changed.href;
  };
  const name = (kind: string) => `${kind}_${randomBytes(4).toString("hex")}`;

  async function ownedDatabase(login: string): Promise<string> {
    const database = name("owned");
    await admin.unsafe(`create database ${database} owner ${login}`);
    return database;
  }

  test("twenty databases at once make the roles together", async () => {
    const databases = Array.from({ length: 20 }, () => name("twenty"));
    for (const database of databases) await admin.unsafe(`create database ${database}`);
    const results = await Promise.all(
      databases.map((database) => migrate(home.open(urlOf(database)))),
    );
    expect(results.every((result) => result.applied.length === EVERYTHING.length)).toBe(true);
    await dropVeil(databases);
  });

  async function dropVeil(databases: readonly string[]): Promise<void> {
    for (const database of databases) await admin.unsafe(`drop database ${database} with (force)`);
    for (const role of ["owner", ...ROLES]) {
      await admin.unsafe(`drop role veil_${role}`);
    }
  }

  test("an owner with CREATEROLE makes the roles, and another one needs a GRANT", async () => {
    await admin.unsafe(`
      create role builder login createrole password 'test';
      create role stranger login createrole password 'test';
      create role plain login password 'test'`);
    const first = await ownedDatabase("builder");
    expect(await migrate(home.open(urlOf(first, "builder")))).toMatchObject({
      applied: EVERYTHING,
    });
    expect((await migrate(home.open(urlOf(first, "builder")))).applied).toEqual([]);
    // The same schema as a superuser's.
    expect(await dumpSchema(home.sql(urlOf(first)))).toBe(readFileSync(SNAPSHOT, "utf8"));
    const second = await ownedDatabase("builder");
    expect((await migrate(home.open(urlOf(second, "builder")))).applied).toEqual(EVERYTHING);

    const [row] = await admin`select current_setting('server_version_num')::int as version`;
    // Up to 15, CREATEROLE may grant itself every role that is no superuser's.
    const strangers = Number(row?.version) >= 160000 ? ["stranger", "plain"] : ["plain"];
    const databases = [first, second];
    for (const login of strangers) {
      const database = await ownedDatabase(login);
      databases.push(database);
      const refused = await failure(migrate(home.open(urlOf(database, login))));
      expect(refused.exitCode).toBe(1);
      const grant = /GRANT .* WITH ADMIN OPTION;/.exec(refused.hint ?? "")?.[0];
      expect(grant).toBeString();
      const sql = home.sql(urlOf(database));
      expect([...(await sql`select from pg_catalog.pg_namespace where nspname = 'etl'`)]).toEqual(
        [],
      );
      const made = home.sql(urlOf(first, "builder"));
      await made.unsafe(String(grant).replace("<this login>", login));
      expect((await migrate(home.open(urlOf(database, login)))).applied).toEqual(EVERYTHING);
    }

    // A database that a superuser has migrated, and an owner who may not act as veil_owner.
    await admin.unsafe("create role outsider login password 'test'");
    const migrated = await ownedDatabase("outsider");
    databases.push(migrated);
    await migrate(home.open(urlOf(migrated)));
    const refused = await failure(migrate(home.open(urlOf(migrated, "outsider"))));
    expect([refused.exitCode, refused.hint?.includes("TO outsider WITH ADMIN OPTION")]).toEqual([
      1,
      true,
    ]);
    const grant = /GRANT .*;/.exec(refused.hint ?? "")?.[0];
    await home.sql(urlOf(first, "builder")).unsafe(String(grant));
    expect((await migrate(home.open(urlOf(migrated, "outsider")))).applied).toEqual([]);
  });

  test("who may not create roles is told so where there are none", async () => {
    const fresh = await startOwnCluster();
    const to = (login: string, database: string): string => {
      const changed = new URL(fresh.url);
      changed.pathname = `/${database}`;
      if (login !== "postgres") {
        changed.username = login;
        changed.password = "test";
      }
      return changed.href;
    };
    const sql = home.sql(fresh.url);
    await sql.unsafe("create role plain login password 'test'");
    await sql.unsafe("create database plainly owner plain");
    const refused = await failure(migrate(home.open(to("plain", "plainly"))));
    expect(refused.exitCode).toBe(1);
    expect(refused.hint).toContain("GRANT veil_owner");
    const [row] = await sql`
      select count(*)::int as n from pg_catalog.pg_roles where rolname like 'veil\\_%'`;
    expect(row?.n).toBe(0);
  });
});
