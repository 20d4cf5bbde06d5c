// A table user_logins whose owner has prepared something for the superuser who migrates: none of it runs.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import type postgres from "postgres";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { asSuperuser, COLUMNS, refusal, shapeOf } from "./old-table.ts";

let database: TestDatabase;
let admin: postgres.Sql;
let keeper: string;
beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  admin = database.sql(database.ownerUrl);
  keeper = `test_keeper_${randomBytes(5).toString("hex")}`;
  await admin.unsafe(`
    create role ${keeper} login password 'test';
    grant create on schema public to ${keeper};
    set role ${keeper};
    create sequence public.ran;
    create function public.lure() returns boolean language plpgsql immutable
      as 'begin return pg_catalog.nextval(''public.ran'') > 0; end';
    create function public.lure(text) returns text language plpgsql immutable
      as 'begin perform public.lure(); return $1; end';
    create function public.lure_trigger() returns trigger language plpgsql
      as 'begin perform public.lure(); return new; end';
    create table public.user_logins (${COLUMNS});
    insert into public.user_logins (user_id, masked_ip, create_date) values ('ann', 'x', '2020-01-01');
    reset role`);
});
afterEach(async () => {
  await admin.unsafe(`reset role; drop owned by ${keeper} cascade`);
  await admin.unsafe(`drop role ${keeper}`);
  await database.drop();
});

/** Rolled back or not: a sequence keeps what was taken from it. */
async function hasRun(): Promise<boolean> {
  const [row] = await admin`select is_called from public.ran`;
  return row?.is_called === true;
}

async function plant(sql: string): Promise<void> {
  await admin.unsafe(`set role ${keeper}; ${sql}; reset role; alter sequence public.ran restart`);
  expect(await hasRun()).toBe(false);
}

const READS = "select user_id from only public.user_logins where create_date is null";

for (const [what, sql] of [
  ["an index on an expression", "create index lure on public.user_logins ((public.lure('a')))"],
  ["a part of an index", "create index lure on public.user_logins (user_id) where public.lure()"],
  [
    "statistics",
    "create statistics public.lure on (public.lure('a')), user_id from public.user_logins",
  ],
] as const) {
  test(`${what} that would run when a query is planned: the table is refused, and it does not run`, async () => {
    await plant(sql);
    const before = await shapeOf(admin);
    const refused = await refusal(asSuperuser(database));
    expect([refused.code, await hasRun()]).toEqual(["VL090", false]);
    expect(refused.message).toContain("uses a function or a type that is not PostgreSQL's own");
    expect(await shapeOf(admin)).toEqual(before);
    // It would have, in a session that knows nothing of the table yet.
    await database.sql(database.ownerUrl).unsafe(READS);
    expect(await hasRun()).toBe(true);
  });
}

for (const [what, sql, when] of [
  [
    "a policy",
    `create policy lure on public.user_logins using (public.lure());
     alter table public.user_logins enable row level security;
     alter table public.user_logins force row level security`,
    "set role {keeper}; select * from public.user_logins_before_veil; reset role",
  ],
  [
    "a check",
    "alter table public.user_logins add constraint lure check (public.lure())",
    "set constraint_exclusion = on; select * from public.user_logins_before_veil where user_id = 'a'",
  ],
  [
    "a trigger",
    `create trigger lure before insert or update on public.user_logins
       for each row execute function public.lure_trigger()`,
    "insert into public.user_logins_before_veil (user_id) values ('a')",
  ],
  [
    "a rule",
    "create rule lure as on insert to public.user_logins do instead select public.lure()",
    "insert into public.user_logins_before_veil (user_id) values ('a')",
  ],
  [
    "a default",
    "alter table public.user_logins alter locale set default public.lure('a')",
    "insert into public.user_logins_before_veil (user_id) values ('a')",
  ],
  [
    "a view under a name that is looked up",
    `create view public.pg_class as select c.* from pg_catalog.pg_class c where public.lure();
     create view public.pg_roles as select r.* from pg_catalog.pg_roles r where public.lure()`,
    "select * from public.pg_roles",
  ],
] as const) {
  test(`${what} stays on the renamed table, and does not run`, async () => {
    await plant(sql);
    await admin.unsafe(`alter database ${database.name} set constraint_exclusion = on`);
    await admin.unsafe(`alter database ${database.name} set search_path = public, pg_catalog`);
    expect((await asSuperuser(database)).copied?.rows).toBe(1);
    expect(await hasRun()).toBe(false);
    await admin.unsafe(when.replace("{keeper}", keeper));
    expect(await hasRun()).toBe(true);
  });
}

test("a table that is replaced while the migration waits for it is looked at again", async () => {
  const other = database.sql(database.ownerUrl);
  await other.unsafe("begin; lock table public.user_logins in access share mode");
  const migrating = asSuperuser(database);
  // It waits for the lock by then, or comes later: both end alike.
  for (let waits = false; !waits; ) {
    const [row] = await admin`
      select count(*)::int as n from pg_catalog.pg_locks l
      where l.relation = 'public.user_logins'::regclass and not l.granted`;
    waits = row?.n === 1;
  }
  await other.unsafe(`
    alter table public.user_logins rename to aside;
    create view public.user_logins as select user_id from public.aside where public.lure(); commit`);
  const refused = await refusal(migrating);
  expect(refused.message).toContain("it is a view");
  expect(await hasRun()).toBe(false);
});
