// What each role may do, over a real login, and above all what it may not. The catalog lists the
// objects, so a new table or function is denied here until somebody writes it down as allowed.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type postgres from "postgres";
import { createDatabase, ROLES, type Role, type TestDatabase } from "../support/database.ts";
import { attempt, serverVersion } from "./attempt.ts";

type Allowed = {
  readonly relations: readonly string[];
  readonly columns: readonly string[];
  readonly functions: readonly string[];
  readonly schemas: readonly string[];
};

/** For everybody: whether the database is the one that the program knows. */
const SCHEMA = ["etl.schema_hash", "etl.schema_version"];
/** For everybody who puts something on record, or looks after the record. */
const CHAINING = ["pii_vault.chain_audit", "pii_vault.chain_waiting"];

const ALLOWED: Record<Role, Allowed> = {
  etl: {
    relations: [],
    columns: [],
    functions: ["etl.housekeep", "etl.load", ...SCHEMA, ...CHAINING],
    schemas: ["etl", "pii_vault"],
  },
  analyst: {
    relations: [
      "SELECT public.user_logins",
      "SELECT public.user_logins_per_token_and_day",
      "SELECT public.user_logins_shared_tokens",
    ],
    columns: [],
    functions: ["etl.app_version_text", ...SCHEMA],
    schemas: ["etl"],
  },
  revealer: {
    relations: [],
    columns: [],
    functions: [
      ...SCHEMA,
      ...CHAINING,
      "pii_vault.fetch_in_periods",
      "pii_vault.fetch_reveal",
      "pii_vault.request_reveal",
      "pii_vault.request_reveal",
      "pii_vault.request_state",
    ],
    schemas: ["etl", "pii_vault"],
  },
  operator: {
    relations: [],
    columns: [
      "SELECT etl.quarantine.changed_at",
      "SELECT etl.quarantine.changed_by",
      "SELECT etl.quarantine.message_id",
      "SELECT etl.quarantine.quarantined_at",
      "SELECT etl.quarantine.reason",
      "SELECT etl.quarantine.sent_at",
      "SELECT etl.quarantine.state",
    ],
    functions: [
      "etl.check_invariant",
      "etl.discard",
      "etl.fetch_bodies",
      "etl.replay",
      "etl.request_bodies",
      ...SCHEMA,
      ...CHAINING,
      "pii_vault.request_state",
    ],
    schemas: ["etl", "pii_vault"],
  },
  auditor: {
    relations: [
      "SELECT pii_vault.audit",
      "SELECT pii_vault.audit_chain",
      "SELECT pii_vault.audit_head",
      "SELECT pii_vault.audit_waiting",
      "SELECT pii_vault.holds",
      "SELECT pii_vault.policies",
      "SELECT pii_vault.reviews",
      "SELECT pii_vault.tombstones",
      "SELECT pii_vault.verdicts",
    ],
    columns: [],
    functions: [
      "etl.check_invariant",
      ...SCHEMA,
      ...CHAINING,
      "pii_vault.list_holds",
      "pii_vault.recent_alarms",
      "pii_vault.unreviewed_requests",
      "pii_vault.waiting_requests",
    ],
    schemas: ["etl", "pii_vault"],
  },
  policy: {
    relations: ["SELECT pii_vault.canaries", "SELECT pii_vault.policies"],
    columns: [],
    functions: [
      ...SCHEMA,
      "pii_vault.add_hold",
      ...CHAINING,
      "pii_vault.is_hold_empty",
      "pii_vault.lift_tombstones",
      "pii_vault.list_holds",
      "pii_vault.place_of",
      "pii_vault.plant_canary",
      "pii_vault.release_hold",
      "pii_vault.remove_canary",
      "pii_vault.set_policy",
    ],
    schemas: ["etl", "pii_vault"],
  },
  approver: {
    relations: ["SELECT pii_vault.policies"],
    columns: [],
    functions: [
      ...SCHEMA,
      ...CHAINING,
      "pii_vault.decide",
      "pii_vault.recent_alarms",
      "pii_vault.review",
      "pii_vault.unreviewed_requests",
      "pii_vault.waiting_requests",
    ],
    schemas: ["etl", "pii_vault"],
  },
  breakglass: {
    relations: [],
    columns: [],
    functions: [
      ...SCHEMA,
      "pii_vault.break_glass",
      ...CHAINING,
      "pii_vault.fetch_in_periods",
      "pii_vault.fetch_reveal",
      "pii_vault.request_state",
    ],
    schemas: ["etl", "pii_vault"],
  },
  eraser: {
    relations: [],
    columns: [],
    functions: [
      ...SCHEMA,
      ...CHAINING,
      "pii_vault.expire_bodies",
      "pii_vault.expire_period",
      "pii_vault.forget_tokens",
      "pii_vault.forget_user",
      "pii_vault.list_holds",
      "pii_vault.place_of",
      "pii_vault.plan_expire",
      "pii_vault.plan_expire_period",
      "pii_vault.plan_forget_tokens",
      "pii_vault.plan_forget_user",
    ],
    schemas: ["etl", "pii_vault"],
  },
};

