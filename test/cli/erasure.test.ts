// Erasure and holds as people meet them: what is asked, what is said where nothing was found or where somebody
// presses Ctrl-C, and the restore as docs/erasure.md has it, word for word.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash, randomUUID } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type postgres from "postgres";
import { until } from "../line/stored.ts";
import { startVeil, veil } from "../support/veil.ts";
import { atTerminal } from "./pseudo-terminal.ts";
import { createScene, type Scene, type Variables } from "./scene.ts";

let scene: Scene;
let owner: postgres.Sql;
let folder: string;
const env: Record<"eraser" | "policy" | "auditor" | "analyst", Variables> = {} as never;
beforeAll(async () => {
  scene = await createScene();
  owner = scene.database.sql(scene.database.ownerUrl);
  folder = mkdtempSync(join(tmpdir(), "veil-erasure-"));
  for (const role of ["eraser", "policy", "auditor", "analyst"] as const) {
    env[role] = { DATABASE_URL: scene.database.url(role) };
  }
  // A data key, for the originals that tests make up.
  scene.send({ user_id: "first", ip: "203.0.113.1" });
  expect((await veil(["etl", "--max-messages", "1"], { env: scene.etl })).code).toBe(0);
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await scene?.database.drop();
});

const tokenOf = (text: string): string => {
  const hex = createHash("sha256").update(text).digest("hex");
  return `ip1_${hex.replace(/[0189]/g, "x").slice(0, 25)}a`;
};

/** Whoever logs in has a token of their own. */
async function login(...users: readonly string[]): Promise<void> {
  for (const user of users) {
    await owner`
      insert into public.user_logins (user_id, masked_ip) values (${user}, ${tokenOf(user)})`;
  }
}

/** Originals of a day of its own, which no period has. */
async function fill(count: number, day: string): Promise<void> {
  await owner.unsafe(
    `insert into pii_vault.originals (token, period, data_key, sealed)
     select 'ip1_zz' || translate(lpad(n::text, 10, '0'), '0189', 'wxyz') || repeat('b', 13) || 'a', $2::text::date,
       (select id from pii_vault.data_keys limit 1),
       sha256(($2::text || n)::bytea) || sha256(($2::text || 'x' || n)::bytea)
         || substring(sha256(($2::text || 'y' || n)::bytea) for 12)
     from generate_series(1, $1::int) n`,
    [count, day],
  );
}

/** Those that were made up, and are there. */
const filled = async (): Promise<number> => {
  const [row] = await owner`
    select count(*)::int as n from pii_vault.originals where token like 'ip1_zz%'`;
  return Number(row?.n);
};

const stones = async (): Promise<number> => {
  const [row] = await owner`select count(*)::int as n from pii_vault.tombstones`;
  return Number(row?.n);
};

test("a user id that nobody has is no success: exit code 1, on record, with a receipt of zeros", async () => {
  await login("ann");
  const before = await stones();
  const receipt = join(folder, "typo.json");
  const args = ["forget", "--user", "anne", "--reason", "request 1"];
  const run = await veil([...args, "--json", "--receipt", receipt], { env: env.eraser });
  expect(run.code).toBe(1);
  expect(run.stderr).toContain("error: nothing was erased: no row of this user id");
  expect(JSON.parse(run.stdout)).toMatchObject({ kind: "user", rows: 0, originals: 0 });
  expect(readFileSync(receipt, "utf8")).toBe(run.stdout);
  const dry = await veil(["forget", "--user", "anne", "--dry-run"], { env: env.eraser });
  expect([dry.code, dry.stdout]).toEqual([1, ""]);
  const screen = await atTerminal(args, env.eraser);
  expect([screen.code, screen.screen.includes("type yes")]).toEqual([1, false]);
  expect(await stones()).toBe(before);
});

