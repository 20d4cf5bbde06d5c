// Wrong usage, wrong configuration, and servers that are not there: each is said plainly, on stderr,
// without the value that was wrong, and before anything is touched.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity } from "../../vault/age.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys, type TestKeys } from "../support/keys.ts";
import { type Run, veil } from "../support/veil.ts";
import { createScene, type Scene, type Variables, without } from "./scene.ts";

// Many processes at once: none of them is slow, all of them together are.
const MESSAGES = 3;

let scene: Scene;
let foreign: TestKeys;
let folder: string;
let unmigrated: TestDatabase;
let newer: TestDatabase;
let closedPort: number;

beforeAll(async () => {
  scene = await createScene();
  foreign = await makeKeys();
  folder = mkdtempSync(join(tmpdir(), "veil-bad-input-"));
  unmigrated = await createDatabase({ migrated: false });
  newer = await createDatabase();
  await newer.sql(
    newer.ownerUrl,
  )`insert into etl.migrations (step, hash, routines, relations_hash, relations)
    select 99, hash, routines, relations_hash, relations from etl.migrations`;
  closedPort = await unusedPort();
  for (let i = 0; i < MESSAGES; i++) scene.send({ user_id: `u${i}`, ip: "192.0.2.1" });
});
afterAll(async () => {
  await expectNothingTouched();
  await Promise.all([scene.database.drop(), unmigrated.drop(), newer.drop()]);
  rmSync(folder, { recursive: true, force: true });
});

function unusedPort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" ? (address?.port ?? 0) : 0));
    });
  });
}

async function expectNothingTouched(): Promise<void> {
  expect(await scene.queued()).toBe(MESSAGES);
  const [counts] = await scene.database.sql(scene.database.ownerUrl)`
    select
      (select count(*) from public.user_logins) + (select count(*) from etl.ledger)
        + (select count(*) from etl.quarantine) + (select count(*) from pii_vault.originals)
        + (select count(*) from pii_vault.data_keys) + (select count(*) from pii_vault.audit)
        + (select count(*) from pii_vault.requests) as rows`;
  expect(Number(counts?.rows)).toBe(0);
}

/** `error:` and `hint:` on stderr and nothing else, nothing on stdout. */
function expectFailure(run: Run, code: 1 | 2, message: RegExp, stdout: RegExp = /^$/): void {
  expect(run.stderr).toMatch(/^error: [^\n]+\nhint: [^\n]+\n$/);
  expect(run.stderr).toMatch(message);
  expect(run.stdout).toMatch(stdout);
  expect(run.code).toBe(code);
}

const base64 = (bytes: number): string => Buffer.alloc(bytes, 7).toString("base64");

test.concurrent("a token key that is missing, short or garbled is named, and not repeated", async () => {
  const values = [
    "",
    base64(31),
    `0:${base64(32)}`,
    `2147483648:${base64(32)}`,
    base64(32).slice(0, -1),
    `${base64(32).slice(0, -2)}9=`,
    "correct horse battery staple",
  ];
  for (const value of values) {
    const run = await veil(["etl"], { env: { ...scene.etl, VEIL_TOKEN_KEY: value } });
    expectFailure(run, 2, /VEIL_TOKEN_KEY is (not set|malformed)/);
    if (value !== "") expect(run.stderr).not.toContain(value.slice(0, 12));
  }
  await expectNothingTouched();
});

test.concurrent("missing, malformed and mixed recipients are refused", async () => {
  const { recipient } = await generateIdentity("post-quantum");
  const classic = scene.keys.VEIL_RECIPIENTS;
  for (const [value, message] of [
    ["", /VEIL_RECIPIENTS is not set/],
    ["age1", /VEIL_RECIPIENTS is malformed/],
    // Another last letter than it has: one in 32 ends with a q.
    [`${classic.slice(0, -1)}${classic.endsWith("q") ? "p" : "q"}`, /VEIL_RECIPIENTS is malformed/],
    [`${classic}, bob@example.org`, /VEIL_RECIPIENTS is malformed/],
    [` , `, /VEIL_RECIPIENTS/],
    [`${classic} ${recipient}`, /VEIL_RECIPIENTS mixes classic .* and post-quantum/],
    [`${recipient},${classic}`, /VEIL_RECIPIENTS mixes classic .* and post-quantum/],
  ] as const) {
    const run = await veil(["etl"], { env: { ...scene.etl, VEIL_RECIPIENTS: value } });
    expectFailure(run, 2, message);
  }
  await expectNothingTouched();
});

