// A user asks to be forgotten: through every command, and then all that the database holds is searched, in every
// spelling, for what was erased, its seals included.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type postgres from "postgres";
import { atTerminal } from "../cli/pseudo-terminal.ts";
import { createScene, type Scene } from "../cli/scene.ts";
import { type Run, veil } from "../support/veil.ts";
import { tokensOf } from "./expected.ts";
import { summary, until } from "./stored.ts";

const mark = randomBytes(8).toString("hex");
const group = (at: number): string => mark.slice(at, at + 4);
const CANARY = {
  ip: `2001:db8:${group(0)}:${group(4)}::${group(8)}:${group(12)}`,
  device: `canary-device-${mark}`,
};
const SHARED = "203.0.113.7";
const USER = `user-${mark}`;

let scene: Scene;
let owner: postgres.Sql;
let eraser: Record<string, string>;
let folder: string;
beforeAll(async () => {
  scene = await createScene();
  owner = scene.database.sql(scene.database.ownerUrl);
  eraser = { DATABASE_URL: scene.database.url("eraser") };
  folder = mkdtempSync(join(tmpdir(), "veil-forgotten-"));
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await scene?.database.drop();
});

const done = (run: Run): Run => {
  expect({ code: run.code, stderr: run.code === 0 ? "" : run.stderr }).toEqual({
    ...{ code: 0, stderr: "" },
  });
  return run;
};

async function etl(...logins: readonly Record<string, string>[]) {
  for (const login of logins) scene.send(login);
  const args = ["etl", "--json", "--max-messages", String(logins.length)];
  return summary(done(await veil(args, { env: scene.etl })));
}

async function tables(): Promise<readonly string[]> {
  const rows = await owner`
    select format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
      and n.nspname !~ '^pg_toast'`;
  return rows.map(({ name }) => String(name));
}

/** Every row of every table and what is kept of columns for the planner; a bytea as the bytes that it is, too. */
async function dump(): Promise<string> {
  const parts: string[] = [];
  for (const name of [...(await tables()), "pg_stats"]) {
    for (const { row } of await owner.unsafe(`select t::text as row from ${name} t`)) {
      parts.push(row);
      for (const [, hex] of String(row).matchAll(/\\x([0-9a-f]+)/g)) {
        parts.push(Buffer.from(hex!, "hex").toString("latin1"));
      }
    }
  }
  return parts.join("\n");
}

/** As bytes of the tables' files, where what a plain dump does not show may stand as well. */
async function files(): Promise<Buffer> {
  await owner.unsafe("checkpoint");
  const parts: Buffer[] = [];
  for (const { file } of await owner`
    select pg_relation_filepath(c.oid) as file, pg_relation_size(c.oid) as size
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 't', 'i') and n.nspname in ('public', 'pii_vault', 'etl', 'pg_toast')
      and pg_relation_size(c.oid) > 0`) {
    const [read] = await owner`select pg_read_binary_file(${file}) as bytes`;
    parts.push(read?.bytes);
  }
  return Buffer.concat(parts);
}

