// The table of attacks on governed recovery, each over a real login: what somebody tries who has a role or
// two and wants more than the policy gives. Every one of them gets nothing, and leaves a record.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type postgres from "postgres";
import { plantCanary } from "../../src/recovery/canaries.ts";
import { createDatabase, ROLES, type Role, type TestDatabase } from "../support/database.ts";
import { attempt, outcome } from "./attempt.ts";
import { keepBusy } from "./busy.ts";
import { type Host, makeHost } from "./host.ts";

let database: TestDatabase;
let host: Host;
let owner: postgres.Sql;
let stopBeingBusy: () => Promise<void>;
let tokens: string[];
let device: string;

const IPS = Array.from({ length: 6 }, (_, i) => `203.0.113.${i + 1}`);

beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  stopBeingBusy = keepBusy(database.sql(database.ownerUrl));
  host = await makeHost();
  await host.load(
    database.open(database.url("etl")),
    IPS.map((ip, i) => ({ id: `m${i}`, body: { user_id: `u${i}`, ip, device_id: "device-a" } })),
  );
  // Long before any request, some of which the tests make older than they are.
  await owner`update pii_vault.originals set sealed_at = sealed_at - interval '1 year'`;
  tokens = IPS.map((ip) => host.token("ip", ip));
  device = host.token("device_id", "device-a");
});
afterAll(async () => {
  await stopBeingBusy();
  await database.drop();
});
afterEach(() => setPolicy());

const PERMISSIVE = {
  reason_required: false,
  purposes: [] as string[],
  hourly: null as number | null,
  daily: null as number | null,
  approval: false,
  request_seconds: 900,
  approval_seconds: 900,
};

/** Of both fields that have tokens; what is not named is permissive. */
async function setPolicy(settings: Partial<typeof PERMISSIVE> = {}): Promise<void> {
  const policy = database.sql(database.url("policy"));
  for (const field of ["ip", "device_id"]) {
    await policy.unsafe("select pii_vault.set_policy($1, $2::text::jsonb, 'a test')", [
      field,
      JSON.stringify({ ...PERMISSIVE, ...settings }),
    ]);
  }
  await policy.end();
}

type Login = { readonly sql: postgres.Sql; readonly name: string; readonly url: string };

/** A login of its own, with these roles and no others. */
async function login(...roles: Role[]): Promise<Login> {
  const [first, ...others] = roles;
  const url = await database.addLogin(first!);
  const name = new URL(url).username;
  for (const role of others) await owner.unsafe(`grant veil_${role} to ${name}`);
  return { sql: database.sql(url), name, url };
}

const list = (asked: readonly string[]) => `{${asked.join()}}`;

async function ask(
  { sql }: { readonly sql: postgres.Sql | postgres.TransactionSql },
  asked: readonly string[] = [tokens[0]!],
  reason: string | null = "a test",
  purpose: string | null = null,
): Promise<string> {
  const [row] = await sql.unsafe("select pii_vault.request_reveal($1::text[], $2, $3) as id", [
    list(asked),
    reason,
    purpose,
  ]);
  return String(row?.id);
}

/** What a fetch handed out, or the SQLSTATE of its refusal. */
async function fetch({ sql }: { readonly sql: postgres.Sql }, id: string): Promise<string> {
  let seals = 0;
  const code = await outcome(
    sql.unsafe("select * from pii_vault.fetch_reveal($1)", [id]).then((rows) => {
      seals = rows.length;
    }),
  );
  return code === "allowed" ? `${seals} seals` : code;
}

const decide = ({ sql }: Login, id: string, approve = true): Promise<string> =>
  outcome(sql.unsafe("select pii_vault.decide($1, $2, 'a test')", [id, approve]));

const actions = async (id: string): Promise<string[]> => {
  const rows = await owner`
    select action || coalesce(' ' || (details ->> 'refusal'), '') as what
    from pii_vault.audit where request = ${id} order by id`;
  return rows.map(({ what }) => String(what));
};

