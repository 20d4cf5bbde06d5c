// Bringing a database to this version's schema: from nothing, again, by many at once, by an owner who
// is no superuser, and over a user_logins that was there before.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import type postgres from "postgres";
import { SCHEMA_VERSION } from "../../sql/migrations.ts";
import { Failure } from "../../src/failure.ts";
import { type Migrated, migrate } from "../../src/postgres/migrate.ts";
import { requireSchema } from "../../src/postgres/schema.ts";
import { createDatabase, ROLES, type TestDatabase } from "../support/database.ts";
import { hasOwnServer, startOwnCluster } from "../support/servers.ts";
import { dumpSchema } from "./dump-schema.ts";
import { makeHost } from "./host.ts";

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

const PUBLISHED = [
  "user_id varchar(128)",
  "device_type varchar(32)",
  "masked_ip varchar(256)",
  "masked_device_id varchar(256)",
  "locale varchar(32)",
  "app_version integer",
  "create_date date",
];
const createPublished = `create table public.user_logins (${PUBLISHED.join(", ")})`;

test("an empty database is brought to this version, and the schema is the published snapshot", async () => {
  const database = await empty();
  expect(await asOwner(database)).toMatchObject({ from: 0, to: SCHEMA_VERSION });
  await requireSchema(database.open(database.ownerUrl));
  const dumped = await dumpSchema(database.sql(database.ownerUrl));
  const file = new URL("../schema.sql", import.meta.url);
  if (process.env.UPDATE_SCHEMA === "1") writeFileSync(file, dumped);
  expect(dumped).toBe(readFileSync(file, "utf8"));
});

test("again changes nothing", async () => {
  const database = await empty();
  await asOwner(database);
  const sql = database.sql(database.ownerUrl);
  const before = await dumpSchema(sql);
  const [oids] = await sql`select sum(oid::bigint) as sum from pg_catalog.pg_proc`;
  expect(await asOwner(database)).toEqual({
    from: SCHEMA_VERSION,
    to: SCHEMA_VERSION,
    applied: [],
  });
  expect(await dumpSchema(sql)).toBe(before);
  const [after] = await sql`select sum(oid::bigint) as sum from pg_catalog.pg_proc`;
  expect(after).toEqual(oids!);
});

test("twenty at once in one database end well, and each step is applied once", async () => {
  const database = await empty();
  const results = await Promise.all(Array.from({ length: 20 }, () => asOwner(database)));
  const applied = results.flatMap((result) => result.applied);
  expect(applied).toHaveLength(SCHEMA_VERSION);
  const rows = await database.sql(database.ownerUrl)`select version from etl.migrations order by 1`;
  expect(rows.map((row) => row.version)).toEqual(
    Array.from({ length: SCHEMA_VERSION }, (_, i) => i + 1),
  );
});

test("twenty databases of one cluster at once end well", async () => {
  const databases: TestDatabase[] = [];
  for (let i = 0; i < 20; i++) databases.push(await empty());
  const results = await Promise.all(databases.map(asOwner));
  expect(results.map((result) => result.applied.length)).toEqual(
    databases.map(() => SCHEMA_VERSION),
  );
});

