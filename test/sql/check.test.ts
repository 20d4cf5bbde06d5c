// `veil check` on a database of every honest history, and on copies of it in which one thing was broken on
// purpose: green for the first, red for each of the others, with the words that name what is wrong.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { checkInvariant, INVARIANTS } from "../../src/check.ts";
import { discard } from "../../src/recovery/quarantine.ts";
import { atTerminal } from "../cli/pseudo-terminal.ts";
import { createDatabase, ROLES, type Role, type TestDatabase } from "../support/database.ts";
import { hasOwnServer } from "../support/servers.ts";
import { type Run, veil } from "../support/veil.ts";
import { attempt, outcome } from "./attempt.ts";
import { BREAKS } from "./breaks.ts";
import { makeHistory } from "./history.ts";
import { type Host, makeHost } from "./host.ts";

let database: TestDatabase;
let host: Host;
let urls: Record<Role, string>;
let admin: postgres.Sql;
beforeAll(async () => {
  database = await createDatabase({ migrated: false });
  host = await makeHost();
  urls = await makeHistory(database, host);
  admin = database.sql(inDatabase(database.ownerUrl, "postgres"));
});
afterAll(() => database.drop());

function inDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}

/** Runs `work` with an operator's URL of a copy of the history, in which something was changed. */
async function changed<T>(change: string, work: (url: string) => Promise<T>): Promise<T> {
  const name = `veil_test_${randomBytes(5).toString("hex")}`;
  await admin.unsafe(`create database ${name} template ${database.name}`);
  try {
    const url = inDatabase(database.ownerUrl, name);
    const sql = postgres(url, { max: 1, onnotice: () => {} });
    await sql.unsafe(change);
    await sql.end();
    return await work(inDatabase(urls.operator, name));
  } finally {
    // Our own server is thrown away, and a drop would make it write all that it has to disk.
    if (!hasOwnServer) await admin.unsafe(`drop database ${name} with (force)`);
  }
}

const check = (url: string, ...options: string[]): Promise<Run> =>
  veil(["check", ...options], { env: { DATABASE_URL: url } });

type Found = { readonly name: string; readonly offenders: number; readonly examples: string[] };
type Checked = Found & { readonly ok: boolean; readonly checked: number };

/** What is broken, from `--json`, of which every part is held against the others. */
async function broken(url: string): Promise<Found[]> {
  const run = await check(url, "--json");
  expect(run.stdout).toMatch(/^\{[^\n]*\}\n$/);
  const { ok, invariants } = JSON.parse(run.stdout) as { ok: boolean; invariants: Checked[] };
  expect(invariants.map(({ name }) => name)).toEqual(INVARIANTS.map(({ name }) => name));
  const found = invariants.filter((one) => !one.ok);
  expect({ ok, code: run.code }).toEqual(
    found.length === 0 ? { ok: true, code: 0 } : { ok: false, code: 1 },
  );
  const errors = found.map(({ name, offenders, checked, examples }) => {
    const named = examples.length === 0 ? "" : `: ${examples.join(", ")}`;
    return `error: ${name} is broken, ${offenders} of ${checked}${named}`;
  });
  const lines = run.stderr.split("\n").slice(0, -1);
  expect(lines.filter((_, i) => i % 2 === 0).map((line) => line.replace(/, …$/, ""))).toEqual(
    errors,
  );
  expect(lines.filter((_, i) => i % 2 === 1).every((line) => /^hint: .{20}/.test(line))).toBe(true);
  return found.map(({ name, offenders, examples }) => ({ name, offenders, examples }));
}

test("a new database holds everything, and says so in a line each", async () => {
  const empty = await createDatabase();
  try {
    const run = await check(empty.url("operator"));
    expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
    const lines = run.stdout.trimEnd().split("\n");
    expect(lines.map((line) => line.replace(/^ok {6}(.*?) +0$/, "$1"))).toEqual(
      INVARIANTS.map(({ description }) => description),
    );
  } finally {
    await empty.drop();
  }
});

