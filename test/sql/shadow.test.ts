// A caller who may make temporary objects again shadows every type and name that veil's definer
// functions use: whatever he plants runs as himself, never as veil_owner.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { INVARIANTS } from "../../src/check.ts";
import { array, byteaArray } from "../../src/postgres/values.ts";
import { createDatabase, ROLES, type Role, type TestDatabase } from "../support/database.ts";
import { outcome } from "./attempt.ts";
import { keepBusy } from "./busy.ts";
import { callLoad, type Host, loadArguments, makeHost } from "./host.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
let stopBeingBusy: () => Promise<void>;

/** Types by the names that SQL and the catalog give them. */
const TYPES = [
  ...["text", "uuid", "date", "bytea", "name", "int4", "integer", "int8", "bigint", "bool"],
  ...["boolean", "timestamptz", "timestamp", "interval", "xid8", "jsonb", "json", "oid"],
  ...["varchar", "regclass", "regrole", "pg_lsn", "record", "void", "trigger"],
];
const ARRAY_TYPES = ["_text", "_uuid", "_bytea", "_int4", "_timestamptz"];
const RELATIONS = [
  ...["originals", "data_keys", "key_generations", "audit", "requests", "quarantine", "ledger"],
  ...["ledger_default", "migrations", "user_logins", "pg_roles", "pg_class", "pg_inherits"],
  ...["h", "t", "u", "m", "o", "k", "q", "r", "stored", "discarded"],
  ...[
    "policies",
    "verdicts",
    "reviews",
    "spenders",
    "canaries",
    "asked",
    "rule",
    "f",
    "p",
    "s",
    "v",
  ],
  ...["audit_chain", "audit_head", "audit_waiting", "w", "c", "a", "l", "n", "head", "entry"],
  ...["tombstones", "holds", "erasure_gate", "back", "changes", "found", "gone", "held", "page"],
  ...["assessed", "emptied", "erased", "g", "locked", "receipts", "stones", "updated"],
  ...["ledger_totals", "adopted", "lost", "broken", "days", "ids", "seals", "nonces", "read"],
];
const FUNCTIONS = [
  ...["sha256(bytea)", "now()", "clock_timestamp()", "cardinality(anyarray)", "btrim(text)"],
  ...["unnest(anyarray)", "char_length(text)", "array_ndims(anyarray)", "pg_is_in_recovery()"],
  ...["pg_current_xact_id_if_assigned()", "current_setting(text)", "gen_random_uuid()"],
  ...["to_char(date, text)", "octet_length(bytea)", "pg_current_xact_id()", "max(integer)"],
  ...["pg_notify(text, text)", "jsonb_populate_record(anyelement, jsonb)", "to_json(anyelement)"],
  ...["pg_stat_get_activity(int4)", "json_strip_nulls(json)", "bool_or(bool)", "format(text)"],
  ...[
    "timestamptz_send(timestamptz)",
    "convert_to(text, name)",
    "int8send(int8)",
    "int4send(int4)",
  ],
  ...["uuid_send(uuid)", "oidsend(oid)", "current_query()", "set_config(text, text, bool)"],
  ...["starts_with(text, text)", "isfinite(date)", "count(anyarray)", "decode(text, text)"],
];