test("a database that a newer version has migrated is refused, and left alone", async () => {
  const database = await empty();
  await asOwner(database);
  const sql = database.sql(database.ownerUrl);
  await sql`insert into etl.migrations (version, name) values (${SCHEMA_VERSION + 1}, 'future')`;
  const before = await dumpSchema(sql);
  const refused = await failure(asOwner(database));
  expect(refused.exitCode).toBe(2);
  expect(refused.message).toContain(String(SCHEMA_VERSION + 1));
  expect((await failure(requireSchema(database.open(database.ownerUrl)))).exitCode).toBe(2);
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

describe("an existing user_logins", () => {
  test("of the published columns is adopted with its rows", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    await sql.unsafe(createPublished);
    await sql.unsafe(`insert into public.user_logins values
      ('u1', 'phone', 'old', null, 'de', 230, '2020-01-01'), (null, null, null, null, null, null, null)`);
    await sql.unsafe("create index old_index on public.user_logins (locale)");
    await asOwner(database);
    const rows = await sql`
      select user_id, masked_ip, create_date::text from public.user_logins order by 1`;
    expect([...rows]).toEqual([
      { user_id: "u1", masked_ip: "old", create_date: "2020-01-01" },
      { user_id: null, masked_ip: null, create_date: null },
    ]);
    const [table] = await sql`
      select relowner::regrole::text as owner from pg_catalog.pg_class
      where oid = 'public.user_logins'::regclass`;
    expect(table?.owner).toBe("veil_owner");
    const host = await makeHost();
    const etl = database.open(await database.addLogin("etl"));
    expect(await host.load(etl, [{ id: "m", body: { user_id: "u2" } }])).toMatchObject({
      loaded: 1,
    });
    const analyst = database.sql(await database.addLogin("analyst"));
    expect(await analyst`select count(*)::int as n from public.user_logins`).toMatchObject([
      { n: 3 },
    ]);
  });

  test("of the same columns in another order, required where a login has them, is adopted", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    await sql.unsafe(`create table public.user_logins (${[...PUBLISHED].reverse().join(", ")})`);
    await sql.unsafe(`alter table public.user_logins
      alter user_id set not null, alter create_date set not null, add gone text`);
    await sql.unsafe("alter table public.user_logins drop column gone");
    await asOwner(database);
    const host = await makeHost();
    const etl = database.open(await database.addLogin("etl"));
    const sentAt = new Date("2026-01-01T00:00:00Z");
    await host.load(etl, [{ id: "m", sentAt, body: { user_id: "u2", locale: "de" } }]);
    const rows = await sql`select user_id, locale, create_date::text from public.user_logins`;
    expect([...rows]).toEqual([{ user_id: "u2", locale: "de", create_date: "2026-01-01" }]);
  });

  const without = (name: string) => PUBLISHED.filter((column) => !column.startsWith(`${name} `));
  const replaced = (name: string, definition: string) =>
    `create table public.user_logins (${[...without(name), definition].join(", ")})`;
  const and = (statement: string) => `${createPublished}; ${statement}`;
  const HELPERS = `
    create function public.noop() returns trigger language plpgsql as 'begin return null; end'`;

  const DIFFERENT: readonly (readonly [string, string, string])[] = [
    ["a missing column", replaced("locale", "x1 text"), "column locale is missing"],
    ["an extra column", and("alter table user_logins add x text"), "column x is not known"],
    [
      "a longer type",
      replaced("user_id", "user_id varchar(256)"),
      "column user_id is character varying(256) and not character varying(128)",
    ],
    ["another type", replaced("user_id", "user_id text"), "column user_id is text"],
    ["a wider number", replaced("app_version", "app_version bigint"), "app_version is bigint"],
    [
      "a time for a date",
      replaced("create_date", "create_date timestamptz"),
      "column create_date is timestamp with time zone and not date",
    ],
    ["a differently named column", replaced("locale", '"Locale" varchar(32)'), "locale is missing"],
    [
      "a column that may not be null",
      replaced("masked_ip", "masked_ip varchar(256) not null"),
      "column masked_ip is not null",
    ],
    [
      "a generated column",
      replaced("app_version", "app_version integer generated always as (1) stored"),
      "column app_version is generated",
    ],
    [
      "an identity column",
      replaced("app_version", "app_version integer generated always as identity"),
      "column app_version is generated",
    ],
    ["a check", and("alter table user_logins add constraint c1 check (true)"), "the constraint c1"],
    ["a primary key", and("alter table user_logins add constraint pk primary key (user_id)"), "pk"],
    ["a unique constraint", and("alter table user_logins add constraint u1 unique (locale)"), "u1"],
    ["a unique index", and("create unique index u2 on user_logins (locale)"), "the index u2"],
    [
      "a partial index",
      and("create index p1 on user_logins (locale) where locale is not null"),
      "the index p1",
    ],
    ["an expression index", and("create index e1 on user_logins (lower(locale))"), "the index e1"],
    [
      "a foreign key",
      and(`create table other (id varchar(32) primary key);
        alter table user_logins add constraint fk foreign key (locale) references other`),
      "the constraint fk",
    ],
    [
      "a trigger",
      and(`${HELPERS}; create trigger t1 before insert on user_logins
        for each row execute function noop()`),
      "the trigger t1",
    ],
    [
      "a constraint trigger",
      and(`${HELPERS}; create constraint trigger t2 after insert on user_logins
        for each row execute function noop()`),
      "t2",
    ],
    ["a rule", and("create rule r1 as on insert to user_logins do nothing"), "the rule r1"],
    [
      "row-level security",
      and("alter table user_logins enable row level security"),
      "it has row-level security",
    ],
    [
      "forced row-level security",
      and("alter table user_logins force row level security"),
      "it has row-level security",
    ],
    [
      "an heir",
      and("create table heir () inherits (user_logins)"),
      "it inherits from, or is inherited by",
    ],
    [
      "a parent",
      `create table parent (${PUBLISHED[0]});
       create table public.user_logins (${PUBLISHED.slice(1).join(", ")}) inherits (parent)`,
      "it inherits from, or is inherited by",
    ],
    [
      "a view",
      `create view public.user_logins as select ''::varchar(128) as user_id`,
      "it is not an ordinary table",
    ],
    [
      "a partitioned table",
      `${createPublished} partition by range (create_date)`,
      "it is not an ordinary table",
    ],
    [
      "an unlogged table",
      createPublished.replace("create table", "create unlogged table"),
      "it is not an ordinary table",
    ],
  ];

  test("with any difference is refused by its name, and nothing is changed", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    const shape = async () => {
      const [row] = await sql`
        select c.relowner::regrole::text as owner, c.relacl::text as acl, c.relkind::text as kind,
          (select count(*)::int from pg_catalog.pg_class where relnamespace = 'public'::regnamespace)
            as relations,
          (select n.nspacl::text from pg_catalog.pg_namespace n where n.nspname = 'public') as public
        from pg_catalog.pg_class c where c.oid = 'public.user_logins'::regclass`;
      return row;
    };
    for (const [what, create, expected] of DIFFERENT) {
      await sql.unsafe(create);
      const before = await shape();
      const refused = await failure(asOwner(database), what);
      expect([what, refused.exitCode, refused.code]).toEqual([what, 1, "VL090"]);
      expect(refused.message).toContain(expected);
      expect([what, await shape()]).toEqual([what, before]);
      const [row] = await sql`select etl.schema_version() as version`;
      expect(row?.version).toBe(1);
      await sql.unsafe(`
        drop schema public cascade;
        create schema public;
        grant usage on schema public to public`);
    }
    // And with the difference out of the way, it goes on from where it was.
    await sql.unsafe(createPublished);
    expect((await asOwner(database)).from).toBe(1);
  });

  test("with several differences names them all", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    await sql.unsafe("create table public.user_logins (user_id text, x text)");
    const { message } = await failure(asOwner(database));
    for (const part of ["user_id is text", "device_type is missing", "column x is not known"]) {
      expect(message).toContain(part);
    }
  });

  // Evaluated by ANALYZE as the table's owner, so as veil_owner.
  test("with statistics on an expression of somebody else's is refused", async () => {
    const database = await empty();
    const sql = database.sql(database.ownerUrl);
    await sql.unsafe(createPublished);
    await sql.unsafe(`
      create function public.planted(text) returns text language plpgsql immutable
        as 'begin return current_user; end';
      create statistics public.s1 on (public.planted(user_id)), locale from public.user_logins`);
    expect((await failure(asOwner(database))).message).toContain("s1");
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
    expect(results.every((result) => result.applied.length === SCHEMA_VERSION)).toBe(true);
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
      applied: { length: SCHEMA_VERSION },
    });
    expect((await migrate(home.open(urlOf(first, "builder")))).applied).toEqual([]);
    // The same schema as a superuser's.
    expect(await dumpSchema(home.sql(urlOf(first)))).toBe(
      readFileSync(new URL("../schema.sql", import.meta.url), "utf8"),
    );
    const second = await ownedDatabase("builder");
    expect((await migrate(home.open(urlOf(second, "builder")))).applied).toHaveLength(
      SCHEMA_VERSION,
    );

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
      expect((await migrate(home.open(urlOf(database, login)))).applied).toHaveLength(
        SCHEMA_VERSION,
      );
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
