// Migrating where the database's owner, or a low role, has prepared something: nothing of theirs is taken over, run,
// or waited for.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import type postgres from "postgres";
import { TEXTS } from "../../sql/texts.ts";
import { Failure } from "../../src/failure.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";

let database: TestDatabase;
let admin: postgres.Sql;
let login: string;
beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  admin = database.sql(database.ownerUrl);
  login = `test_planter_${randomBytes(5).toString("hex")}`;
  await admin.unsafe(`create role ${login} login password 'test'`);
});
afterEach(async () => {
  await admin.unsafe(`drop owned by ${login} cascade`);
  await admin.unsafe(`drop role ${login}`);
  await database.drop();
});

const asSuperuser = () => migrate(database.open(database.ownerUrl));

async function refusal(migrating: Promise<unknown>): Promise<Failure> {
  const error = await migrating.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(Failure);
  return error as Failure;
}

/** A function changed, and nothing else. */
const FIXED = {
  ...TEXTS,
  routines: [
    ...TEXTS.routines,
    `create or replace function etl.more() returns integer language sql
       set search_path = pg_catalog, pg_temp as 'select 1'`,
  ],
};

for (const schema of ["etl", "pii_vault"]) {
  test(`a schema ${schema} of somebody else's is refused: its owner could replace what stands in it`, async () => {
    await admin.unsafe(`create schema ${schema} authorization ${login}`);
    await admin.unsafe(`grant all on schema ${schema} to public`);
    const refused = await refusal(asSuperuser());
    expect([refused.exitCode, refused.code]).toEqual([1, "VL090"]);
    const [row] = await admin`select to_regclass('pii_vault.originals') as made`;
    expect(row?.made).toBeNull();
  });
}

test("a view under the name of veil's own table is refused before it is read", async () => {
  await admin.unsafe(`
    create schema etl authorization ${login};
    create schema pii_vault authorization ${login};
    create function etl.evil() returns integer language plpgsql as $$
      begin
        perform set_config('role', 'none', true);
        execute 'alter role ${login} superuser';
        return 4;
      end $$;
    create view etl.migrations as
      select 1::bigint as id, etl.evil() as step, 'x'::text as hash, '0'::xid8 as written_in, 0 as routines,
        'x'::text as relations_hash, '0'::xid8 as relations_written_in, 0 as relations;
    alter function etl.evil() owner to ${login};
    alter view etl.migrations owner to ${login};
    grant all on schema etl to public;
    grant all on etl.migrations to public`);
  const refused = await refusal(asSuperuser());
  expect([refused.exitCode, refused.code]).toEqual([1, "VL090"]);
  const [row] = await admin`select rolsuper from pg_roles where rolname = ${login}`;
  expect(row?.rolsuper).toBe(false);
});

test("a member of veil_owner who neither inherits nor administers the role may migrate again", async () => {
  await asSuperuser();
  await admin.unsafe(`alter role ${login} noinherit`);
  await admin.unsafe(`grant veil_owner to ${login}`);
  const url = new URL(database.ownerUrl);
  url.username = login;
  url.password = "test";
  expect((await migrate(database.open(url.href))).applied).toEqual([]);
});

test("a changed function waits for no open request, and for no analyst who reads", async () => {
  await asSuperuser();
  await admin.unsafe(`grant veil_revealer, veil_analyst to ${login}`);
  const url = new URL(database.ownerUrl);
  url.username = login;
  url.password = "test";
  const other = database.sql(url.href);
  const token = `ip1_${"a".repeat(26)}`;
  await other.begin(async (transaction) => {
    await transaction`select pii_vault.request_reveal(${[token]}, 'r')`;
    await transaction`select count(*) from public.user_logins_shared_tokens`;
    expect((await migrate(database.open(database.ownerUrl), FIXED)).applied).toEqual(["functions"]);
  });
  const [row] = await admin`select etl.more() as n`;
  expect(row?.n).toBe(1);
});

test("an emptied record of migrations is named, and nothing is made anew", async () => {
  await asSuperuser();
  await admin.unsafe("delete from etl.migrations");
  const refused = await refusal(asSuperuser());
  expect(refused.message).toContain("etl.migrations is empty");
});

test("an invariant is known by its own name only, so that none is asked without its lock", async () => {
  await asSuperuser();
  for (const name of ["days_add_up", "days-add-up()", "nothing", "-days", ""]) {
    const error = await admin`select * from etl.check_invariant(${name})`.then(
      () => null,
      (reason: { code?: string }) => reason.code,
    );
    expect([name, error]).toEqual([name, "VL006"]);
  }
});