/** Everything planted tells by a notice as whom it runs: that survives a rollback. */
async function plant(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(`
    create function pg_temp.spy(what pg_catalog.text) returns pg_catalog.bool
      language plpgsql as $$ begin
        raise notice 'spy: % as %', what, current_user; return true;
      end $$;
    create function pg_temp.spy_trigger() returns pg_catalog.trigger
      language plpgsql as $$ begin
        raise notice 'spy: trigger of % as %', tg_relid::pg_catalog.regclass, current_user;
        return null;
      end $$;
    create function pg_temp.spy_equal(a pg_catalog.text, b pg_catalog.text)
      returns pg_catalog.bool language plpgsql as $$ begin
        raise notice 'spy: operator as %', current_user; return true;
      end $$;
    create operator pg_temp.= (
      leftarg = pg_catalog.text, rightarg = pg_catalog.text, function = pg_temp.spy_equal
    );
  `);
  for (const relation of RELATIONS) {
    await sql.unsafe(`
      create table pg_temp.${relation} (
        id pg_catalog.int4, token pg_catalog.text, version pg_catalog.int4
          check (pg_temp.spy('check of ${relation}'))
      );
      create trigger spy after insert or update or delete on pg_temp.${relation}
        for each statement execute function pg_temp.spy_trigger();
      grant all on pg_temp.${relation} to public`);
  }
  for (const signature of FUNCTIONS) {
    const [name, parameters] = signature.replace(")", "").split("(");
    const types = (parameters ?? "")
      .split(", ")
      .filter((type) => type !== "")
      .map((type) => `pg_catalog.${type === "integer" ? "int4" : type}`);
    await sql.unsafe(`create function pg_temp.${name}(${types.join(", ")})
      returns pg_catalog.text language plpgsql as $$ begin
        perform pg_temp.spy('function ${name}'); return null;
      end $$`);
  }
  // Last: from here on, every one of these names is the domain's.
  for (const type of [...TYPES, ...ARRAY_TYPES]) {
    const base = BASES[type] ?? type;
    await sql.unsafe(
      `create domain pg_temp."${type}" as pg_catalog.${base} check (pg_temp.spy('domain ${type}'))`,
    );
  }
}

const BASES: Record<string, string> = {
  ...{ integer: "int4", bigint: "int8", boolean: "bool", record: "text", void: "text" },
  trigger: "text",
};

type Spied = { readonly sql: postgres.Sql; readonly seen: string[] };

async function spied(url: string): Promise<Spied> {
  const seen: string[] = [];
  const sql = database.sql(url, {
    onnotice: (notice) => {
      if (notice.message?.startsWith("spy: ")) seen.push(notice.message);
    },
  });
  await plant(sql);
  seen.length = 0;
  return { sql, seen };
}

const spies = new Map<Role, Spied>();
const spyOf = (role: Role): Spied => {
  const spy = spies.get(role);
  if (spy === undefined) throw new Error("no such login");
  return spy;
};

beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  stopBeingBusy = keepBusy(database.sql(database.ownerUrl));
  host = await makeHost();
  await host.load(database.open(database.url("etl")), [
    { id: "m1", body: { user_id: "u", ip: "203.0.113.1" } },
    { id: "b1", body: "broken" },
    { id: "b2", body: "broken" },
    { id: "b3", body: "broken" },
  ]);
  for (const role of ROLES) {
    await owner.unsafe(
      `grant temporary on database ${database.name} to ${database.login(role)}, veil_owner`,
    );
    spies.set(role, await spied(database.url(role)));
  }
});
afterAll(async () => {
  await stopBeingBusy();
  await database.drop();
});