test.concurrent("a private identity among the recipients is named as the dangerous mistake, and not printed", async () => {
  const identity = scene.keys.VEIL_IDENTITY;
  for (const value of [identity, `${scene.keys.VEIL_RECIPIENTS},${identity.toLowerCase()}`]) {
    const run = await veil(["etl"], { env: { ...scene.etl, VEIL_RECIPIENTS: value } });
    expectFailure(run, 2, /private identity/);
    expect(run.stderr.toUpperCase()).not.toContain(identity.slice(15, 30));
  }
  await expectNothingTouched();
});

test.concurrent("only one of QUEUE_URL and DATABASE_URL is refused, whichever it is", async () => {
  const noDatabase = await veil(["etl"], { env: without(scene.etl, "DATABASE_URL") });
  expectFailure(noDatabase, 2, /QUEUE_URL is set, but DATABASE_URL is not/);
  const noQueue = await veil(["etl"], { env: without(scene.etl, "QUEUE_URL") });
  expectFailure(noQueue, 2, /DATABASE_URL is set, but QUEUE_URL is not/);
  expect(noQueue.stderr).not.toContain("postgres://");
});

test.concurrent("a variable and its _FILE twin together are refused", async () => {
  const file = join(folder, "value");
  writeFileSync(file, "anything", { mode: 0o600 });
  const commands: [string, string[], Variables][] = [
    ["VEIL_TOKEN_KEY", ["etl"], scene.etl],
    ["VEIL_RECIPIENTS", ["etl"], scene.etl],
    ["DATABASE_URL", ["etl"], scene.etl],
    ["VEIL_IDENTITY", ["reveal", `ip1_${"a".repeat(26)}`], scene.recovering("revealer")],
    [
      "VEIL_VERIFY_KEY",
      ["reveal", `ip1_${"a".repeat(26)}`],
      { ...scene.recovering("revealer"), VEIL_VERIFY_KEY: scene.keys.VEIL_VERIFY_KEY },
    ],
  ];
  for (const [name, args, env] of commands) {
    const run = await veil(args, { env: { ...env, [`${name}_FILE`]: file } });
    expectFailure(run, 2, new RegExp(`both ${name} and ${name}_FILE are set`));
  }
  await expectNothingTouched();
});

test.concurrent("a file that is missing or holds nothing is named by its variable", async () => {
  const env = without(scene.etl, "VEIL_TOKEN_KEY");
  const missing = { ...env, VEIL_TOKEN_KEY_FILE: join(folder, "no-such-file") };
  expectFailure(await veil(["etl"], { env: missing }), 2, /VEIL_TOKEN_KEY_FILE: .*ENOENT/);
  const comments = join(folder, "comments");
  writeFileSync(comments, "# nothing\n\n  # here\n", { mode: 0o600 });
  const empty = { ...env, VEIL_TOKEN_KEY_FILE: comments };
  expectFailure(await veil(["etl"], { env: empty }), 2, /VEIL_TOKEN_KEY holds nothing/);
});

test.concurrent("a malformed DATABASE_URL or QUEUE_URL is named, and not repeated", async () => {
  for (const value of [
    "mysql://secret-user:secret-word@host/db",
    "postgres://secret-user:secret%ZZword@host/db",
    "postgres://secret-user:secret-word@host/db?sslmod=require",
    "postgres://secret-user:secret-word@host/db?sslmode=secret-word",
    "host=secret-word dbname=x",
  ]) {
    const run = await veil(["etl"], { env: { ...scene.etl, DATABASE_URL: value } });
    expectFailure(run, 2, /DATABASE_URL|sslmode/);
    expect(run.stderr).not.toContain("secret");
  }
  for (const value of ["two words", "https://", "https://host/", "ftp://host/secret"]) {
    const run = await veil(["etl"], { env: { ...scene.etl, QUEUE_URL: value } });
    expectFailure(run, 2, /QUEUE_URL is malformed/);
  }
});

test.concurrent("a database that is not migrated, or by a newer version, is refused by every command", async () => {
  const token = `ip1_${"a".repeat(26)}`;
  for (const [database, message] of [
    [unmigrated, /the database is not migrated\nhint: .*veil migrate/],
    [newer, /the database is at schema version 99, this program at \d+/],
  ] as const) {
    const url = { DATABASE_URL: database.ownerUrl };
    expectFailure(await veil(["etl"], { env: { ...scene.etl, ...url } }), 2, message);
    const revealing = { ...scene.recovering("revealer"), ...url };
    expectFailure(await veil(["reveal", token], { env: revealing }), 2, message);
    expectFailure(await veil(["quarantine", "list"], { env: url }), 2, message);
  }
  const migrating = await veil(["migrate"], { env: { DATABASE_URL: newer.ownerUrl } });
  expectFailure(migrating, 2, /the database is at schema version 99, this program at \d+/);
  await expectNothingTouched();
});