test("forgotten, by command, and found nowhere any more: neither in a dump nor in the tables' files", async () => {
  const login = { user_id: USER, ip: CANARY.ip, device_id: CANARY.device };
  const loaded = await etl(
    ...[login, { ...login, ip: SHARED }],
    ...["u1", "u2", "u3"].map((user_id) => ({ user_id, ip: SHARED, device_id: `d ${user_id}` })),
  );
  expect(loaded).toMatchObject({ loaded: 5, newOriginals: 6 });
  const tokens = tokensOf(scene.keys.VEIL_TOKEN_KEY);
  const gone = [tokens.ip(CANARY.ip), tokens.device_id(CANARY.device)];
  const seals = await owner<{ sealed: Buffer }[]>`
    select sealed from pii_vault.originals where token = any(${gone})`;
  expect(seals.length).toBe(2);
  await owner.unsafe("analyze");
  const before = { text: await dump(), bytes: await files() };
  for (const { sealed } of seals) {
    expect(before.text).toContain(sealed.toString("latin1"));
    expect(before.bytes.includes(sealed)).toBe(true);
  }

  const args = ["forget", "--user", USER, "--reason", "request 2026-118"];
  const dry = JSON.parse(
    (await veil([...args, "--dry-run", "--json"], { env: eraser })).stdout,
  ) as { outcome: string; others: number }[];
  expect(dry.map(({ outcome, others }) => [outcome, others]).sort()).toEqual([
    ["erase", 0],
    ["erase", 0],
    ["keep", 3],
  ]);
  const [planned] = await owner`
    select c.position::int, a.items from pii_vault.audit a
    join pii_vault.audit_chain c on c.entry = a.id where a.action = 'erasure.planned'`;
  expect({ ...planned }).toEqual({ position: 1, items: 3 });
  const path = join(folder, "receipt.json");
  const run = await veil([...args, "--json", "--receipt", path], { env: eraser });
  expect(run.code).toBe(0);
  const receipt = JSON.parse(run.stdout);
  expect(readFileSync(path, "utf8")).toBe(run.stdout);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(receipt).toMatchObject({
    kind: "user",
    erased: { ip: 1, device_id: 1 },
    kept: { ip: 1, device_id: 0 },
    rows: 2,
  });
  expect(Object.keys(receipt.audit)).toEqual(["entry", "position", "hash"]);
  const [chained] = await owner`
    select encode(hash, 'hex') as hash from pii_vault.audit_chain
    where position = ${receipt.audit.position} and entry = ${receipt.audit.entry}`;
  expect(receipt.audit.hash).toBe(chained?.hash);

  // The same values once more, by a host that has never seen them.
  expect(await etl(login, login)).toMatchObject({ loaded: 2, newOriginals: 0 });
  const rows = await owner`
    select masked_ip, masked_device_id from public.user_logins where user_id = ${USER}`;
  expect(rows.length).toBe(4);
  for (const row of rows) {
    expect(row.masked_ip).toMatch(/^ip0_/);
    expect(row.masked_device_id).toMatch(/^dev0_/);
  }

  const needles = [CANARY.ip, CANARY.device, ...seals.map(({ sealed }) => sealed)].map((needle) =>
    Buffer.isBuffer(needle) ? needle : Buffer.from(needle),
  );
  // A row that autovacuum's session still sees stays until that has ended.
  await until(async () => {
    await owner.unsafe(`vacuum (full, analyze) ${(await tables()).join(", ")}`);
    await owner.unsafe("vacuum full pg_statistic");
    const bytes = await files();
    return needles.every((needle) => !bytes.includes(needle));
  });
  let text = "";
  await until(async () => {
    text = await dump().catch((error) => {
      // Autovacuum is just writing what pg_stats shows.
      if (error.code !== "XX001") throw error;
      return "";
    });
    return text !== "";
  });
  const after = { text, bytes: await files() };
  for (const bytes of needles) {
    expect(after.text.includes(bytes.toString("latin1"))).toBe(false);
    expect(after.text.includes(bytes.toString("hex"))).toBe(false);
    expect(after.text.includes(bytes.toString("base64").slice(0, -4))).toBe(false);
    expect(after.bytes.includes(bytes)).toBe(false);
  }
  for (const token of gone) {
    const [row] =
      await owner`select count(*)::int as n from pii_vault.tombstones where token = ${token}`;
    expect(row?.n).toBe(1);
  }
  const checked = await veil(["check"], { env: { DATABASE_URL: scene.database.url("auditor") } });
  expect({ code: checked.code, stderr: checked.stderr }).toEqual({ code: 0, stderr: "" });
});

test("a shared token is kept, which is no success; what a hold forbids is refused, naming the token", async () => {
  const token = tokensOf(scene.keys.VEIL_TOKEN_KEY).ip(SHARED);
  const kept = await veil(["forget", token, "--reason", "r"], { env: eraser });
  expect(kept.code).toBe(1);
  expect(kept.stdout).toMatch(/^ip1_\w+ +ip +kept: others have it\n$/);
  expect(kept.stderr).toContain("1 of 1 token was not erased");
  const policy = { DATABASE_URL: scene.database.url("policy") };
  const added = await veil(["hold", "add", "--user", "u1", "--reason", "case 7", "--json"], {
    env: policy,
  });
  const { id } = JSON.parse(done(added).stdout);
  const refused = await veil(["forget", "-", "--reason", "r"], {
    ...{ env: eraser, stdin: `${tokensOf(scene.keys.VEIL_TOKEN_KEY).device_id("d u1")}\n\n` },
  });
  expect(refused.code).toBe(1);
  expect(refused.stdout).toBe("");
  expect(refused.stderr).toMatch(/^error: 1 of 1 token is under a legal hold, .*: dev1_\w+\n/);
  const list = done(await veil(["hold", "list"], { env: eraser }));
  expect(list.stdout).toStartWith(`${id}  user u1  `);
  done(await veil(["hold", "release", id, "--reason", "closed"], { env: policy }));
  expect(JSON.parse(done(await veil(["hold", "list", "--json"], { env: policy })).stdout)).toEqual(
    [],
  );
});