/** Moves a row's time, which nobody can without being a superuser who says so. */
async function age(table: "requests" | "verdicts", id: string, seconds: number): Promise<void> {
  const [key, time] = table === "requests" ? ["id", "recorded_at"] : ["request", "decided_at"];
  await owner.begin(async (sql) => {
    await sql.unsafe(`alter table pii_vault.${table} disable trigger ${table}_append_only`);
    await sql.unsafe(
      `update pii_vault.${table} set ${time} = ${time} - interval '${seconds} seconds'
       where ${key} = '${id}'`,
    );
    await sql.unsafe(`alter table pii_vault.${table} enable trigger ${table}_append_only`);
  });
}

test("by default, nothing of this is in anybody's way", async () => {
  const reader = await login("revealer");
  const id = await ask(reader, tokens, null);
  expect(await fetch(reader, id)).toBe("6 seals");
  expect(await actions(id)).toEqual(["reveal.request", "reveal.fetch"]);
});

describe("reasons and purposes", () => {
  test("without a reason, a request is recorded, refused on record, and not served", async () => {
    await setPolicy({ reason_required: true });
    const reader = await login("revealer");
    for (const reason of [null, "", "   "]) {
      const id = await ask(reader, [tokens[0]!], reason);
      expect(await fetch(reader, id)).toBe("VL030");
      expect(await actions(id)).toEqual(["reveal.request", "reveal.refused VL030"]);
    }
    expect(await fetch(reader, await ask(reader, [tokens[0]!], "case 4711"))).toBe("1 seals");
  });

  test("a purpose has to be one of the listed ones, and the other function is no way around", async () => {
    await setPolicy({ purposes: ["fraud", "legal"] });
    const reader = await login("revealer");
    for (const purpose of [null, "curiosity", "fraud,legal", "Fraud", ""]) {
      expect(await fetch(reader, await ask(reader, [tokens[0]!], "r", purpose))).toBe("VL033");
    }
    const [row] = await reader.sql.unsafe(
      "select pii_vault.request_reveal($1::text[], 'fraud') as id",
      [list([tokens[0]!])],
    );
    expect(await fetch(reader, String(row?.id))).toBe("VL033");
    expect(await fetch(reader, await ask(reader, [tokens[0]!], "r", "fraud"))).toBe("1 seals");
  });

  test("of two fields, the stricter rule holds", async () => {
    const policy = database.sql(database.url("policy"));
    await policy`select pii_vault.set_policy('device_id', '{"reason_required":true}', null)`;
    const reader = await login("revealer");
    expect(await fetch(reader, await ask(reader, [tokens[0]!], null))).toBe("1 seals");
    expect(await fetch(reader, await ask(reader, [tokens[0]!, device], null))).toBe("VL030");
  });

  test("the refusal reaches the server's log even if the request is rolled back", async () => {
    await setPolicy({ reason_required: true });
    const { url } = await login("revealer");
    const said: string[] = [];
    // What goes to the log goes to this client too, once it asks for it.
    const reader = database.sql(url, { onnotice: (notice) => said.push(String(notice.message)) });
    await reader.unsafe("set client_min_messages = log");
    await reader.unsafe("begin");
    const id = await ask({ sql: reader }, [tokens[0]!], null);
    await reader.unsafe("rollback");
    expect(said.filter((line) => line.includes(id) && line.includes("VL030"))).toHaveLength(1);
    expect(await actions(id)).toEqual([]);
  });
});