test("an honest history of every kind holds everything, to an operator and an auditor", async () => {
  expect(await broken(urls.operator)).toEqual([]);
  const run = await check(urls.auditor, "--json");
  const { invariants, ...rest } = JSON.parse(run.stdout) as { invariants: Checked[] };
  expect(rest as object).toEqual({ ok: true, seconds: expect.any(Number) });
  expect(Object.keys(invariants[0]!)).toEqual([
    ...["name", "description", "ok", "checked", "offenders", "examples"],
  ]);
  expect(Object.fromEntries(invariants.map(({ name, checked }) => [name, checked]))).toEqual({
    "data-keys-are-whole": 4,
    // 6 addresses that are left and the replayed one's, 3 devices, those of the 3 keys.
    "originals-have-data-keys": 17,
    "bodies-have-data-keys": 2,
    "nonces-are-used-once": 19,
    "tokens-have-originals": 23,
    "values-are-tokens": 23,
    "days-add-up": 7,
    "messages-are-stored-once": 9,
    "requests-are-on-record": 2,
    "erased-stay-erased": 1,
    "erasures-are-on-record": 2,
  });
  expect((await check(urls.operator)).stdout).toMatch(/^(ok {6}.{30,} +\d+\n){11}$/);
});

test("what the program asks for is what the database knows, and nothing else is answered", async () => {
  const sql = database.sql(urls.operator);
  const known = await sql`
    select replace(substr(p.proname::text, 7), '_', '-') as name from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'etl' and p.proname like 'check\\_%' and p.pronargs = 0`;
  expect(known.map((row) => String(row.name)).sort()).toEqual(
    INVARIANTS.map(({ name }) => name).sort(),
  );
  expect(await attempt(sql, "select etl.check_invariant('everything-is-well')")).toBe("VL006");
  expect(await attempt(sql, "select etl.check_invariant(null)")).toBe("VL006");
  await sql.end();
});

const ID = /\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g;
const TOKEN = /\b((?:ip|dev)[0-9]+_)[a-z2-7]{26}\b/g;

describe("it is found, where", () => {
  for (const [what, change, expected] of BREAKS) {
    test.concurrent(what, async () => {
      const found = await changed(change, broken);
      const lines = found.map((one) => `${one.name} ${one.offenders} ${one.examples.join(", ")}`);
      expect(lines.map((line) => line.replace(ID, "ID").replace(TOKEN, "$1…"))).toEqual([
        ...expected,
      ]);
    });
  }

  test("several things are broken: each is named, in the lines and as errors", async () => {
    const both = `truncate pii_vault.originals; delete from public.user_logins where user_id = 'u6'`;
    await changed(both, async (url) => {
      const run = await check(url);
      expect(run.code).toBe(1);
      expect(run.stdout.match(/^ok {6}/gm)?.length).toBe(9);
      expect(run.stdout).toMatch(/^BROKEN {2}every token in user_logins .* 12 of 21$/m);
      expect(run.stdout).toMatch(/^BROKEN {2}each day has as many rows .* 1 of 7$/m);
      expect(run.stderr).toMatch(
        /^error: tokens-have-originals is broken, 12 of 21: (dev1_\w{26}, ){5}…\nhint: .+\nerror: days-add-up is broken, 1 of 7: .+\nhint: .+\n$/,
      );
    });
  });
});

test("at a terminal it says what it is looking at, and only there", async () => {
  const { code, screen } = await atTerminal(["check"], { DATABASE_URL: urls.operator });
  expect(code).toBe(0);
  for (const [i, { description }] of INVARIANTS.entries()) {
    expect(screen).toContain(`\r${i + 1} of ${INVARIANTS.length}: ${description}\u001b[K`);
    expect(screen).toContain(`\r\u001b[Kok      ${description}`);
  }
});

test("a value that is no token is never printed", async () => {
  const canary = "203.0.113.254-canary";
  const change = `update public.user_logins set masked_ip = '${canary}',
    masked_device_id = '${canary}' where user_id in ('u1', 'u2', 'u6')`;
  await changed(change, async (url) => {
    expect(await broken(url)).toEqual([
      {
        name: "values-are-tokens",
        offenders: 6,
        examples: ["2030-01-02: 4 values", "2030-03-02: 2 values"],
      },
    ]);
    for (const run of [await check(url), await check(url, "--json")]) {
      expect(run.code).toBe(1);
      expect(run.stdout + run.stderr).not.toContain("canary");
    }
  });
});

