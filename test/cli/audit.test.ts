// `veil audit` and its keys, as their users meet them.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type postgres from "postgres";
import { array } from "../../src/postgres/values.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { type Run, veil } from "../support/veil.ts";
import { createScene } from "./scene.ts";

let database: TestDatabase;
let folder: string;
let owner: postgres.Sql;
const TOKEN = `ip1_${"a".repeat(25)}a`;
const OTHER = `ip1_${"b".repeat(25)}a`;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "veil-audit-"));
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  const revealer = database.sql(database.url("revealer"));
  for (const [token, reason] of [
    ...[[TOKEN, "case 1"] as const, [OTHER, "case \u001b[31m2"] as const, [TOKEN, null] as const],
  ]) {
    await revealer.unsafe("select pii_vault.request_reveal($1, $2)", [array([token]), reason]);
  }
  done(await veil(["keys", "generate", "--audit", "--out", folder]));
});
afterAll(async () => {
  await database.drop();
  rmSync(folder, { recursive: true, force: true });
});

const done = (run: Run): Run => {
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
  return run;
};
const audit = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  veil(["audit", ...args], { env: { DATABASE_URL: database.url("auditor"), ...env } });
const secret = () => ({ VEIL_AUDIT_KEY_FILE: join(folder, "audit.key") });
const open = () => ({ VEIL_AUDIT_KEY_FILE: join(folder, "audit.pub") });

test("keys generate --audit writes a secret and a public line that say so, and nothing else", async () => {
  expect(readdirSync(folder).sort()).toEqual(["audit.key", "audit.pub"]);
  const [key, pub] = ["audit.key", "audit.pub"].map((name) =>
    readFileSync(join(folder, name), "utf8"),
  );
  expect(statSync(join(folder, "audit.key")).mode & 0o777).toBe(0o600);
  expect(key).toMatch(/^audit-secret:[A-Za-z0-9+/]{43}=\n$/);
  expect(pub).toMatch(/^audit-public:[A-Za-z0-9+/]{43}=\n$/);
  const again = await veil(["keys", "generate", "--audit", "--out", folder]);
  expect([again.code, again.stdout]).toEqual([1, ""]);
  expect(again.stderr).toMatch(/already holds audit.key, audit.pub; nothing was written/);
  expect(readFileSync(join(folder, "audit.key"), "utf8")).toBe(key!);
  const both = await veil(["keys", "generate", "--audit", "--pq", "--out", join(folder, "new")]);
  expect([both.code, existsSync(join(folder, "new"))]).toEqual([2, false]);
});

test("audit list prints the entries, the newest last, and picks among them", async () => {
  const all = JSON.parse(done(await audit(["list", "--json"])).stdout);
  expect(all.map((entry: { reason: string }) => entry.reason)).toEqual([
    ...["case 1", "case \u001b[31m2", null],
  ]);
  expect(all[0]).toEqual({
    ...{ id: 1, at: expect.stringMatching(/^20\d\d-\d\d-\d\dT[\d:]+\.\d{6}Z$/) },
    ...{ login: database.login("revealer"), loginOid: expect.any(Number), role: "veil_revealer" },
    ...{ address: expect.any(String), action: "reveal.request", request: expect.any(String) },
    ...{ tokens: [TOKEN], messageIds: [], items: 1, reason: "case 1", details: null, position: 1 },
  });
  const ids = async (...args: string[]) =>
    JSON.parse(done(await audit(["list", "--json", ...args])).stdout).map(
      (entry: { id: number }) => entry.id,
    );
  expect(await ids("--token", TOKEN)).toEqual([1, 3]);
  expect(await ids("--token", TOKEN, "--limit", "1")).toEqual([3]);
  expect(await ids("--actor", database.login("revealer"), "--action", "reveal.request")).toEqual([
    ...[1, 2, 3],
  ]);
  expect(await ids("--request", all[1].request.toUpperCase())).toEqual([2]);
  expect(await ids("--request", crypto.randomUUID())).toEqual([]);
  expect(await ids("--actor", "nobody")).toEqual([]);
  const today = new Date().toISOString().slice(0, 10);
  expect(await ids("--since", today)).toEqual([1, 2, 3]);
  expect(await ids("--until", "2000-01-01T00:00+05:30")).toEqual([]);
  const table = done(await audit(["list"])).stdout;
  expect(table.split("\n")).toHaveLength(4);
  expect(table).toContain("case \\u001b[31m2");
  expect(table).not.toContain("\u001b");
});