describe("budgets", () => {
  test("a request beyond the hour's or the day's budget is refused, and is not charged", async () => {
    await setPolicy({ hourly: 3 });
    const reader = await login("revealer");
    expect(await fetch(reader, await ask(reader, tokens.slice(0, 2)))).toBe("2 seals");
    const beyond = await ask(reader, tokens.slice(2, 4));
    expect(await fetch(reader, beyond)).toBe("VL035");
    expect(await actions(beyond)).toEqual(["reveal.request", "reveal.refused VL035"]);
    const last = await ask(reader, [tokens[4]!]);
    expect(await fetch(reader, last)).toBe("1 seals");
    expect(await fetch(reader, await ask(reader, [tokens[5]!]))).toBe("VL035");
    await age("requests", last, 3601);
    expect(await fetch(reader, await ask(reader, [tokens[5]!]))).toBe("1 seals");
    await setPolicy({ daily: 4 });
    expect(await fetch(reader, await ask(reader, [tokens[5]!]))).toBe("VL035");
    await age("requests", last, 86_400);
    expect(await fetch(reader, await ask(reader, [tokens[5]!]))).toBe("1 seals");
  });

  test("what is not known is charged as well, and each field has its own budget", async () => {
    await setPolicy({ hourly: 2 });
    const reader = await login("revealer");
    const unknown = ["192.0.2.1", "192.0.2.2"].map((ip) => host.token("ip", ip));
    expect(await fetch(reader, await ask(reader, unknown))).toBe("0 seals");
    expect(await fetch(reader, await ask(reader, [tokens[0]!]))).toBe("VL035");
    expect(await fetch(reader, await ask(reader, [device]))).toBe("1 seals");
  });

  test("a fetch charges nothing, however often it is repeated or rolled back", async () => {
    await setPolicy({ hourly: 2 });
    const reader = await login("revealer");
    const id = await ask(reader, [tokens[0]!]);
    for (let i = 0; i < 5; i++) expect(await fetch(reader, id)).toBe("1 seals");
    await attempt(reader.sql, `select * from pii_vault.fetch_reveal('${id}')`);
    expect(await fetch(reader, await ask(reader, [tokens[1]!]))).toBe("1 seals");
    expect(await fetch(reader, await ask(reader, [tokens[2]!]))).toBe("VL035");
  });

  test("another login, or another role of the same login, has no part in it", async () => {
    await setPolicy({ hourly: 1 });
    const [one, two] = [await login("revealer"), await login("revealer")];
    expect(await fetch(one, await ask(one))).toBe("1 seals");
    expect(await fetch(two, await ask(two))).toBe("1 seals");
    await one.sql.unsafe("set role veil_revealer");
    expect(await fetch(one, await ask(one))).toBe("VL035");
  });

  test("of two sessions that race for the last token, one gets it", async () => {
    await setPolicy({ hourly: 1 });
    const reader = await login("revealer");
    const other = { sql: database.sql(reader.url) };
    for (const { sql } of [reader, other]) {
      await sql.unsafe("begin isolation level read committed");
      await sql.unsafe("select 1");
    }
    const first = await ask(reader);
    const second = ask(other, [tokens[1]!]);
    await waitsForLock(owner);
    await reader.sql.unsafe("commit");
    const late = await second;
    await other.sql.unsafe("commit");
    expect(await fetch(reader, first)).toBe("1 seals");
    expect(await fetch(other, late)).toBe("VL035");
  });

  test("a snapshot of before the policy was tightened asks for nothing", async () => {
    const reader = await login("revealer");
    for (const level of ["repeatable read", "serializable"]) {
      await setPolicy();
      await reader.sql.unsafe(`begin isolation level ${level}`);
      await reader.sql.unsafe("select 1");
      await setPolicy({ approval: true, reason_required: true, hourly: 1 });
      expect(await outcome(ask(reader, tokens))).toBe("VL015");
      await reader.sql.unsafe("rollback");
    }
  });

  test("a day has twenty-four hours, whatever time zone the caller makes up", async () => {
    await setPolicy({ daily: 1 });
    const reader = await login("revealer");
    expect(await fetch(reader, await ask(reader))).toBe("1 seals");
    const start = new Date(Date.UTC(new Date().getUTCFullYear(), 0, 1)).getTime();
    const day = Math.floor((Date.now() - start) / 86_400_000);
    for (const zone of [
      ...[0, 1, 2, 3].map((back) => `AAA+20BBB-20,${Math.max(day - back, 0)}/0,364`),
      "Pacific/Apia",
    ]) {
      await reader.sql.unsafe(`set timezone = '${zone}'`);
      expect([zone, await fetch(reader, await ask(reader))]).toEqual([zone, "VL035"]);
    }
  });

  test("one login's open transaction keeps no other login waiting", async () => {
    await setPolicy({ hourly: 5 });
    const [one, two] = [await login("revealer"), await login("revealer")];
    await one.sql.unsafe("begin");
    await ask(one);
    expect(await fetch(two, await ask(two))).toBe("1 seals");
    await one.sql.unsafe("rollback");
  });
});