/** Each definer function, called so that it runs to its end. */
const CALLS: Record<string, (role: Role, sql: postgres.Sql) => Promise<void>> = {
  "etl.schema_hash": async (_, sql) => {
    const [row] = await sql.unsafe("select etl.schema_hash() as hash");
    expect(row?.hash).toMatch(/^[0-9a-f]{64}$/);
  },
  "etl.schema_version": async (_, sql) => {
    const [row] = await sql.unsafe("select etl.schema_version() > 0 as reached");
    expect(row?.reached).toBe(true);
  },
  "etl.housekeep": async (_, sql) => {
    await owner.unsafe(`drop table etl.${await lastPartition()}`);
    const [row] = await sql.unsafe("select created from etl.housekeep()");
    expect(row?.created).toBe(1);
  },
  "etl.load": async (_, sql) => {
    const batch = await (await makeHost(host.keys)).protect([
      { id: "m2", body: { user_id: "u", ip: "203.0.113.2", device_id: "d" } },
      { id: "b9", body: "broken" },
    ]);
    expect(await callLoad(sql, loadArguments(host, batch))).toMatchObject({
      loaded: 1,
      quarantined: 1,
      new_originals: 2,
    });
  },
  "etl.check_invariant": async (_, sql) => {
    for (const { name } of INVARIANTS) {
      const [row] = await sql.unsafe("select offenders from etl.check_invariant($1)", [name]);
      expect([name, row?.offenders]).toEqual([name, "0"]);
    }
  },
  "pii_vault.chain_waiting": async (_, sql) => {
    await owner`insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)`;
    const [row] = await sql.unsafe("call pii_vault.chain_audit()");
    expect(row?.chained).toBeGreaterThan(0);
  },
  "pii_vault.request_reveal": async (_, sql) => {
    for (const purpose of ["", ", 'fraud'"]) {
      const [row] = await sql.unsafe(`select pii_vault.request_reveal($1, $2${purpose}) as id`, [
        array([host.token("ip", "203.0.113.1")]),
        "because",
      ]);
      expect(row?.id).toBeString();
    }
  },
  "pii_vault.break_glass": async (role, sql) => {
    expect(await anyRequest(role, sql)).toBeString();
  },
  "pii_vault.fetch_reveal": async (role, sql) => {
    const id = await anyRequest(role, sql);
    const rows = await sql.unsafe("select * from pii_vault.fetch_reveal($1)", [id]);
    expect(rows.map((found) => found.token)).toEqual([host.token("ip", "203.0.113.1")]);
  },
  "pii_vault.fetch_in_periods": async (role, sql) => {
    const id = await anyRequest(role, sql);
    const token = host.token("ip", "203.0.113.1");
    const rows = await sql.unsafe(
      "select * from pii_vault.fetch_in_periods($1, $2::text[], '{NULL}')",
      [id, `{${token}}`],
    );
    expect(rows.map((found) => found.token)).toEqual([token]);
    expect(rows[0]?.sealed).toBeInstanceOf(Uint8Array);
  },
  "pii_vault.request_state": async (role, sql) => {
    const id =
      role === "operator" ? await requestBodies(sql, "b1", "show") : await anyRequest(role, sql);
    const [row] = await sql.unsafe("select pii_vault.request_state($1) as state", [id]);
    expect(row?.state).toBe("ready");
  },
  "pii_vault.set_policy": async (_, sql) => {
    // A budget that nobody meets, so that what counts it runs in every request from here on.
    const settings = '{"purposes":["fraud"],"daily":1000000,"reason_required":false}';
    for (const given of [settings, '{"purposes":[]}']) {
      const [row] = await sql.unsafe(
        "select field from pii_vault.set_policy('ip', $1::pg_catalog.text::pg_catalog.jsonb, null)",
        [given],
      );
      expect(row?.field).toBe("ip");
    }
  },
  "pii_vault.waiting_requests": async (_, sql) => {
    await waitingRequest();
    const rows = await sql.unsafe("select request from pii_vault.waiting_requests()");
    expect(rows.length).toBeGreaterThan(0);
  },
  "pii_vault.decide": async (_, sql) => {
    await sql.unsafe("select pii_vault.decide($1, true, 'fine')", [await waitingRequest()]);
  },
  "pii_vault.unreviewed_requests": async (_, sql) => {
    await anyRequest("breakglass", database.sql(database.url("breakglass")));
    const rows = await sql.unsafe("select request from pii_vault.unreviewed_requests()");
    expect(rows.length).toBeGreaterThan(0);
  },
  "pii_vault.review": async (_, sql) => {
    const id = await anyRequest("breakglass", database.sql(database.url("breakglass")));
    await sql.unsafe("select pii_vault.review($1, 'fine')", [id]);
  },
  "pii_vault.plant_canary": async (_, sql) => {
    const batch = await host.protect([{ id: "c", body: { user_id: "u", ip: CANARY } }]);
    const [[token, sealed] = []] = batch.originals;
    await sql.unsafe("select pii_vault.plant_canary($1, $2, $3, $4, $5, $6, $7, $8, null)", [
      ...[token!, sealed!, host.subkeys.generation, host.subkeys.check, batch.key.wrapped.id],
      ...[batch.key.wrapped.wrapped, array(batch.key.wrapped.recipients), batch.key.wrapped.proof],
    ]);
  },
  "pii_vault.recent_alarms": async (_, sql) => {
    await sql.unsafe("select entry from pii_vault.recent_alarms()");
  },
  "pii_vault.remove_canary": async (_, sql) => {
    await sql.unsafe("select pii_vault.remove_canary($1, null)", [host.token("ip", CANARY)]);
  },
  "etl.request_bodies": async (_, sql) => {
    expect(await requestBodies(sql, "b1", "show")).toBeString();
  },
  "etl.fetch_bodies": async (_, sql) => {
    const id = await requestBodies(sql, "b1", "show");
    const rows = await sql.unsafe("select * from etl.fetch_bodies($1, $2)", [id, "show"]);
    expect(rows.map((found) => found.message_id)).toEqual(["b1"]);
  },
  "etl.replay": async (_, sql) => {
    const id = await requestBodies(sql, "b2", "replay");
    const key = await host.dataKeys.take(1);
    const token = host.token("ip", "203.0.113.3");
    const batch = await host.protect([{ id: "b2", body: { user_id: "u", ip: "203.0.113.3" } }]);
    const [row] = await sql.unsafe(
      `select etl.replay($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         as done`,
      [
        ...[id, "b2", host.subkeys.generation, host.subkeys.check, key.wrapped.id],
        ...[key.wrapped.wrapped, array(key.wrapped.recipients), key.wrapped.proof],
        ...[array([token]), byteaArray([...batch.originals.values()]), "u", "phone", token],
        ...[null, "de", 1],
      ],
    );
    expect(row?.done).toBe(true);
  },
  "etl.discard": async (_, sql) => {
    const [row] = await sql.unsafe("select etl.discard($1, $2) as n", [array(["b3"]), "no use"]);
    expect(row?.n).toBe(1);
  },
  "pii_vault.plan_forget_user": async (_, sql) => {
    const user = await someUser();
    const rows = await sql.unsafe("select outcome from pii_vault.plan_forget_user($1)", [user]);
    expect(rows.map((row) => row.outcome)).toEqual(["erase", "erase"]);
  },
  "pii_vault.plan_forget_tokens": async (_, sql) => {
    const tokens = await tokensOf(await someUser());
    const rows = await sql.unsafe("select outcome from pii_vault.plan_forget_tokens($1)", [tokens]);
    expect(rows.map((row) => row.outcome)).toEqual(["erase", "erase"]);
  },
  "pii_vault.forget_user": async (_, sql) => {
    const forget = "select (receipt ->> 'rows')::int4 as rows from pii_vault.forget_user($1, 'r')";
    expect((await sql.unsafe(forget, [await someUser()]))[0]?.rows).toBe(1);
  },
  "pii_vault.forget_tokens": async (_, sql) => {
    const forget = "select receipt from pii_vault.forget_tokens($1, 'r')";
    const [row] = await sql.unsafe(forget, [await tokensOf(await someUser())]);
    expect(row?.receipt).toMatchObject({ originals: 2, rows: 1 });
  },
  "pii_vault.plan_expire": async (_, sql) => {
    await someUser("2020-01-01");
    const [row] = await sql.unsafe("select * from pii_vault.plan_expire(400, true)");
    expect(row?.first).toBe("2020-01-01");
  },
  "pii_vault.plan_expire_period": async (_, sql) => {
    await someUser("2020-01-02");
    const [row] = await sql.unsafe(
      "select originals::int4 from pii_vault.plan_expire_period('2020-01-02', true)",
    );
    expect(row?.originals).toBeGreaterThan(0);
  },
  "pii_vault.expire_period": async (_, sql) => {
    await someUser("2020-01-03");
    const [row] = await sql.unsafe(
      `select originals::int4, is_over
       from pii_vault.expire_period('2020-01-03', true, pg_catalog.gen_random_uuid(), 'retention')`,
    );
    expect(row?.originals).toBeGreaterThan(0);
    expect(row?.is_over).toBe(false);
  },
  "pii_vault.expire_bodies": async (_, sql) => {
    await host.load(database.open(database.url("etl")), [
      { id: randomUUID(), body: "broken", sentAt: new Date("2020-01-01") },
    ]);
    await owner`update etl.quarantine set quarantined_at = sent_at where sent_at = '2020-01-01'`;
    const [row] = await sql.unsafe(
      "select * from pii_vault.expire_bodies(400, pg_catalog.gen_random_uuid(), 'retention', false)",
    );
    expect(row?.discarded).toBe(1);
  },
  "pii_vault.lift_tombstones": async (_, sql) => {
    const tokens = await tokensOf(await someUser());
    await owner`select pii_vault.forget_tokens(${tokens}::text[], 'r')`;
    const [row] = await sql.unsafe("select pii_vault.lift_tombstones($1, 'r') as n", [tokens]);
    expect(row?.n).toBe(2);
  },
  "pii_vault.add_hold": async (_, sql) => {
    const [row] = await sql.unsafe("select pii_vault.add_hold(null, 'nobody', 'r') as id");
    await owner`select pii_vault.release_hold(${row?.id}, 'r')`;
  },
  "pii_vault.is_hold_empty": async (_, sql) => {
    const [hold] = await owner`select pii_vault.add_hold(null, 'nobody', 'r') as id`;
    const [row] = await sql.unsafe("select pii_vault.is_hold_empty($1) as empty", [hold?.id]);
    expect(row?.empty).toBe(true);
    await owner`select pii_vault.release_hold(${hold?.id}, 'r')`;
  },
  "pii_vault.release_hold": async (_, sql) => {
    const [hold] = await owner`select pii_vault.add_hold(null, 'nobody', 'r') as id`;
    await sql.unsafe("select pii_vault.release_hold($1, 'r')", [hold?.id]);
  },
  "pii_vault.list_holds": async (_, sql) => {
    const [hold] = await owner`select pii_vault.add_hold(null, 'nobody', 'r') as id`;
    await owner`select pii_vault.release_hold(${hold?.id}, 'r')`;
    const rows = await sql.unsafe("select id from pii_vault.list_holds()");
    expect(rows.some((row) => row.id === hold?.id)).toBe(true);
  },
  "pii_vault.place_of": async (role, sql) => {
    await owner.unsafe("call pii_vault.chain_audit()");
    const [entry] = await owner`
      select max(id) as id from pii_vault.audit
      where login = ${database.login(role)} and action ~ '^(erasure|hold|tombstone)'`;
    const rows = await sql.unsafe("select * from pii_vault.place_of($1)", [entry?.id]);
    expect(rows.length).toBe(1);
  },
};