test.each([
  ["--since", "yesterday"],
  ["--since", "2026-02-30T00:00"],
  ["--until", "01/02/2026"],
  ["--token", "192.0.2.1"],
  ["--limit", "0"],
  ["--since", "2026-02-31"],
  ["--until", "2026-02-31T12:00Z"],
  ["--request", "4711-of-mine"],
])("audit list %s %s is wrong usage, and not repeated", async (option, value) => {
  const run = await audit(["list", option, value]);
  expect([run.code, run.stdout]).toEqual([2, ""]);
  expect(run.stderr).not.toContain(value.length > 1 ? value : "--nothing");
});

test("a list that would end before it begins is wrong usage", async () => {
  for (const [since, until, code] of [
    ["2026-02-02", "2026-02-01", 2],
    ["2026-02-02T00:00Z", "2026-02-01", 2],
    ["2026-02-01T12:00Z", "2026-02-01T12:00Z", 2],
    ["2026-02-01", "2026-02-01", 0],
    ["2026-02-01T12:00+02:00", "2026-02-01T12:00Z", 0],
  ] as const) {
    const run = await audit(["list", "--since", since, "--until", until, "--json"]);
    expect([since, until, run.code]).toEqual([since, until, code]);
  }
});

test("a token's list is its whole case: verdicts, refusals and fetches of the requests that name it", async () => {
  const own = await createDatabase();
  try {
    const sql = own.sql(own.ownerUrl);
    const [mine, others] = [crypto.randomUUID(), crypto.randomUUID()];
    const entry = (request: string, action: string, token: string | null, details: object | null) =>
      sql.unsafe(
        `insert into pii_vault.audit (login_oid, action, request, tokens, items, details)
         values (1, $1, $2, $3::text[], 1, $4::text::json)`,
        [action, request, array(token === null ? [] : [token]), details && JSON.stringify(details)],
      );
    await entry(mine, "reveal.request", TOKEN, { purpose: "fraud", approval: "needed" });
    await entry(others, "reveal.request", OTHER, null);
    await entry(mine, "reveal.approved", null, { requester: "bob" });
    await entry(others, "reveal.approved", null, { requester: "carl" });
    await entry(mine, "reveal.fetch", null, null);
    await entry(mine, "reveal.refused", null, {
      refusal: "VL035",
      expected: "50 tokens of ip a day",
    });
    await entry(mine, "reveal.refused", null, { refusal: "VL033", expected: "fraud, legal" });
    await entry(mine, "reveal.refused", null, ["\u001b"]);
    const list = async (...args: string[]) =>
      done(await audit(["list", ...args], { DATABASE_URL: own.url("auditor") })).stdout;
    const ids = async (...args: string[]) =>
      JSON.parse(await list("--json", ...args)).map(({ id }: { id: number }) => id);
    expect(await ids("--token", TOKEN)).toEqual([1, 3, 5, 6, 7, 8]);
    expect(await ids("--token", TOKEN, "--limit", "2")).toEqual([7, 8]);
    expect(await ids("--token", TOKEN, "--action", "reveal.approved")).toEqual([3]);
    expect(await ids("--request", others)).toEqual([2, 4]);
    const table = (await list("--token", TOKEN)).split("\n");
    expect(table[0]).toContain(mine);
    expect(table[0]).toContain("purpose: fraud; approval: needed");
    expect(table[1]).toContain("requester: bob");
    expect(table[3]).toContain("refused: over budget; allowed: 50 tokens of ip a day");
    expect(table[4]).toContain("refused: purpose; expected: fraud, legal");
  } finally {
    await own.drop();
  }
});

