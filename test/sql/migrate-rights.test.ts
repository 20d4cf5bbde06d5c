// What migrating needs of a login, and what it looks after beside the schema.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import type postgres from "postgres";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";

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