/** One login of somebody new's, with an address and a device of its own. */
async function someUser(day?: string): Promise<string> {
  const user = randomUUID();
  await host.load(database.open(database.url("etl")), [
    {
      id: randomUUID(),
      body: { user_id: user, ip: `address of ${user}`, device_id: `device of ${user}` },
      ...(day === undefined ? {} : { sentAt: new Date(day) }),
    },
  ]);
  return user;
}

const tokensOf = async (user: string): Promise<string> =>
  array([host.token("ip", `address of ${user}`), host.token("device_id", `device of ${user}`)]);

const CANARY = "198.51.100.77";

/** Of this role's own, ready to be fetched. */
async function anyRequest(role: Role, sql: postgres.Sql): Promise<string> {
  const asking =
    role === "breakglass"
      ? "pii_vault.break_glass($1, 'because', null)"
      : "pii_vault.request_reveal($1, null)";
  const [row] = await sql.unsafe(`select ${asking} as id`, [
    array([host.token("ip", "203.0.113.1")]),
  ]);
  return String(row?.id);
}

/** Somebody else's, that waits for approval. */
async function waitingRequest(): Promise<string> {
  const set = (approval: boolean) =>
    owner.unsafe(`update pii_vault.policies set approval = ${approval} where field = 'ip'`);
  await set(true);
  const id = await anyRequest("revealer", database.sql(database.url("revealer")));
  await set(false);
  return id;
}