async function waitsForLock(sql: postgres.Sql): Promise<void> {
  for (;;) {
    const [row] = await sql`
      select count(*)::int as waiting from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`;
    if (Number(row?.waiting) > 0) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe("approvals", () => {
  test("a request waits, is served once another login approves it, and that is on record", async () => {
    await setPolicy({ approval: true });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    const id = await ask(reader);
    expect(await fetch(reader, id)).toBe("VL031");
    const state = async () => {
      const [row] = await reader.sql`select pii_vault.request_state(${id}) as state`;
      return row?.state;
    };
    expect(await state()).toBe("waiting");
    const waiting = await approver.sql`select * from pii_vault.waiting_requests()`;
    expect(waiting.filter((row) => row.request === id)).toMatchObject([
      { login: reader.name, items: 1, reason: "a test", subjects: [tokens[0]] },
    ]);
    expect(await decide(approver, id)).toBe("allowed");
    expect(await state()).toBe("ready");
    expect(await fetch(reader, id)).toBe("1 seals");
    const last = await approver.sql`select request from pii_vault.waiting_requests()`;
    expect(last.map((row) => row.request)).not.toContain(id);
    expect(await actions(id)).toEqual(["reveal.request", "reveal.approved", "reveal.fetch"]);
    const [entry] = await owner`
      select login, role, address, details ->> 'requester' as requester from pii_vault.audit
      where request = ${id} and action = 'reveal.approved'`;
    expect(entry).toEqual({
      login: approver.name,
      role: "veil_approver",
      address: "127.0.0.1",
      requester: reader.name,
    });
  });

  test("approvers are told by a notification that names the request and nothing else", async () => {
    await setPolicy({ approval: true });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    const told = Promise.withResolvers<string>();
    await approver.sql.listen("veil_approvals", told.resolve);
    const id = await ask(reader);
    expect(await told.promise).toBe(id);
  });

  test("a denied request is not served, and not charged", async () => {
    await setPolicy({ approval: true, hourly: 1 });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    const id = await ask(reader);
    expect(await decide(approver, id, false)).toBe("allowed");
    expect(await fetch(reader, id)).toBe("VL032");
    expect(await actions(id)).toEqual(["reveal.request", "reveal.denied"]);
    const next = await ask(reader);
    expect(await decide(approver, next)).toBe("allowed");
    expect(await fetch(reader, next)).toBe("1 seals");
  });

  test("nobody approves or denies a request of his own", async () => {
    await setPolicy({ approval: true });
    const both = await login("revealer", "approver");
    const id = await ask(both);
    expect(await decide(both, id)).toBe("VL036");
    expect(await decide(both, id, false)).toBe("VL036");
    expect(await fetch(both, id)).toBe("VL031");
  });

  test("nor by another role that he may take", async () => {
    await setPolicy({ approval: true });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    await owner.unsafe(`grant ${approver.name} to ${reader.name}`);
    const id = await ask(reader);
    for (const role of [approver.name, "veil_approver"]) {
      await reader.sql.unsafe(`set role ${role}`);
      expect(await decide(reader, id)).toBe("VL036");
      await reader.sql.unsafe("reset role");
    }
    expect(await decide(reader, id)).toBe("VL036");
  });

  test("nor by renaming his login, or as a login of his old name", async () => {
    await setPolicy({ approval: true });
    const both = await login("revealer", "approver");
    const id = await ask(both);
    await both.sql.end();
    const renamed = `${both.name}_too`;
    await owner.unsafe(`alter role ${both.name} rename to ${renamed}`);
    const url = new URL(both.url);
    url.username = renamed;
    const again = { ...both, sql: database.sql(url.href) };
    expect(await decide(again, id)).toBe("VL036");
    // The request was the old name's, and is nobody's now.
    expect(await fetch(again, id)).toBe("VL001");
    await again.sql.end();
    await owner.unsafe(
      `create role ${both.name} login password 'test' in role veil_revealer, veil_approver`,
    );
    const namesake = { ...both, sql: database.sql(both.url) };
    expect(await decide(namesake, id)).toBe("VL036");
    expect(await fetch(namesake, id)).toBe("VL001");
    await owner.unsafe(`drop role ${renamed}`);
  });

  test("nor by a superuser's set session authorization, in either direction", async () => {
    await setPolicy({ approval: true });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    const root = await login("revealer", "approver");
    await owner.unsafe(`alter role ${root.name} superuser`);
    const id = await ask(root);
    await root.sql.unsafe(`set session authorization ${approver.name}`);
    expect(await decide(root, id)).toBe("VL034");
    await root.sql.unsafe(`set session authorization ${reader.name}`);
    expect(await outcome(ask(root))).toBe("VL034");
    const readers = await ask(reader);
    expect(await fetch(root, readers)).toBe("VL034");
    await root.sql.unsafe("reset session authorization");
    expect(await decide(root, id)).toBe("VL036");
    expect(await decide(approver, id)).toBe("allowed");
  });

  test("an approval is good for one request, its own login, and a while", async () => {
    await setPolicy({ approval: true, approval_seconds: 60, request_seconds: 3600 });
    const [reader, other] = [await login("revealer"), await login("revealer")];
    const approver = await login("approver");
    const id = await ask(reader);
    await age("requests", id, 3000);
    expect(await decide(approver, id)).toBe("allowed");
    expect(await fetch(reader, id)).toBe("1 seals");
    // The same tokens once more are another request.
    expect(await fetch(reader, await ask(reader))).toBe("VL031");
    expect(await fetch(other, id)).toBe("VL001");
    expect(await decide(approver, id)).toBe("VL037");
    expect(await decide(approver, id, false)).toBe("VL037");
    await age("verdicts", id, 60);
    expect(await fetch(reader, id)).toBe("VL003");
    expect(await decide(approver, id)).toBe("VL037");
  });

  test("a request that nobody decided on in time cannot be approved any more", async () => {
    await setPolicy({ approval: true, request_seconds: 60 });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    const id = await ask(reader);
    await age("requests", id, 60);
    expect(await decide(approver, id)).toBe("VL037");
    expect(await fetch(reader, id)).toBe("VL003");
  });

  test("a verdict that is not committed serves nothing", async () => {
    await setPolicy({ approval: true });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    const id = await ask(reader);
    await approver.sql.unsafe("begin");
    expect(await decide(approver, id)).toBe("allowed");
    expect(await fetch(reader, id)).toBe("VL031");
    await approver.sql.unsafe("rollback");
    expect(await fetch(reader, id)).toBe("VL031");
  });

  test("of two verdicts at once, one stands", async () => {
    await setPolicy({ approval: true });
    const reader = await login("revealer");
    const [one, two] = [await login("approver"), await login("approver")];
    const id = await ask(reader);
    await one.sql.unsafe("begin");
    expect(await decide(one, id, false)).toBe("allowed");
    const second = decide(two, id);
    await waitsForLock(owner);
    await one.sql.unsafe("commit");
    expect(await second).toBe("VL037");
    expect(await fetch(reader, id)).toBe("VL032");
  });

  test("a request that the policy refused cannot be approved into being served", async () => {
    await setPolicy({ approval: true, reason_required: true });
    const [reader, approver] = [await login("revealer"), await login("approver")];
    const id = await ask(reader, [tokens[0]!], null);
    expect(await decide(approver, id)).toBe("VL037");
    expect(await fetch(reader, id)).toBe("VL030");
  });

  test("a policy that is loosened later serves no request of before", async () => {
    await setPolicy({ approval: true });
    const reader = await login("revealer");
    const id = await ask(reader);
    await setPolicy();
    expect(await fetch(reader, id)).toBe("VL031");
  });

  test("fetching in the transaction of the request gets nothing, approved or not", async () => {
    const reader = await login("revealer");
    for (const approval of [false, true]) {
      await setPolicy({ approval });
      await reader.sql.unsafe("begin");
      expect(await fetch(reader, await ask(reader))).toBe("VL002");
      await reader.sql.unsafe("rollback");
    }
  });
});

describe("break-glass", () => {
  const breakGlass = async ({ sql }: Login, reason: string | null): Promise<string> => {
    const [row] = await sql.unsafe("select pii_vault.break_glass($1::text[], $2, null) as id", [
      list([tokens[0]!]),
      reason,
    ]);
    return String(row?.id);
  };
  const open = async ({ sql }: Login): Promise<string[]> =>
    (await sql`select request from pii_vault.unreviewed_requests()`).map((row) => row.request);
  const review = ({ sql }: Login, id: string, note: string | null): Promise<string> =>
    outcome(sql.unsafe("select pii_vault.review($1, $2)", [id, note]));

  test("skips the approval, is marked, and stays on the open list until somebody reviews it", async () => {
    await setPolicy({ approval: true });
    const [reader, approver] = [await login("breakglass"), await login("approver")];
    const id = await breakGlass(reader, "the site is down");
    expect(await fetch(reader, id)).toBe("1 seals");
    expect(await open(approver)).toContain(id);
    expect(await review(approver, id, "  ")).toBe("VL030");
    expect(await review(approver, id, "as it should be")).toBe("allowed");
    expect(await open(approver)).not.toContain(id);
    expect(await review(approver, id, "again")).toBe("VL037");
    expect(await actions(id)).toEqual([
      "reveal.request",
      "reveal.breakglass",
      "reveal.fetch",
      "reveal.reviewed",
    ]);
  });

  test("needs its role, a reason, and another one's review; budgets hold", async () => {
    await setPolicy({ approval: true, hourly: 1 });
    const reader = await login("revealer");
    expect(await outcome(breakGlass(reader, "please"))).toBe("42501");
    const all = await login("breakglass", "revealer", "approver");
    expect(await fetch(all, await breakGlass(all, null))).toBe("VL030");
    const id = await breakGlass(all, "urgent");
    expect(await review(all, id, "I was right")).toBe("VL036");
    expect(await open(all)).toContain(id);
    expect(await fetch(all, await breakGlass(all, "urgent"))).toBe("VL035");
  });

  test("is over after the time that an approval would have", async () => {
    await setPolicy({ approval: true, request_seconds: 36_000, approval_seconds: 60 });
    const reader = await login("breakglass");
    const id = await breakGlass(reader, "urgent");
    await age("requests", id, 60);
    expect(await fetch(reader, id)).toBe("VL003");
  });
});

describe("a request that is undone", () => {
  const plant = (ip: string): Promise<string> =>
    plantCanary(
      database.open(database.url("policy")),
      { subkeys: host.subkeys, recipients: [host.keys.VEIL_RECIPIENTS] },
      "ip",
      ip,
      null,
    );

  test("prints nothing of the vault with its plans", async () => {
    const unknown = host.token("ip", "192.0.2.200");
    const printed: string[] = [];
    const { url } = await login("revealer");
    const reader = database.sql(url, {
      onnotice: (notice) => printed.push(`${notice.message} ${notice.detail}`),
    });
    await reader.unsafe("set client_min_messages = log");
    const digests = async (token: string): Promise<string[]> => {
      printed.length = 0;
      await reader.unsafe("begin");
      for (const name of ["parse", "rewritten", "plan"]) {
        await reader.unsafe(`set local debug_print_${name} = on`);
      }
      await reader.unsafe(`select pii_vault.request_reveal('{${token}}', 'x')`);
      await reader.unsafe("rollback");
      return printed.join("\n").match(/:consttype (17|1001) [\s\S]*?\]/g) ?? [];
    };
    expect([await digests(tokens[0]!), await digests(unknown)]).toEqual([[], []]);
    // What this looks for does show where it is not kept back.
    printed.length = 0;
    await reader.unsafe("set debug_print_plan = on");
    await reader.unsafe("select '\\x00'::bytea");
    expect(printed.join()).toMatch(/:consttype 17 /);
  });

  // Whatever is read of a table is read under a lock that lasts until the transaction ends.
  test("has locked and read nothing but the record and its rules, whatever was asked for", async () => {
    const RECORD = [
      "audit",
      "audit_waiting",
      "policies",
      "requests",
      "reviews",
      "spenders",
      "verdicts",
    ];
    const canary = await plant("198.51.100.250");
    await setPolicy({ hourly: 1000, approval: true });
    const { sql } = await login("revealer", "breakglass", "operator");
    const [backend] = await sql`select pg_backend_pid() as pid`;
    const locked = async () => {
      const rows = await owner`
        select distinct coalesce(t.oid, c.oid)::regclass::text as name
        from pg_catalog.pg_locks l
        join pg_catalog.pg_class c on c.oid = l.relation
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_index i on i.indexrelid = c.oid
        left join pg_catalog.pg_class t on t.oid = i.indrelid
        where l.pid = ${backend?.pid} and n.nspname in ('pii_vault', 'etl', 'public')
          and c.relkind <> 'S'
        order by 1`;
      return rows.map(({ name }) => String(name));
    };
    const read = async () => {
      const rows = await sql`
        select relid::regclass::text as name from pg_catalog.pg_stat_xact_all_tables
        where schemaname in ('pii_vault', 'etl', 'public')
          and (seq_scan > 0 or idx_scan > 0 or seq_tup_read > 0 or idx_tup_fetch > 0)`;
      return rows.map(({ name }) => String(name));
    };
    const allowed = new Set(RECORD.map((name) => `pii_vault.${name}`));
    for (const token of [
      tokens[0]!,
      host.token("ip", "192.0.2.201"),
      canary,
      `ip9_${"7".repeat(25)}4`,
    ]) {
      for (const statement of [
        `pii_vault.request_reveal('{${token}}', 'x')`,
        `pii_vault.request_reveal('{${token}}', 'x', 'y')`,
        `pii_vault.break_glass('{${token}}', 'x', null)`,
        `etl.request_bodies('{m0}', 'show', 'x')`,
      ]) {
        await sql.unsafe("begin");
        await sql.unsafe(`select ${statement}`);
        const names = await locked();
        expect(names).toContain("pii_vault.requests");
        expect([statement, names.filter((name) => !allowed.has(name))]).toEqual([statement, []]);
        expect([statement, (await read()).filter((name) => !allowed.has(name))]).toEqual([
          statement,
          [],
        ]);
        await sql.unsafe("rollback");
      }
    }
    // What this looks for does show where something of the vault is read.
    const reader = await login("revealer");
    await setPolicy();
    const id = await ask(reader, [tokens[0]!]);
    await reader.sql.unsafe("begin");
    expect(await fetch(reader, id)).toBe("1 seals");
    const [other] = await reader.sql`select pg_backend_pid() as pid`;
    const [vault] = await owner`
      select count(*)::int as n from pg_catalog.pg_locks
      where pid = ${other?.pid} and relation = 'pii_vault.originals'::regclass`;
    expect(vault?.n).toBe(1);
    await reader.sql.unsafe("rollback");
  });

  test("sets off no alarm; a committed one does, once it is chained", async () => {
    const canary = await plant("198.51.100.251");
    const reader = await login("revealer");
    const alarms = async () =>
      (
        await owner`
        select request from pii_vault.audit where action = 'canary.alarm' and tokens = ${[canary]}`
      ).map(({ request }) => String(request));
    const chain = () => owner.unsafe("call pii_vault.chain_audit()");
    await reader.sql.unsafe("begin");
    await ask(reader, [canary]);
    await reader.sql.unsafe("rollback");
    await chain();
    expect(await alarms()).toEqual([]);
    const id = await ask(reader, [tokens[0]!, canary]);
    expect(await alarms()).toEqual([]);
    expect(await fetch(reader, id)).toBe("1 seals");
    await chain();
    expect(await alarms()).toEqual([id]);
  });
});

describe("the policy", () => {
  test("is changed by its role alone, on record with what was before", async () => {
    for (const role of ROLES.filter((name) => name !== "policy")) {
      const sql = database.sql(database.url(role));
      expect([
        role,
        await outcome(sql`select pii_vault.set_policy('ip', '{"approval":false}', null)`),
      ]).toEqual([role, "42501"]);
    }
    const { sql, name } = await login("policy");
    await sql`select pii_vault.set_policy('ip', '{"hourly":7}', 'because')`;
    const [entry] = await owner`
      select login, reason, details -> 'before' ->> 'hourly' as before,
        details -> 'after' ->> 'hourly' as after
      from pii_vault.audit where action = 'policy.changed' order by id desc limit 1`;
    expect(entry).toMatchObject({ login: name, reason: "because", before: null, after: "7" });
  });

  test("takes no setting that it does not know or that is out of bounds", async () => {
    const { sql } = await login("policy");
    for (const settings of [
      '{"field":"ip"}',
      '{"approvals":true}',
      '{"hourly":-1}',
      '{"hourly":"many"}',
      '{"approval":null}',
      '{"request_seconds":1}',
      '{"purposes":["with space!"]}',
      '{"purposes":null}',
      "[]",
      "null",
    ]) {
      const code = await outcome(
        sql`select pii_vault.set_policy('ip', ${settings}::text::jsonb, null)`,
      );
      expect([settings, code]).toEqual([settings, "VL006"]);
    }
    expect(await outcome(sql`select pii_vault.set_policy('user_id', '{}', null)`)).toBe("VL006");
  });

  test("whose rows somebody has deleted serves nothing", async () => {
    const reader = await login("revealer");
    await owner.begin(async (sql) => {
      await sql`create table pii_vault.kept as table pii_vault.policies`;
      await sql`delete from pii_vault.policies`;
    });
    try {
      expect(await outcome(ask(reader))).not.toBe("allowed");
    } finally {
      await owner.begin(async (sql) => {
        await sql`insert into pii_vault.policies table pii_vault.kept`;
        await sql`drop table pii_vault.kept`;
      });
    }
  });
});

test("what the record rests on takes no direct write from any role, and no change from its owner", async () => {
  const approver = await login("approver");
  await setPolicy({ approval: true });
  const reader = await login("revealer");
  const id = await ask(reader);
  expect(await decide(approver, id)).toBe("allowed");
  const appendOnly = ["audit", "requests", "verdicts", "reviews", "audit_chain"];
  const tables = [...appendOnly, "policies", "spenders", "canaries", "tombstones", "holds"];
  tables.push("audit_waiting", "audit_head");
  for (const role of ROLES) {
    const sql = database.sql(database.url(role));
    for (const table of tables) {
      for (const statement of [
        `insert into pii_vault.${table} default values`,
        `delete from pii_vault.${table}`,
        `truncate pii_vault.${table}`,
      ]) {
        expect([role, statement, await attempt(sql, statement)]).toEqual([
          role,
          statement,
          "42501",
        ]);
      }
    }
    await sql.end();
  }
  await owner.unsafe("set role veil_owner");
  for (const table of appendOnly) {
    for (const statement of [`delete from pii_vault.${table}`, `truncate pii_vault.${table}`]) {
      expect([statement, await attempt(owner, statement)]).toEqual([statement, "VL020"]);
    }
  }
  await owner.unsafe("reset role");
});

test("functions of the same names in public, and any search path, change nothing", async () => {
  await setPolicy({ approval: true });
  const reader = await login("revealer", "approver");
  await owner.unsafe("create schema lures");
  for (const schema of ["public", "lures"]) {
    await owner.unsafe(`
      create function ${schema}.caller() returns oid language sql as 'select 1::oid';
      create function ${schema}.state_of(r pii_vault.requests) returns text
        language sql as $$ select 'ready' $$;
      create function ${schema}.decide(request uuid, approve boolean, reason text) returns void
        language sql as '';
      create function ${schema}.exceeded_budget(a oid, b integer, c integer, d integer)
        returns text language sql as 'select null::text';
      create function ${schema}.starts_with(a text, b text) returns boolean
        language sql as 'select false';
      create function ${schema}.pg_stat_get_activity(pid integer) returns oid
        language sql as 'select 1::oid';
      grant usage on schema ${schema} to public;
      grant execute on all functions in schema ${schema} to public`);
  }
  try {
    for (const path of ["public, lures, pii_vault", "lures, pg_catalog", "''"]) {
      await reader.sql.unsafe(`set search_path = ${path}`);
      const id = await ask(reader);
      expect(await fetch(reader, id)).toBe("VL031");
      expect(await decide(reader, id)).toBe("VL036");
    }
  } finally {
    await owner.unsafe("drop schema lures cascade");
    for (const signature of [
      "caller()",
      "state_of(pii_vault.requests)",
      "decide(uuid, boolean, text)",
      "exceeded_budget(oid, integer, integer, integer)",
      "starts_with(text, text)",
      "pg_stat_get_activity(integer)",
    ]) {
      await owner.unsafe(`drop function public.${signature}`);
    }
  }
});