const VEIL_ROLES = ["veil_owner", ...ROLES.map((role) => `veil_${role}`)];
const SCHEMAS = ["etl", "pii_vault"];

let database: TestDatabase;
let owner: postgres.Sql;
let version: number;
const logins = new Map<Role, postgres.Sql>();

beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  version = await serverVersion(owner);
  for (const role of ROLES) logins.set(role, database.sql(database.url(role)));
});
afterAll(() => database.drop());

const relations = async () =>
  await owner<{ name: string; kind: string }[]>`
    select format('%I.%I', n.nspname, c.relname) as name, c.relkind::text as kind
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('public', 'etl', 'pii_vault') and c.relkind in ('r', 'p', 'v', 'm', 'f')
    order by 1`;

const functions = async () =>
  await owner<{ name: string; signature: string; call: string }[]>`
    select
      format('%I.%I', n.nspname, p.proname) as name,
      p.oid::regprocedure::text as signature,
      format('%s %I.%I(%s)', case p.prokind when 'p' then 'call' else 'select' end, n.nspname, p.proname, (
        -- Zero and not null for a number: a strict function of null is not called at all.
        select string_agg(
          format('%s::%s', case t when 'integer'::regtype then '0' else 'null' end, t::regtype),
          ', ' order by position
        )
        from unnest(p.proargtypes::oid[]) with ordinality as a (t, position)
      )) as call
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('etl', 'pii_vault')
    order by 1`;

const PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];