async function requestBodies(sql: postgres.Sql, id: string, purpose: string): Promise<string> {
  const [row] = await sql.unsafe("select etl.request_bodies($1, $2, null) as id", [
    array([id]),
    purpose,
  ]);
  return String(row?.id);
}

/** The last one ahead: nothing has been stored in it. */
async function lastPartition(): Promise<string> {
  const [row] = await owner`
    select max(relname::text) as name from pg_catalog.pg_class
    where relname ~ '^ledger_[0-9]{8}$' and relkind = 'r'`;
  return String(row?.name);
}

const definers = async () =>
  await owner`
    select format('%I.%I', n.nspname, p.proname) as name, p.oid::regprocedure::text as signature,
      p.proconfig as settings, p.proowner::regrole::text as owner
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.prosecdef and n.nspname !~ '^pg_temp_'
      and n.nspname not in ('pg_catalog', 'information_schema')
    order by 1`;

test("these tests call every definer function that there is", async () => {
  const found = await definers();
  expect([...new Set(found.map((row) => row.name))]).toEqual(Object.keys(CALLS).sort());
});

/** How a query is planned, which is no matter of what it means. */
const PLANNING = /^(constraint_exclusion|enable_seqscan|enable_bitmapscan|jit|plan_cache_mode)=/;