test.concurrent("what is not a token is refused before anything is requested, and not repeated", async () => {
  const good = `ip1_${"a".repeat(26)}`;
  const env = scene.recovering("revealer");
  for (const value of [
    "192.0.2.77",
    good.toUpperCase(),
    good.slice(0, -1),
    `${good}a`,
    `ip1_${"a".repeat(25)}b`,
    `ip01_${"a".repeat(26)}`,
    `mac1_${"a".repeat(26)}`,
    `ip1_${"a".repeat(25)}0`,
  ]) {
    const run = await veil(["reveal", good, value], { env });
    expectFailure(run, 2, /argument 2 is not a token; nothing was requested/);
    expect(run.stderr).not.toContain(value);
  }
  const piped = await veil(["reveal", "-", "--json"], { env, stdin: `${good}\n\n192.0.2.77\n` });
  expectFailure(piped, 2, /line 3 of stdin is not a token/);
  expect(piped.stderr).not.toContain("192.0.2.77");
  expectFailure(await veil(["reveal", "-"], { env, stdin: "\n\n" }), 2, /no token was given/);
  await expectNothingTouched();
});

test.concurrent("usage that is wrong says what is, where help is, and exits 2", async () => {
  for (const [args, message] of [
    [["etl", "--colour"], /unknown option '--colour'/],
    [["etl", "--max-message", "3"], /did you mean --max-messages/],
    [["etl", "extra"], /too many arguments/],
    [["etl", "--max-messages", "0"], /--max-messages/],
    [["etl", "--max-messages", "x"], /--max-messages/],
    [["etl", "--max-messages", "-1"], /--max-messages/],
    [["etl", "--max-messages", "1.5"], /--max-messages/],
    [["etl", "--max-messages", "1e3"], /--max-messages/],
    [["etl", "--max-messages", "99999999999999999999"], /--max-messages/],
    [["etl", "--max-messages"], /argument missing/],
    [["revel"], /did you mean reveal/],
    [["quarantine", "lst"], /did you mean list/],
    [["quarantine", "list", "--state", "gone"], /open, replayed, discarded, all/],
    [["quarantine", "show"], /missing required argument/],
    [["reveal"], /missing required argument/],
    [["token"], /missing required argument/],
    [["token", "user_id"], /ip, device_id/],
    [["keys", "generate"], /--out/],
  ] as const) {
    const run = await veil(args, { env: scene.etl });
    expect({ args, code: run.code, stdout: run.stdout }).toEqual({ args, code: 2, stdout: "" });
    expect(run.stderr).toMatch(/^error: /);
    expect(run.stderr).toMatch(message);
    expect(run.stderr).toContain("--help");
  }
  await expectNothingTouched();
});

test.concurrent("without a command, the commands are listed on stderr and the exit code is 2", async () => {
  for (const args of [[], ["keys"], ["quarantine"]]) {
    const run = await veil(args, { env: scene.etl });
    expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 2, stdout: "" });
    expect(run.stderr).toContain("Usage: veil");
    expect(run.stderr).toContain("Commands:");
  }
});

test.concurrent("a personal value on the command line is refused, and not repeated", async () => {
  for (const args of [
    ["token", "ip", "192.0.2.77"],
    ["token", "192.0.2.77"],
    ["reveal", "192.0.2.77"],
  ]) {
    const run = await veil(args, { env: scene.recovering("revealer") });
    expect({ args, code: run.code, stdout: run.stdout }).toEqual({ args, code: 2, stdout: "" });
    expect(run.stderr).toMatch(/^error: /);
    expect(run.stderr).not.toContain("192.0.2.77");
  }
});

test.concurrent("discard wants ids or --all, and not both", async () => {
  const env = { DATABASE_URL: scene.database.url("operator") };
  for (const args of [[], ["some-id", "--all"]]) {
    const run = await veil(["quarantine", "discard", ...args], { env });
    expectFailure(run, 2, /expected message ids, or --all/);
  }
});

const EMPTY_SUMMARY = /^the queue is empty[^\n]*\n$|^$/;

test.concurrent("an unreachable queue is exit code 1 and named", async () => {
  const env = { ...scene.etl, AWS_ENDPOINT_URL_SQS: `http://127.0.0.1:${closedPort}` };
  const run = await veil(["etl"], { env });
  expectFailure(run, 1, new RegExp(`cannot reach 127\\.0\\.0\\.1:${closedPort}`), EMPTY_SUMMARY);
});