test("verify and checkpoint say what they found, and refuse what does not hold", async () => {
  const file = join(folder, "checkpoints.jsonl");
  const verified = done(await audit(["verify"]));
  expect(verified.stdout).toMatch(
    /^3 entries, each as it was chained\nhead: position 3, [0-9a-f]{64}\n$/,
  );
  const signed = done(await audit(["checkpoint", "--out", file], secret()));
  expect(signed.stdout).toContain(`signed in ${file}\n`);
  const line = JSON.parse(readFileSync(file, "utf8"));
  expect(line).toMatchObject({
    ...{ format: "veil/v1/audit-checkpoint", position: "3", entry: "3" },
    marks: [
      ["1", expect.any(String)],
      ["2", expect.any(String)],
      ["3", line.hash],
    ],
  });

  await owner`insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)`;
  const json = done(await audit(["verify", "--checkpoint", file, "--json"], open()));
  expect(JSON.parse(json.stdout)).toMatchObject({
    ...{ ok: true, chain: line.chain, position: 4, waiting: { entries: 0, since: null } },
    ...{ checkpoint: { position: 3, madeAt: line.madeAt, added: 1 }, offences: 0, examples: [] },
  });
  done(await audit(["checkpoint", "--out", file, "--json"], secret()));
  expect(readFileSync(file, "utf8").trim().split("\n")).toHaveLength(2);

  // Without a key, with the wrong half of it, with none that is one, with one that others may read.
  for (const [args, env, message] of [
    [["verify", "--checkpoint", file], {}, "VEIL_AUDIT_KEY is not set"],
    [["checkpoint", "--out", file], open(), "VEIL_AUDIT_KEY is the public key"],
    [["checkpoint", "--out", file], { VEIL_AUDIT_KEY: "1:AAAA" }, "VEIL_AUDIT_KEY is malformed"],
    [["verify", "--checkpoint", join(folder, "none")], open(), "cannot read the checkpoints"],
  ] as const) {
    const run = await audit(args, env);
    expect([run.code, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toStartWith(`error: ${message}`);
  }
  // Mostly a mistake in the environment, and asked for as one.
  const pair = join(folder, "another");
  done(await veil(["keys", "generate", "--audit", "--out", pair]));
  const key = { VEIL_AUDIT_KEY_FILE: join(pair, "audit.pub") };
  const unlike = await audit(["verify", "--checkpoint", file], key);
  expect([unlike.code, unlike.stdout]).toEqual([1, ""]);
  expect(unlike.stderr).toContain("\nhint: is VEIL_AUDIT_KEY of the pair that signs these? ");
  const elsewhere = await createDatabase({ copied: false });
  try {
    const url = { DATABASE_URL: elsewhere.url("auditor") };
    const wrong = await audit(["verify", "--checkpoint", file], { ...open(), ...url });
    expect([wrong.code, wrong.stdout]).toEqual([1, ""]);
    expect(wrong.stderr).toContain("\nhint: is DATABASE_URL the database of these checkpoints");
  } finally {
    await elsewhere.drop();
  }
  chmodSync(join(folder, "audit.key"), 0o644);
  chmodSync(join(folder, "audit.pub"), 0o644);
  expect((await audit(["checkpoint", "--out", file], secret())).code).toBe(2);
  done(await audit(["verify", "--checkpoint", file], open()));
  chmodSync(join(folder, "audit.key"), 0o600);

  // Rewritten by a superuser, consistently, by the database's own means.
  await owner.begin(async (sql) => {
    await sql.unsafe("set local session_replication_role = replica");
    await sql.unsafe("update pii_vault.audit set reason = 'case 3' where id = 2");
  });
  const alone = await audit(["verify", "--json"]);
  expect(alone.code).toBe(1);
  expect(JSON.parse(alone.stdout)).toMatchObject({
    ok: false,
    offences: 1,
    examples: [{ kind: "entry-changed", position: 2, entry: 2 }],
  });
  expect(alone.stderr).toMatch(/^error: entry 2 \(position 2\) was changed .*\nhint: [^\n]+\n$/);
  await owner.begin(async (sql) => {
    await sql.unsafe("set local session_replication_role = replica");
    await sql.unsafe("truncate pii_vault.audit_chain");
    await sql.unsafe(`
      update pii_vault.audit_head set position = 0,
        hash = sha256(convert_to('veil/v1/audit-genesis', 'UTF8') || uuid_send(chain))`);
    await sql.unsafe("insert into pii_vault.audit_waiting select id from pii_vault.audit");
  });
  expect(done(await audit(["verify"])).stdout).toMatch(/^4 entries, each as it was chained\n/);
  const held = await audit(["verify", "--checkpoint", file], open());
  expect([held.code, held.stdout]).toEqual([1, ""]);
  expect(held.stderr).toMatch(
    /^error: position 2 \(entry 2\) is not what was signed on 20[^\n]+ rewritten from there on\nhint: /,
  );
  const before = readFileSync(file, "utf8");
  expect((await audit(["checkpoint", "--out", file], secret())).code).toBe(1);
  expect(readFileSync(file, "utf8")).toBe(before);

  writeFileSync(file, before.slice(0, -10));
  const cut = await audit(["verify", "--checkpoint", file], open());
  expect(cut.code).toBe(1);
  expect(cut.stderr).toContain("is not whole: the file was cut short");
  writeFileSync(file, "");
  expect((await audit(["verify", "--checkpoint", file], open())).stderr).toContain(
    "holds no checkpoint",
  );
});

test("where chaining is stopped verify fails and says so, and a checkpoint signs what is chained", async () => {
  const stopped = await createDatabase();
  try {
    const holder = stopped.sql(stopped.ownerUrl);
    const env = { DATABASE_URL: stopped.url("auditor") };
    const kept = join(folder, "stopped.jsonl");
    const addEntry = (age: string) =>
      holder.unsafe(`
      insert into pii_vault.audit (at, login_oid, action, items)
      values (now() - interval '${age}', 1, 'a.b', 0)`);
    await addEntry("0");
    done(await audit(["verify"], env));
    await addEntry("0");
    const held = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const holding = stopped.sql(stopped.ownerUrl).begin(async (transaction) => {
      await transaction`select from pii_vault.audit_head for update`;
      held.resolve();
      await release.promise;
    });
    await held.promise;
    try {
      const young = await audit(["verify"], env);
      expect([young.code, young.stderr]).toEqual([
        0,
        expect.stringMatching(/^1 entry waits to be chained since 20.*Z\n$/),
      ]);
      await addEntry("11 minutes");
      const run = await audit(["verify", "--json"], env);
      expect(run.code).toBe(1);
      expect(JSON.parse(run.stdout)).toMatchObject({
        ...{ ok: false, position: 1, waiting: { entries: 2, first: 3 }, offences: 1 },
        examples: [{ kind: "not-chained", position: null, entry: 3 }],
      });
      expect(run.stderr).toMatch(
        /^error: 2 entries wait to be chained since 20.*Z and cannot be: entry 3 is .*\nhint: .*pii_vault\.audit_head.*\n$/,
      );
      const signed = await audit(["checkpoint", "--out", kept], { ...env, ...secret() });
      expect([signed.code, signed.stdout]).toEqual([
        1,
        expect.stringMatching(/^1 entries.*signed in /s),
      ]);
      expect(signed.stderr).toMatch(/^error: 2 entries wait/);
    } finally {
      release.resolve();
      await holding;
    }
    const again = done(await audit(["verify", "--checkpoint", kept], { ...env, ...open() }));
    expect(again.stdout).toMatch(/^3 entries.*\n2 added since the checkpoint/s);
  } finally {
    await stopped.drop();
  }
});

test("what psql put on record the etl chains, and quarantine what it puts there itself", async () => {
  const scene = await createScene();
  try {
    const sql = scene.database.sql(scene.database.ownerUrl);
    const state = async () => {
      const [row] = await sql`
        select (select count(*)::int from pii_vault.audit_waiting) as waiting,
          (select position::int from pii_vault.audit_head) as chained`;
      return [row?.waiting, row?.chained];
    };
    await sql`insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)`;
    expect(await state()).toEqual([1, 0]);
    const id = scene.send({ user_id: "u", ip: ["192.0.2.1"] });
    done(await veil(["etl", "--max-messages", "1"], { env: scene.etl }));
    expect(await state()).toEqual([0, 1]);
    const env = scene.recovering("operator");
    done(await veil(["quarantine", "show", id, "--reason", "why"], { env }));
    expect(await state()).toEqual([0, 3]);
    done(await veil(["quarantine", "discard", id, "--reason", "why"], { env }));
    expect(await state()).toEqual([0, 4]);
  } finally {
    await scene.database.drop();
  }
});

test("a login without the auditor's role is told which one it needs", async () => {
  const run = await veil(["audit", "verify"], { env: { DATABASE_URL: database.url("operator") } });
  expect([run.code, run.stdout]).toEqual([1, ""]);
  expect(run.stderr).toMatch(/it lacks veil_auditor\nhint: .*GRANT veil_auditor TO /);
});