test("at a terminal the plan is shown, and only yes erases", async () => {
  const args = ["forget", "--user", "u3"];
  const when = "type yes to erase";
  const asked = { when: "reason, for the record", keys: "request 3\r" };
  const no = await atTerminal(args, eraser, [asked, { when, keys: "y\r" }]);
  expect(no.code).toBe(1);
  expect(no.screen).toContain("kept for others; this user's rows get fresh tokens");
  expect(no.screen).toContain("nothing was erased");
  const count = async () => {
    const [row] = await owner`
      select count(*)::int as n from pii_vault.audit where reason = 'request 3'`;
    return row?.n;
  };
  expect(await count()).toBe(0);
  const yes = await atTerminal(args, eraser, [asked, { when, keys: "yes\r" }]);
  expect(yes.code).toBe(0);
  expect(yes.screen).toContain("1 token erased, 1 original deleted, fresh tokens in 1 row;");
  expect(await count()).toBe(1);
});

test("expire counts, says so, and names what nobody erased", async () => {
  const dry = await veil(["expire", "--older-than", "30d", "--dry-run", "--json"], { env: eraser });
  expect({ code: dry.code, stderr: dry.stderr }).toEqual({
    ...{ code: 0, stderr: "nothing was erased: this was a dry run\n" },
  });
  expect(JSON.parse(dry.stdout)).toMatchObject({
    ...{ originals: 0, rows: 0, periods: [], dryRun: true, complete: true },
  });
  const unexplained = await veil(["expire", "--older-than", "30d"], { env: eraser });
  expect([unexplained.code, unexplained.stdout]).toEqual([2, ""]);
  expect(unexplained.stderr).toContain("this needs a reason");
  const args = ["expire", "--older-than", "30d", "--reason", "policy 7"];
  const run = done(await veil(args, { env: eraser }));
  expect(run.stdout).toMatch(/^all +0 +0 +0 +0 +0.0 MiB\n/);
});

test("wrong usage is said before anything is connected to, and a missing role by its name", async () => {
  const none = { DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" };
  for (const args of [
    ["forget", "--reason", "r"],
    ["forget", "ip1_x", "--reason", "r"],
    ["forget", `ip1_${"a".repeat(26)}`, "--user", "u", "--reason", "r"],
    ["expire", "--older-than", "400"],
    ["expire", "--older-than", "0d"],
    ["expire", "--older-than", "14d"],
    ["expire"],
    ["forget", "--user", "u", "--reason", "r", "--dry-run", "--receipt", "never"],
    ["forget", "--user", "", "--reason", "r"],
    ["forget", "--user", "x".repeat(129), "--reason", "r"],
    ["hold", "add", "--user", "", "--reason", "r"],
    ["hold", "add", `ip1_${"a".repeat(26)}`, "--user", "u", "--reason", "r"],
    ["hold", "add", "--reason", "r"],
    ["hold", "add", `ip0_${"a".repeat(26)}`, "--reason", "r"],
    ["hold", "release", "x", "--reason", "r"],
    ["hold", "release", crypto.randomUUID()],
  ]) {
    const run = await veil(args, { env: none });
    expect({ args, code: run.code, stdout: run.stdout }).toEqual({ args, code: 2, stdout: "" });
  }
  const silent = await veil(["forget", "--user", "u1"], { env: eraser });
  expect({ code: silent.code, stderr: silent.stderr }).toMatchObject({ code: 2 });
  expect(silent.stderr).toContain("this needs a reason");
  const env = { DATABASE_URL: scene.database.url("policy") };
  const run = await veil(["forget", "--user", "u1", "--reason", "r"], { env });
  expect(run.code).toBe(1);
  expect(run.stderr).toContain("it lacks veil_eraser\nhint: ");
  const taken = join(folder, "receipt.json");
  expect(existsSync(taken)).toBe(true);
  const again = ["forget", "--user", "u1", "--reason", "r", "--receipt", taken];
  expect((await veil(again, { env: eraser })).stderr).toContain("(EEXIST); nothing was erased");
  const [row] = await owner`select count(*)::int as n from pii_vault.tombstones`;
  expect(row?.n).toBe(3);
});