describe.each([...ROLES])("a login of veil_%s", (role) => {
  const allowed = ALLOWED[role];
  const login = (): postgres.Sql => {
    const sql = logins.get(role);
    if (sql === undefined) throw new Error("no such login");
    return sql;
  };

  test("cannot select, insert, update, delete or truncate what is not listed", async () => {
    const found: string[] = [];
    const wrong: string[] = [];
    for (const { name, kind } of await relations()) {
      const [column] = await owner.unsafe(
        `select quote_ident(attname) as name from pg_catalog.pg_attribute
         where attrelid = '${name}'::regclass and attnum > 0 order by attnum limit 1`,
      );
      const statements: Record<string, string> = {
        SELECT: `select * from ${name} limit 0`,
        INSERT: `insert into ${name} default values`,
        ...(column === undefined ? {} : { UPDATE: `update ${name} set ${column.name} = default` }),
        DELETE: `delete from ${name}`,
        TRUNCATE: `truncate ${name}`,
      };
      for (const [privilege, statement] of Object.entries(statements)) {
        // A view that aggregates refuses to be written before anybody's rights are looked at.
        const expected =
          kind === "v" && privilege !== "SELECT" ? /^(42501|55000|42809)$/ : /^42501$/;
        const code = await attempt(login(), statement);
        if (code === "allowed") found.push(`${privilege} ${name}`);
        else if (!expected.test(code)) wrong.push(`${privilege} ${name}: ${code}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(found).toEqual([...allowed.relations]);
  });

  test("holds no privilege on a relation but those listed", async () => {
    const privileges = version >= 170000 ? [...PRIVILEGES, "MAINTAIN"] : PRIVILEGES;
    const rows = await login()`
      select privilege || ' ' || format('%I.%I', n.nspname, c.relname) as held
      from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      cross join unnest(${`{${privileges.join()}}`}::text[]) as p (privilege)
      where n.nspname in ('public', 'etl', 'pii_vault') and c.relkind in ('r', 'p', 'v', 'm', 'f')
        and has_table_privilege(c.oid, privilege)
      order by 1`;
    expect(rows.map((row) => row.held)).toEqual([...allowed.relations]);
    const sequences = await login()`
      select c.relname from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where n.nspname in ('public', 'etl', 'pii_vault')
        and case c.relkind when 'S'
          then has_sequence_privilege(c.oid, 'usage, select, update') else false end`;
    expect(sequences.map((row) => row.relname)).toEqual([]);
  });

  test("holds no privilege on a column but those listed", async () => {
    const rows = await login()`
      select privilege || ' ' || format('%I.%I.%I', n.nspname, c.relname, a.attname) as held
      from pg_catalog.pg_attribute a
      join pg_catalog.pg_class c on c.oid = a.attrelid
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as p (privilege)
      where n.nspname in ('public', 'etl', 'pii_vault') and c.relkind in ('r', 'p', 'v', 'm', 'f')
        and not a.attisdropped
        and has_column_privilege(c.oid, a.attnum, privilege)
        and not has_table_privilege(c.oid, privilege)
      order by 1`;
    expect(rows.map((row) => row.held)).toEqual([...allowed.columns]);
  });

  test("cannot execute a function that is not listed", async () => {
    const all = await functions();
    expect(all.length).toBeGreaterThan(15);
    const held: string[] = [];
    const ran: string[] = [];
    for (const { name, signature, call } of all) {
      const [row] = await owner`
        select has_function_privilege(${database.login(role)}, ${signature}, 'execute') as held`;
      if (row?.held === true) held.push(name);
      if ((await attempt(login(), call)) !== "42501") ran.push(name);
    }
    expect(held).toEqual([...allowed.functions]);
    expect(ran).toEqual([...allowed.functions]);
  });

  test("may use the listed schemas and create in none", async () => {
    const rows = await login()`
      select nspname as name from pg_catalog.pg_namespace
      where nspname = any(${`{${SCHEMAS.join()}}`}::text[]) and has_schema_privilege(oid, 'usage') order by 1`;
    expect(rows.map((row) => row.name)).toEqual([...allowed.schemas]);
    for (const schema of SCHEMAS) {
      expect(await attempt(login(), `create table ${schema}.mine (n integer)`)).toBe("42501");
      expect(await attempt(login(), `create function ${schema}.mine() returns int return 1`)).toBe(
        "42501",
      );
    }
    // Up to 14, PostgreSQL itself lets everybody create in public; veil adds nothing to that.
    expect(await attempt(login(), "create table public.mine (n integer)")).toBe(
      version >= 150000 ? "42501" : "allowed",
    );
    expect(await attempt(login(), "create schema mine")).toBe("42501");
  });

  test("cannot make a temporary table", async () => {
    expect(await attempt(login(), "create temporary table mine (n integer)")).toBe("42501");
    expect(await attempt(login(), "create domain pg_temp.mine as text")).toBe("42501");
  });

  test("cannot become another role or another login", async () => {
    for (const other of VEIL_ROLES.filter((name) => name !== `veil_${role}`)) {
      expect([other, await attempt(login(), `set role ${other}`)]).toEqual([other, "42501"]);
    }
    for (const other of ROLES.filter((name) => name !== role)) {
      const name = database.login(other);
      expect(await attempt(login(), `set role ${name}`)).toBe("42501");
      expect(await attempt(login(), `set session authorization ${name}`)).toBe("42501");
    }
    expect(await attempt(login(), "set session authorization postgres")).toBe("42501");
    expect(await attempt(login(), `grant veil_owner to ${database.login(role)}`)).toBe("42501");
    expect(await attempt(login(), "create role mine")).toBe("42501");
  });

  test("cannot change what veil has made", async () => {
    for (const statement of [
      "alter table public.user_logins add column mine integer",
      "alter table pii_vault.audit disable trigger all",
      "alter table pii_vault.requests disable trigger all",
      "drop table etl.ledger",
      "drop function etl.schema_version()",
      "create or replace function etl.schema_version() returns integer return 999",
      "alter function etl.housekeep() owner to session_user",
      "lock table public.user_logins in access exclusive mode",
      "set session_replication_role = replica",
      "alter default privileges for role veil_owner grant execute on functions to public",
    ]) {
      expect([statement, await attempt(login(), statement)]).toEqual([statement, "42501"]);
    }
  });
});

test("a login without a veil role can do nothing with veil's objects", async () => {
  const name = `test_nobody_${crypto.randomUUID().slice(0, 8)}`;
  await owner.unsafe(`create role ${name} login password 'test'`);
  const url = new URL(database.ownerUrl);
  url.username = name;
  url.password = "test";
  const nobody = database.sql(url.href);
  try {
    for (const { name: relation } of await relations()) {
      expect([relation, await attempt(nobody, `select * from ${relation} limit 0`)]).toEqual([
        relation,
        "42501",
      ]);
    }
    for (const { call } of await functions()) {
      expect([call, await attempt(nobody, call)]).toEqual([call, "42501"]);
    }
  } finally {
    await nobody.end();
    await owner.unsafe(`drop role ${name}`);
  }
});

test("PUBLIC is granted nothing on anything that veil has made", async () => {
  const granted = await owner`
    select 'relation ' || c.oid::regclass || ' ' || a.privilege_type as what
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace,
    pg_catalog.aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
    where (n.nspname in ('etl', 'pii_vault') or c.relowner = 'veil_owner'::regrole)
      and a.grantee = 0
    union all
    select 'column ' || t.attrelid::regclass || '.' || t.attname || ' ' || a.privilege_type
    from pg_catalog.pg_attribute t
    join pg_catalog.pg_class c on c.oid = t.attrelid, pg_catalog.aclexplode(t.attacl) a
    where c.relowner = 'veil_owner'::regrole and a.grantee = 0
    union all
    select 'function ' || p.oid::regprocedure || ' ' || a.privilege_type
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace,
    pg_catalog.aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    where (n.nspname in ('etl', 'pii_vault') or p.proowner = 'veil_owner'::regrole)
      and a.grantee = 0
    union all
    select 'schema ' || n.nspname || ' ' || a.privilege_type
    from pg_catalog.pg_namespace n,
    pg_catalog.aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    where n.nspname in ('etl', 'pii_vault') and a.grantee = 0
    union all
    select 'database ' || a.privilege_type
    from pg_catalog.pg_database d,
    pg_catalog.aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    where d.datname = current_database() and a.grantee = 0 and a.privilege_type <> 'CONNECT'`;
  expect(granted.map((row) => row.what)).toEqual([]);
});

test("a function that veil_owner makes later is born without execute for everybody", async () => {
  await owner.begin(async (sql) => {
    await sql.unsafe("set local role veil_owner");
    await sql.unsafe("create function etl.born_later() returns integer language sql as 'select 1'");
    const [row] = await sql`
      select has_function_privilege(${database.login("etl")}, 'etl.born_later()', 'execute') as held`;
    expect(row?.held).toBe(false);
    await sql.unsafe("drop function etl.born_later()");
  });
});

test("everything in veil's schemas belongs to veil_owner, and no veil role can log in", async () => {
  const foreign = await owner`
    select c.oid::regclass::text as name from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where (n.nspname in ('etl', 'pii_vault') or c.relname like 'user_logins%')
      and c.relowner <> 'veil_owner'::regrole
    union all
    select p.oid::regprocedure::text from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('etl', 'pii_vault') and p.proowner <> 'veil_owner'::regrole
    union all
    select nspname from pg_catalog.pg_namespace
    where nspname in ('etl', 'pii_vault') and nspowner <> 'veil_owner'::regrole`;
  expect(foreign.map((row) => row.name)).toEqual([]);
  const strong = await owner`
    select rolname from pg_catalog.pg_roles
    where rolname like 'veil\\_%' and (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb
      or rolreplication or rolbypassrls)`;
  expect(strong.map((row) => row.rolname)).toEqual([]);
});