test("a receipt of tokens counts what was unknown or forgotten before, and --json names them", async () => {
  await login("bob", "cid");
  const [bob, cid, none] = [tokenOf("bob"), tokenOf("cid"), tokenOf("nobody")];
  expect((await veil(["forget", bob, "--reason", "r"], { env: env.eraser })).code).toBe(0);
  const receipt = join(folder, "tokens.json");
  const args = ["forget", bob, cid, none, "--reason", "r", "--json", "--receipt", receipt];
  const run = await veil(args, { env: env.eraser });
  expect(run.code).toBe(1);
  expect(run.stderr).toContain("1 token erased, 0 originals deleted, fresh tokens in 1 row;");
  expect(run.stderr).toContain("1 of 3 tokens was not erased");
  const { outcomes, ...printed } = JSON.parse(run.stdout);
  expect(printed).toMatchObject({ erased: { ip: 1 }, forgotten: 1, unknown: 1 });
  expect(outcomes).toEqual([
    { token: bob, outcome: "forgotten" },
    { token: cid, outcome: "erase" },
    { token: none, outcome: "unknown" },
  ]);
  expect(JSON.parse(readFileSync(receipt, "utf8"))).toEqual(printed);
  const [entry] =
    await owner`select details from pii_vault.audit where id = ${printed.audit.entry}`;
  const { audit: _, ...recorded } = printed;
  expect(entry?.details).toEqual(recorded);
  const idle = await atTerminal(["forget", bob, "--reason", "r"], env.eraser);
  expect([idle.code, idle.screen.includes("type yes")]).toEqual([0, false]);
});