test("every definer function belongs to veil_owner and has exactly the one safe search path", async () => {
  for (const row of await definers()) {
    const settings = (row.settings as string[]).filter((setting) => !PLANNING.test(setting));
    expect([row.signature, row.owner, settings]).toEqual([
      row.signature,
      "veil_owner",
      ["search_path=pg_catalog, pg_temp"],
    ]);
  }
});

test("every other function of veil's that runs inside them has that search path too", async () => {
  const loose = await owner`
    select p.oid::regprocedure::text as name from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('etl', 'pii_vault')
      and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']
    order by 1`;
  // Both run as their caller: one is inlined into his query only without settings of its own, the other
  // may commit only without.
  expect(loose.map((row) => row.name)).toEqual([
    "etl.app_version_text(integer)",
    "pii_vault.chain_audit(integer)",
  ]);
});

test("what is planted does run, as the login that planted it", async () => {
  const { sql, seen } = spyOf("analyst");
  await sql.unsafe("select 'x'::pg_temp.text");
  expect(seen).toEqual([`spy: domain text as ${database.login("analyst")}`]);
  seen.length = 0;
});

// The proof that this file would notice: the same shadows against the search path that veil avoids.
test("with an empty search path the planted domains do run as veil_owner", async () => {
  await owner.begin(async (transaction) => {
    await transaction.unsafe(`
      set local role veil_owner;
      create function etl.careless(given pg_catalog.text) returns pg_catalog.text
        language plpgsql security definer set search_path = ''
        as $$ declare copy text; begin copy := given; return copy; end $$;
      grant execute on function etl.careless(pg_catalog.text) to veil_analyst`);
  });
  const { sql, seen } = spyOf("analyst");
  await sql.unsafe("select etl.careless('x')");
  expect(seen).toContain("spy: domain text as veil_owner");
  seen.length = 0;
  await owner.unsafe("drop function etl.careless(pg_catalog.text)");
});

describe.each([...ROLES])("called by veil_%s", (role) => {
  test("no definer function runs what the caller planted", async () => {
    const { sql, seen } = spyOf(role);
    let called = 0;
    for (const { name, signature } of await definers()) {
      const [row] = await owner`
        select has_function_privilege(${database.login(role)}, ${signature}, 'execute') as may`;
      if (row?.may !== true) continue;
      const call = CALLS[String(name)];
      if (call === undefined) throw new Error(`no call of ${name}`);
      await call(role, sql);
      called++;
    }
    expect(called).toBeGreaterThan(0);
    expect(seen.filter((line) => line.endsWith(" as veil_owner"))).toEqual([]);
    seen.length = 0;
  });
});

test("a search path that the caller sets changes nothing", async () => {
  for (const path of ["pg_temp, pg_catalog", "pg_temp", "''"]) {
    const { sql, seen } = spyOf("revealer");
    await sql.unsafe(`set search_path = ${path}`);
    await CALLS["pii_vault.fetch_reveal"]?.("revealer", sql);
    expect(seen.filter((line) => line.endsWith(" as veil_owner"))).toEqual([]);
    seen.length = 0;
  }
});

test("without TEMPORARY, as veil leaves it, nobody plants anything", async () => {
  const sql = database.sql(await database.addLogin("revealer"));
  expect(await outcome(sql.unsafe("create domain pg_temp.text as pg_catalog.text"))).toBe("42501");
});
