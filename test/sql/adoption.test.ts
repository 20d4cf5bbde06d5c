// What an adopted table keeps, and what migrating needs of a login.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import type postgres from "postgres";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { attempt } from "./attempt.ts";

const COLUMNS = `user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
  masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date`;

let database: TestDatabase;
let admin: postgres.Sql;
let login: string;
beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  admin = database.sql(database.ownerUrl);
  login = `test_owner_${randomBytes(5).toString("hex")}`;
});
afterEach(async () => {
  await admin.unsafe(`drop owned by ${login} cascade`);
  await admin.unsafe(`drop role ${login}`);
  await database.drop();
});

const urlOf = (user: string): string => {
  const url = new URL(database.ownerUrl);
  url.username = user;
  url.password = "test";
  return url.href;
};

test("the former owner of an adopted table goes on reading it, and so do his views", async () => {
  await admin.unsafe(`create role ${login} login password 'test'`);
  await admin.unsafe(`grant create on schema public to ${login}`);
  const former = database.sql(urlOf(login));
  await former.unsafe(`create table public.user_logins (${COLUMNS})`);
  await former.unsafe("insert into public.user_logins (user_id) values ('u1')");
  await former.unsafe("create view public.his as select user_id from public.user_logins");
  await migrate(database.open(database.ownerUrl));
  const rows = await former.unsafe("select user_id from public.his");
  expect(rows.map((row) => row.user_id)).toEqual(["u1"]);
  for (const statement of [
    "delete from public.user_logins",
    "insert into public.user_logins (user_id) values ('u2')",
    "alter table public.user_logins add column more text",
  ]) {
    expect(await attempt(former, statement)).toBe("42501");
  }
});

test("an adopted table gets its indexes also where their names are taken", async () => {
  await admin.unsafe(`create role ${login} login password 'test'`);
  await admin.unsafe(`create table public.user_logins (${COLUMNS})`);
  await admin.unsafe("create table public.other (user_id text)");
  await admin.unsafe("create index user_logins_user_id_idx on public.other (user_id)");
  await admin.unsafe("create table public.user_logins_masked_ip_idx (n integer)");
  await admin.unsafe("create index his_own on public.user_logins (masked_device_id)");
  await migrate(database.open(database.ownerUrl));
  const indexed = await admin.unsafe(`
    select a.attname as column, count(*)::int as indexes
    from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = 'public.user_logins'::regclass group by 1 order by 1`);
  expect(indexed.map((row) => [row.column, row.indexes])).toEqual(
    ["create_date", "masked_device_id", "masked_ip", "user_id"].map((column) => [column, 1]),
  );
});

test("an owner who has the roles with admin option, and does not inherit, may migrate", async () => {
  // The roles are there already, made by another login.
  const other = await createDatabase();
  try {
    await admin.unsafe(`create role ${login} login noinherit createrole password 'test'`);
    await admin.unsafe(
      `grant veil_owner, veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor,
         veil_policy, veil_approver, veil_breakglass, veil_eraser
       to ${login} with admin option`,
    );
    const name = `${database.name}_owned`;
    await admin.unsafe(`create database ${name} owner ${login}`);
    try {
      const url = new URL(urlOf(login));
      url.pathname = `/${name}`;
      const owner = database.open(url.href);
      expect((await migrate(owner)).applied).not.toEqual([]);
      expect((await migrate(owner)).applied).toEqual([]);
      await owner.close();
    } finally {
      await admin.unsafe(`drop database ${name} with (force)`);
    }
  } finally {
    await other.drop();
  }
});

test("what a dump leaves out of the database's own rights, the next migration sets again", async () => {
  await admin.unsafe(`create role ${login} login password 'test'`);
  await migrate(database.open(database.ownerUrl));
  await admin.unsafe(`grant temporary on database ${database.name} to public`);
  await admin.unsafe(`revoke connect on database ${database.name} from veil_etl`);
  await migrate(database.open(database.ownerUrl));
  const [rights] = await admin.unsafe(`
    select has_database_privilege('public', current_database(), 'temporary') as temporary,
      exists (
        select from pg_database d, aclexplode(d.datacl) a
        where d.datname = current_database() and a.grantee = 'veil_etl'::regrole
          and a.privilege_type = 'CONNECT'
      ) as connect`);
  expect({ ...rights }).toEqual({ temporary: false, connect: true });
});