test.concurrent("a queue that does not exist is exit code 1", async () => {
  for (const url of [`${scene.etl.QUEUE_URL}-gone`, "no-such-queue"]) {
    const run = await veil(["etl"], { env: { ...scene.etl, QUEUE_URL: url } });
    expectFailure(run, 1, /the queue does not exist/, EMPTY_SUMMARY);
  }
});

test.concurrent("an unreachable database is exit code 1; its host is named, the password is not", async () => {
  const url = `postgres://someone:secret-word@127.0.0.1:${closedPort}/veil`;
  const token = `ip1_${"a".repeat(26)}`;
  const runs = await Promise.all([
    veil(["etl"], { env: { ...scene.etl, DATABASE_URL: url } }),
    veil(["reveal", token], { env: { ...scene.recovering("revealer"), DATABASE_URL: url } }),
    veil(["migrate"], { env: { DATABASE_URL: url } }),
    veil(["quarantine", "list"], { env: { DATABASE_URL: url } }),
  ]);
  for (const run of runs) {
    expectFailure(run, 1, new RegExp(`cannot reach the database at 127\\.0\\.0\\.1:${closedPort}`));
    expect(run.stderr).not.toContain("secret-word");
  }
});

test.concurrent("an unreachable host name is exit code 1 and named", async () => {
  const url = "postgres://someone:secret-word@no-such-host.invalid/veil";
  const run = await veil(["quarantine", "list"], { env: { DATABASE_URL: url } });
  expectFailure(run, 1, /no-such-host\.invalid/);
  expect(run.stderr).not.toContain("secret-word");
});

test.concurrent("a wrong password or an unknown login is exit code 1, and the password is not printed", async () => {
  for (const change of [
    { password: "wrong-word" },
    { username: "nobody", password: "wrong-word" },
  ]) {
    const url = Object.assign(new URL(scene.database.url("etl")), change).href;
    const run = await veil(["etl"], { env: { ...scene.etl, DATABASE_URL: url } });
    expectFailure(run, 1, /password authentication failed/);
    expect(run.stderr).not.toContain("wrong-word");
  }
});

test.concurrent("a database that does not exist is exit code 1", async () => {
  const url = Object.assign(new URL(scene.database.ownerUrl), { pathname: "/nowhere" }).href;
  const run = await veil(["migrate"], { env: { DATABASE_URL: url } });
  expectFailure(run, 1, /database "nowhere" does not exist/);
});

test.concurrent("a login without the command's role is exit code 1, and the role is what the hint is about", async () => {
  const { database } = scene;
  const token = `ip1_${"a".repeat(26)}`;
  const denied: [string[], Variables][] = [
    [["etl"], { ...scene.etl, DATABASE_URL: database.url("analyst") }],
    [["reveal", token], scene.recovering("etl")],
    [["reveal", token], scene.recovering("operator")],
    [["quarantine", "list"], { DATABASE_URL: database.url("revealer") }],
    [["quarantine", "show", "x"], scene.recovering("auditor")],
    [["quarantine", "discard", "x"], { DATABASE_URL: database.url("etl") }],
  ];
  for (const [args, env] of denied) {
    const run = await veil(args, { env });
    expectFailure(run, 1, /(42501|it lacks).*\nhint: .*(role|GRANT)/);
  }
});

test.concurrent("a login that may not migrate is told the grant that lets it", async () => {
  for (const url of [scene.database.url("etl"), scene.database.url("analyst")]) {
    const run = await veil(["migrate"], { env: { DATABASE_URL: url } });
    expectFailure(run, 1, /veil_owner.*\nhint: .*GRANT veil_owner/);
  }
});

test.concurrent("a second host with another token key is refused before it receives a message", async () => {
  const other = await createScene();
  try {
    other.send({ user_id: "first", ip: "192.0.2.1" });
    expect((await veil(["etl", "--max-messages", "1"], { env: other.etl })).code).toBe(0);
    other.send({ user_id: "second", ip: "192.0.2.1" });
    for (const [key, message] of [
      [foreign.VEIL_TOKEN_KEY, /not the token key that generation 1 was registered with/],
      [foreign.VEIL_TOKEN_KEY.replace(/^1:/, "2:"), /generation 2 is not registered/],
    ] as const) {
      const run = await veil(["etl"], { env: { ...other.etl, VEIL_TOKEN_KEY: key } });
      expectFailure(run, 1, message);
      expect(run.stderr).not.toContain(key.slice(2, 20));
    }
    expect(await other.queued()).toBe(1);
    const rows = await other.database.sql(other.database.ownerUrl)`
      select user_id from public.user_logins`;
    expect(rows.map((row) => row.user_id)).toEqual(["first"]);
  } finally {
    await other.database.drop();
  }
});