test("an analyst, a revealer and an etl host may not check", async () => {
  for (const role of ROLES.filter((role) => !/operator|auditor/.test(role))) {
    const run = await check(urls[role], "--json");
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("may not do this: it lacks veil_operator or veil_auditor\n");
    expect(JSON.parse(run.stdout)).toEqual({
      ...{ ok: false, invariants: [], seconds: expect.any(Number) },
    });
    const sql = database.sql(urls[role]);
    expect(await attempt(sql, "select etl.check_invariant('days-add-up')")).toBe("42501");
    expect(await attempt(sql, "select * from etl.ledger_totals")).toBe("42501");
    expect(await attempt(sql, "select * from etl.adopted")).toBe("42501");
    await sql.end();
  }
});

test("a snapshot from before is refused, and a login whose default it is can check", async () => {
  const url = await database.addLogin("operator");
  await admin.unsafe(
    `alter role ${new URL(url).username} set default_transaction_isolation = 'repeatable read'`,
  );
  const sql = database.sql(url);
  expect(await outcome(sql`select etl.check_invariant('days-add-up')`)).toBe("VL015");
  await sql.end();
  expect((await check(url)).code).toBe(0);
});

test("loads, discards and housekeeping that go on never make it red", async () => {
  const busy = await createDatabase();
  try {
    const owner = busy.sql(busy.ownerUrl);
    const keeper = busy.sql(busy.ownerUrl);
    const operator = busy.open(busy.url("operator"));
    const own = await makeHost();
    let stopped = false;
    let loaded = 0;
    let today = 0;
    const date = (day: number) => new Date(Date.UTC(2030, 0, 1 + day));
    const loading = [0, 1, 2].map(async (worker) => {
      const etl = busy.open(busy.url("etl"));
      const loader = await makeHost(own.keys);
      for (let n = 0; !stopped; n++) {
        // Up to tomorrow, and further back than the ledger goes.
        const sentAt = date(today + 1 - (n % 60));
        const messages = [0, 1, 2, 3].map((i) => ({
          id: `${worker}-${n}-${i}`,
          sentAt,
          body:
            i === 3 ? "broken" : { user_id: "u", ip: `10.0.${n % 256}.${i}`, device_id: `${n}` },
        }));
        loaded += (await loader.load(etl, messages)).loaded;
        if (n % 2 === 0) await discard(operator, [`${worker}-${n}-3`], null);
      }
    });
    const keeping = (async () => {
      for (let n = 0; !stopped; n++) {
        // Day after day, and now and then nobody kept house for longer than the partitions reach.
        today += n % 3 === 0 ? 12 : 1;
        await keeper`select etl.housekeep_on(${date(today)}::date)`;
      }
    })();
    try {
      for (let round = 0; round < 12; round++) {
        for (const invariant of INVARIANTS) {
          const { offenders, examples } = await checkInvariant(operator, invariant);
          expect([invariant.name, offenders, examples]).toEqual([invariant.name, 0, []]);
        }
      }
    } finally {
      stopped = true;
      await Promise.all([...loading, keeping]);
    }
    expect(await broken(busy.url("operator"))).toEqual([]);
    expect(loaded).toBeGreaterThan(0);
    const [row] = await owner`select count(*)::int as days from etl.ledger_totals`;
    expect(row?.days).toBeGreaterThan(0);
  } finally {
    await busy.drop();
  }
});

test("no load waits for a check that is under way, and no check for a load", async () => {
  const sql = database.sql(urls.operator);
  const etl = database.sql(urls.etl);
  await etl.unsafe("begin");
  await etl.unsafe("select etl.housekeep()");
  await etl.unsafe("rollback");
  await sql.unsafe("begin");
  for (const { name } of INVARIANTS) await sql`select etl.check_invariant(${name})`;
  await host.load(database.open(urls.etl), [{ id: "beside", body: { user_id: "u" } }]);
  await sql.unsafe("commit");
  await Promise.all([sql.end(), etl.end()]);
});