test("Ctrl-C ends an expiry after its step, says what was done, and the next one goes on", async () => {
  for (const day of ["2020-01-01", "2020-01-02", "2020-01-03"]) await fill(300, day);
  const blocker = scene.database.sql(scene.database.ownerUrl);
  await blocker.unsafe("begin; lock table pii_vault.erasure_gate in row share mode");
  const args = ["expire", "--older-than", "400d", "--reason", "policy 7", "--json"];
  const child = startVeil(args, { env: env.eraser });
  let stderr = "";
  const reading = (async () => {
    for await (const bytes of child.stderr) stderr += new TextDecoder().decode(bytes);
  })();
  await until(async () => {
    const [row] = await owner`
      select count(*)::int as n from pg_stat_activity
      where datname = current_database() and query like '%expire_period%' and wait_event = 'PgSleep'`;
    return Number(row?.n) > 0;
  });
  child.kill("SIGTERM");
  await until(() => stderr.includes("waiting for the end of this period"));
  await blocker.unsafe("commit");
  await blocker.end();
  expect(await child.exited).toBe(130);
  await reading;
  expect(stderr).toContain("run it again");
  const part = JSON.parse(await new Response(child.stdout).text());
  expect(part).toMatchObject({ complete: false, dryRun: false, originals: 300, rows: 0 });
  expect(part.periods).toMatchObject([
    {
      ...{ first: "2020-01-01", until: "2020-01-02", originals: 300, rows: 0 },
      ...{ held: { originals: 0, rows: 0 }, bytes: 0 },
      audit: [
        { entry: expect.any(Number), position: expect.any(Number), hash: expect.any(String) },
      ],
    },
  ]);
  expect(await filled()).toBe(600);

  const rest = await veil(args, { env: env.eraser });
  expect({ code: rest.code, stderr: rest.stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(rest.stdout)).toMatchObject({ originals: 600, complete: true });
  expect(await filled()).toBe(0);
});

test("a long query is named once an expiry has given up, and what was done before is printed", async () => {
  await owner.begin(async (sql) => {
    await sql.unsafe("set local role veil_owner");
    await sql`select etl.make_period('2021-01-01', '2021-02-01')`;
  });
  await fill(2, "2020-05-01");
  await owner`insert into etl.adopted values ('2021-01-05', 1, 0)`;
  await owner`insert into public.user_logins (user_id, create_date) values ('late', '2021-01-05')`;
  const analyst = scene.database.sql(scene.database.url("analyst"));
  await analyst.unsafe(
    "begin; declare long cursor for select * from public.user_logins; fetch 1 from long",
  );
  const args = ["expire", "--older-than", "400d", "--rows", "--reason", "r", "--json"];
  try {
    const [self] = await analyst`select pg_backend_pid() as pid`;
    const run = await veil(args, { env: env.eraser });
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("could not be expired, and is as it was");
    expect(run.stderr).toContain(`session ${self!.pid} (login ${scene.database.login("analyst")}`);
    expect(run.stderr).toContain(
      "hint: loads go on meanwhile; run it again when the session has ended",
    );
    expect(JSON.parse(run.stdout)).toMatchObject({ originals: 2, rows: 0, complete: false });
  } finally {
    await analyst.unsafe("commit");
  }
  const again = await veil(args, { env: env.eraser });
  expect(JSON.parse(again.stdout)).toMatchObject({ originals: 0, rows: 1, complete: true });
  const [left] =
    await owner`select count(*)::int as n from public.user_logins where user_id = 'late'`;
  expect(left?.n).toBe(0);
});

test("at a terminal an expiry asks why, shows its counts, and takes only yes; with nothing to do it asks nothing", async () => {
  await fill(3, "2020-02-01");
  const args = ["expire", "--older-than", "400d"];
  const why = { when: "reason, for the record", keys: "policy 7\r" };
  const asked = { when: "3 originals and 0 rows of 1 period would go" };
  const no = await atTerminal(args, env.eraser, [why, { ...asked, keys: "y\r" }]);
  expect(no.code).toBe(1);
  expect(no.screen).toMatch(/2020-02-01 to before 2020-02-02 +3 +0 +0 +0/);
  expect(await filled()).toBe(3);
  const yes = await atTerminal(args, env.eraser, [why, { ...asked, keys: "yes\r" }]);
  expect(yes.code).toBe(0);
  expect(await filled()).toBe(0);
  const idle = await atTerminal(args, env.eraser, [why]);
  expect([idle.code, idle.screen.includes("type yes")]).toEqual([0, false]);
});

test("a dry run says how much would go, and an expiry of fewer than 15 days is refused", async () => {
  await fill(5, "2020-03-01");
  const dry = await veil(["expire", "--older-than", "400d", "--dry-run"], { env: env.eraser });
  expect({ code: dry.code, stderr: dry.stderr }).toEqual({
    ...{ code: 0, stderr: "nothing was erased: this was a dry run\n" },
  });
  expect(dry.stdout).toMatch(/^2020-03-01 to before 2020-03-02 +5 +0 +0 +0 +0.0 MiB\nall +5 /);
  const args = ["expire", "--older-than", "400d", "--dry-run", "--json"];
  expect(JSON.parse((await veil(args, { env: env.eraser })).stdout)).toMatchObject({
    ...{ originals: 5, rows: 0, bytes: 0, dryRun: true, complete: true },
    periods: [{ first: "2020-03-01", originals: 5, audit: [] }],
  });
  expect(await filled()).toBe(5);
  const young = await veil(["expire", "--older-than", "14d", "--reason", "r"], { env: env.eraser });
  expect([young.code, young.stdout]).toEqual([2, ""]);
  expect(young.stderr).toContain("expected a number of days from 15d to 36500d");
});

test("a hold of nothing is warned of, an auditor sees the holds, and a lacking role is one that can be granted", async () => {
  await login("dan");
  const add = (...args: string[]) =>
    veil(["hold", "add", ...args, "--reason", "case 7"], { env: env.policy });
  const held: string[] = [];
  for (const [args, isEmpty] of [
    [["--user", "dan"], false],
    [[tokenOf("dan")], false],
    [["--user", "dann"], true],
    [[tokenOf("nobody")], true],
  ] as const) {
    const { code, stdout, stderr } = await add(...args);
    expect({ args, code, warned: stderr.startsWith("warning: ") }).toEqual({
      ...{ args, code: 0, warned: isEmpty },
    });
    held.push(stdout.trim());
  }
  const refused = await veil(["forget", "--user", "dann", "--reason", "r"], { env: env.eraser });
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(
    /^error: this user is under a legal hold.*\nhint: `veil hold list`/,
  );
  for (const role of ["policy", "eraser", "auditor"] as const) {
    const list = await veil(["hold", "list", "--json"], { env: env[role] });
    expect([role, JSON.parse(list.stdout).length]).toEqual([role, 4]);
  }
  const analyst = scene.database.login("analyst");
  const other = await veil(["hold", "list"], { env: env.analyst });
  expect(other.code).toBe(1);
  expect(other.stderr).toContain("it lacks veil_policy or veil_eraser or veil_auditor\n");
  expect(other.stderr).toContain(`: GRANT veil_policy TO ${analyst};\n`);
  for (const id of held) {
    const args = ["hold", "release", id, "--reason", "over"];
    expect((await veil(args, { env: env.policy })).code).toBe(0);
  }
});

test("what is no token was not erased, and --user and tokens exclude each other by name", async () => {
  const foo = await veil(["forget", "foo", "--reason", "r"], { env: env.eraser });
  expect(foo.stderr).toContain("argument 1 is not a token; nothing was erased\n");
  for (const args of [
    ["forget", tokenOf("x"), "--user", "x"],
    ["hold", "add", tokenOf("x"), "--user", "x"],
  ]) {
    const both = await veil([...args, "--reason", "r"], { env: env.policy });
    expect([both.code, both.stderr.includes("not both")]).toEqual([2, true]);
  }
  const empty = await veil(["forget", "--user=", "--reason", "r"], { env: env.eraser });
  expect(empty.stderr).toContain("expected a user id of 1 to 128 characters");
});

const guide = fileURLToPath(new URL("../../docs/erasure.md", import.meta.url));
const recipe = readFileSync(guide, "utf8").split("\n## Backups\n")[1] ?? "";
const [saving = "", restoring = ""] = [...recipe.matchAll(/^```sh.*\n([\s\S]*?)^```$/gm)].map(
  ([, text]) => text,
);
const absent = ["psql", "xargs"].find((program) => Bun.which(program) === null);

test.skipIf(absent !== undefined)(
  `after a restore the guide's commands forget users again, however their ids are written${
    absent === undefined ? "" : ` (skipped without ${absent} on PATH)`
  }`,
  async () => {
    const cli = fileURLToPath(new URL("../../src/cli.ts", import.meta.url));
    const program = join(folder, "veil");
    writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" --no-env-file "${cli}" "$@"\n`);
    chmodSync(program, 0o755);
    const shell = async (text: string) => {
      const child = Bun.spawn(["sh", "-ec", text], {
        cwd: folder,
        env: {
          PATH: `${folder}:${process.env.PATH}`,
          HOME: folder,
          DATABASE_URL: scene.database.ownerUrl,
        },
        stdout: "pipe",
        stderr: "pipe",
      });
      const [stderr, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
      expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    };
    const users = [
      "a\\b",
      " lead",
      "trail ",
      "-dash",
      "--",
      "a\ttab",
      "two\nlines",
      "'\"$HOME`",
      "é\\.",
    ];
    const bystander = randomUUID();
    await login(...users, bystander);
    // All of them have it: only who is forgotten by user id is parted from it.
    const shared = `dev1_${"s".repeat(25)}a`;
    await owner`update public.user_logins set masked_device_id = ${shared}
      where user_id = any(${[...users, bystander]})`;
    // The backup is a copy of the rows; the tombstones are of after it.
    await owner.unsafe("create table public.kept as table public.user_logins");
    for (const user of users) {
      const args = ["forget", `--user=${user}`, "--reason", "request"];
      expect((await veil(args, { env: env.eraser })).code).toBe(0);
    }
    await shell(saving);
    const sharing = async () => {
      const rows = await owner`
        select user_id from public.user_logins where masked_device_id = ${shared}`;
      return rows.map((row) => row.user_id);
    };
    expect(await sharing()).toEqual([bystander]);
    await owner`delete from pii_vault.tombstones where token = any(${users.map(tokenOf)})`;
    await owner.unsafe(
      `delete from public.user_logins; insert into public.user_logins table public.kept;
       drop table public.kept`,
    );
    expect((await sharing()).length).toBe(users.length + 1);
    await shell(restoring.replace("veil check\n", ""));
    expect(await sharing()).toEqual([bystander]);
    const left = await owner`
      select from public.user_logins where masked_ip = any(${users.map(tokenOf)})`;
    expect(left.length).toBe(0);
  },
);
