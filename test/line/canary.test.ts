// Values that occur nowhere else go through every command, with the server's log at its most
// talkative. Then all that was written anywhere is searched for them, in every spelling.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createCipheriv, createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import type postgres from "postgres";
import { createDatabase, type Role, type TestDatabase } from "../support/database.ts";
import { makeKeys, type TestKeys } from "../support/keys.ts";
import { createQueue, usePostgres } from "../support/servers.ts";
import { type Run, veil } from "../support/veil.ts";
import { tokensOf, unwrap } from "./expected.ts";
import { summary } from "./stored.ts";

const mark = randomBytes(8).toString("hex");
const group = (at: number): string => mark.slice(at, at + 4);

const CANARIES = {
  ip: `2001:db8:${group(0)}:${group(4)}::${group(8)}:${group(12)}`,
  device_id: `canary-device-${mark}`,
  brokenBody: `canary-body-${mark}`,
  brokenValue: `canary-value-${mark}`,
  replayed: `canary-replayed-${mark}`,
  asked: `canary-asked-${mark}`,
};
const ADDRESS = Buffer.from(`20010db8${mark.slice(0, 8)}00000000${mark.slice(8)}`, "hex");

let database: TestDatabase;
let sql: postgres.Sql;
let keys: TestKeys;
let env: Record<string, string>;
let queue: Awaited<ReturnType<typeof createQueue>>;
let log: string | null;
/** Where the log ended before: what other files' tests have made it write is theirs. */
let logStart: number;
const passwords = new Map<string, string>();
const urls = new Map<Role, string>();
const logins: string[] = [];
const runs: { readonly command: string; readonly run: Run }[] = [];
/** The commands whose stdout is there to show an original. */
const showing = new Set<Run>();

beforeAll(async () => {
  log = (await usePostgres()).log;
  logStart = log === null ? 0 : statSync(log).size;
  database = await createDatabase();
  sql = database.sql(database.ownerUrl);
  keys = await makeKeys();
  queue = await createQueue();
  env = {
    ...queue.env,
    AWS_SECRET_ACCESS_KEY: `canary-aws-${mark}`,
    VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
    VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
  };
  for (const role of ["etl", "revealer", "operator"] as const) await addLogin(role);
  await work();
});
afterAll(async () => {
  for (const login of logins) await sql.unsafe(`drop role ${login}`);
  await database?.drop();
});

/** With a password that the server is only ever shown the verifier of. */
async function addLogin(role: Role): Promise<void> {
  const password = `canary-${role}-${mark}`;
  const salt = randomBytes(16);
  const salted = pbkdf2Sync(password, salt, 4096, 32, "sha256");
  const hmac = (text: string) => createHmac("sha256", salted).update(text).digest();
  const stored = createHash("sha256").update(hmac("Client Key")).digest("base64");
  const verifier = `SCRAM-SHA-256$4096:${salt.toString("base64")}$${stored}:${hmac("Server Key").toString("base64")}`;
  const login = `canary_${role}_${mark}`;
  await sql.unsafe(`create role ${login} login password '${verifier}' in role veil_${role}`);
  logins.push(login);
  const url = new URL(database.ownerUrl);
  url.username = login;
  url.password = password;
  passwords.set(role, password);
  urls.set(role, url.href);
}

async function run(args: string[], more: Record<string, string> = {}, stdin = ""): Promise<Run> {
  const done = await veil(args, { env: { ...env, ...more }, stdin });
  runs.push({ command: args.join(" "), run: done });
  return done;
}

const as = (role: Role): Record<string, string> => ({ DATABASE_URL: urls.get(role)! });
const recovering = (role: Role): Record<string, string> => ({
  ...as(role),
  VEIL_IDENTITY: keys.VEIL_IDENTITY,
  VEIL_VERIFY_KEY: keys.VEIL_VERIFY_KEY,
});

async function work(): Promise<void> {
  const login = {
    user_id: `user-${mark}`,
    app_version: "1.0",
    ip: CANARIES.ip,
    device_id: CANARIES.device_id,
  };
  const bodies = [
    JSON.stringify(login),
    `{"user_id":"u","ip":"${CANARIES.ip}",${CANARIES.brokenBody}`,
    JSON.stringify({ ...login, locale: [CANARIES.brokenValue] }),
    JSON.stringify({ ...login, app_version: CANARIES.brokenValue }),
    JSON.stringify({ [CANARIES.brokenValue]: CANARIES.brokenBody }),
    JSON.stringify({ Type: "Notification", Message: CANARIES.brokenBody }),
    JSON.stringify({ ...login, device_id: `${CANARIES.device_id}\0` }),
  ];

  const foreign = await makeKeys();
  const failing = await createQueue();
  for (const body of bodies) failing.send(body);
  await sql.unsafe("alter table public.user_logins rename to away");
  expect((await run(["etl"], { ...as("etl"), ...failing.env })).code).toBe(1);
  await sql.unsafe("alter table public.away rename to user_logins");

  for (const body of bodies) queue.send(body);
  const etl = await run(["etl", "--json", "--max-messages", "7"], as("etl"));
  expect(summary(etl)).toMatchObject({ received: 7, loaded: 1, quarantined: 6 });
  const receive = await createQueue();
  receive.send(JSON.stringify(login));
  const text = await run(["etl", "--max-messages", "1"], { ...as("etl"), ...receive.env });
  expect(text.code).toBe(0);
  receive.send(JSON.stringify(login));
  const wrongKey = { ...as("etl"), ...receive.env, VEIL_TOKEN_KEY: foreign.VEIL_TOKEN_KEY };
  expect((await run(["etl"], wrongKey)).code).toBe(1);

  const tokens = tokensOf(keys.VEIL_TOKEN_KEY);
  const asked = [tokens.ip(CANARIES.ip), tokens.device_id(CANARIES.device_id)];
  const json = await run(
    ["reveal", "-", "--json", "--reason", "a test"],
    recovering("revealer"),
    asked.join("\n"),
  );
  showing.add(json);
  expect(JSON.parse(json.stdout)).toMatchObject([
    { original: CANARIES.ip },
    { original: CANARIES.device_id },
  ]);
  const table = await run(["reveal", ...asked], recovering("revealer"));
  showing.add(table);
  expect(table.code).toBe(0);
  expect((await run(["reveal", CANARIES.ip], recovering("revealer"))).code).toBe(2);
  const stdin = `${CANARIES.asked}\n`;
  expect((await run(["reveal", "-"], recovering("revealer"), stdin)).code).toBe(2);
  const blind = { ...recovering("revealer"), VEIL_IDENTITY: foreign.VEIL_IDENTITY };
  expect(await run(["reveal", ...asked, "--json"], blind)).toMatchObject({
    code: 1,
    stdout: "[]\n",
  });
  expect((await run(["token", "device_id"], {}, `${CANARIES.asked}\n${CANARIES.ip}`)).code).toBe(0);
  expect((await run(["token", "ip", "--json"], {}, CANARIES.ip)).code).toBe(0);
  expect((await run(["token", "ip", CANARIES.ip])).code).toBe(2);

  const operator = recovering("operator");
  const list = await run(["quarantine", "list", "--json"], as("operator"));
  const entries = JSON.parse(list.stdout) as { messageId: string; reason: string }[];
  expect(entries.length).toBe(6);
  expect((await run(["quarantine", "list"], as("operator"))).code).toBe(0);
  for (const { messageId } of entries.slice(0, 2)) {
    for (const more of [[], ["--json"]]) {
      const shown = await run(["quarantine", "show", messageId, ...more], operator);
      showing.add(shown);
      expect(shown.code).toBe(0);
    }
  }
  expect((await run(["quarantine", "replay"], operator)).code).toBe(1);
  await mend(entries[0]!.messageId);
  const replayed = await run(["quarantine", "replay", "--json", entries[0]!.messageId], operator);
  expect({ code: replayed.code, stderr: replayed.stderr }).toEqual({ code: 0, stderr: "" });
  const blindOperator = { ...operator, VEIL_IDENTITY: foreign.VEIL_IDENTITY };
  expect((await run(["quarantine", "show", entries[1]!.messageId], blindOperator)).code).toBe(1);
  expect((await run(["quarantine", "replay"], blindOperator)).code).toBe(1);
  const discarded = await run(["quarantine", "discard", entries[2]!.messageId], as("operator"));
  expect(discarded.code).toBe(0);

  await sql`update pii_vault.originals set sealed = set_byte(sealed, 20, 0)`;
  expect((await run(["reveal", ...asked, "--json"], recovering("revealer"))).code).toBe(1);
}

/** Seals a body that is a login into a quarantine entry: what a fixed rule would make of it. */
async function mend(messageId: string): Promise<void> {
  const [entry] = await sql`
    select k.wrapped from etl.quarantine q join pii_vault.data_keys k on k.id = q.data_key
    where q.message_id = ${messageId}`;
  const body = Buffer.from(JSON.stringify({ user_id: "mended", device_id: CANARIES.replayed }));
  const padded = Buffer.concat([body, Buffer.from([0x80]), Buffer.alloc(15 - (body.length % 16))]);
  const nonce = randomBytes(12);
  const dataKey = await unwrap(entry?.wrapped, keys.VEIL_IDENTITY);
  const cipher = createCipheriv("aes-256-gcm", dataKey, nonce);
  cipher.setAAD(Buffer.from(`veil/v1/quarantine\0${messageId}`));
  const sealed = Buffer.concat([nonce, cipher.update(padded), cipher.final(), cipher.getAuthTag()]);
  await sql`update etl.quarantine set sealed = ${sealed} where message_id = ${messageId}`;
}

/** A value as it stands, in hex, and in base64 at each of the three places it can have there. */
function spellings(bytes: Buffer): string[] {
  const base64 = [0, 1, 2].map((offset) => {
    const shifted = Buffer.concat([Buffer.alloc(offset), bytes]).toString("base64url");
    return shifted.slice(
      offset === 0 ? 0 : offset + 1,
      Math.floor(((bytes.length + offset) * 8) / 6),
    );
  });
  return [bytes.toString("latin1"), bytes.toString("hex"), ...base64];
}

const needles = (values: readonly (string | Buffer)[]): string[] =>
  values.flatMap((value) => spellings(Buffer.isBuffer(value) ? value : Buffer.from(value, "utf8")));

/** Which of the needles stand in a text, whatever its case, and whichever base64 it is in. */
function found(text: string, wanted: readonly string[]): string[] {
  const folded = text.toLowerCase().replaceAll("+", "-").replaceAll("/", "_");
  return wanted.filter((needle) =>
    folded.includes(needle.toLowerCase().replaceAll("+", "-").replaceAll("/", "_")),
  );
}

const personal = needles([...Object.values(CANARIES), ADDRESS]);
const secrets = (): string[] => {
  const key = (text: string) => text.slice(text.indexOf(":") + 1);
  const tokenKey = key(keys.VEIL_TOKEN_KEY);
  const verifyKey = key(keys.VEIL_VERIFY_KEY);
  return needles([
    tokenKey,
    Buffer.from(tokenKey, "base64"),
    verifyKey,
    Buffer.from(verifyKey, "base64"),
    keys.VEIL_IDENTITY,
    keys.VEIL_IDENTITY.slice("AGE-SECRET-KEY-1".length),
    `canary-aws-${mark}`,
    ...passwords.values(),
  ]);
};

/** Every row of every table, as text, and each bytea in it once more as the bytes that it is. */
async function dump(): Promise<string> {
  const tables = await sql`
    select format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
      and n.nspname !~ '^pg_toast'`;
  const parts: string[] = [];
  for (const { name } of tables) {
    for (const { row } of await sql.unsafe(`select t::text as row from only ${name} t`)) {
      parts.push(row);
      for (const [, hex] of String(row).matchAll(/\\x([0-9a-f]+)/g)) {
        parts.push(Buffer.from(hex!, "hex").toString("latin1"));
      }
    }
  }
  return parts.join("\n");
}

test("the search finds what is there, in every spelling", () => {
  const value = "canary-control";
  const bytes = Buffer.from(value);
  for (const text of [
    `a ${value} b`,
    value.toUpperCase(),
    `\\x00${bytes.toString("hex")}ff`,
    Buffer.from(`?${value}?`).toString("base64"),
    Buffer.from(`??${value}`).toString("base64url"),
    Buffer.from(`???${value}??`).toString("base64"),
  ]) {
    expect({ text, found: found(text, needles([value])).length > 0 }).toEqual({
      text,
      found: true,
    });
  }
  expect(found("canary-contro", needles([value]))).toEqual([]);
});

test("no original stands in the output of a command that does not show it", () => {
  expect(runs.length).toBeGreaterThan(20);
  for (const { command, run } of runs) {
    const stdout = showing.has(run) ? "" : run.stdout;
    expect({
      command: command.replaceAll(mark, "…"),
      found: found(stdout + run.stderr, personal),
    }).toEqual({ command: command.replaceAll(mark, "…"), found: [] });
  }
  // The ones that show it do.
  expect([...showing].every((run) => found(run.stdout, personal).length > 0)).toBe(true);
});

test("no original stands anywhere in the database", async () => {
  const text = await dump();
  expect(text).toContain(tokensOf(keys.VEIL_TOKEN_KEY).device_id(CANARIES.replayed));
  expect(text).toContain(`user-${mark}`);
  expect(found(text, personal)).toEqual([]);
  expect(found(text, secrets())).toEqual([]);
});

test("no original and no secret stands in the server's log", async () => {
  if (log === null) return;
  const text = await Bun.file(log).slice(logStart).text();
  // It is as talkative as it should be: it quotes statements and their parameters.
  expect(text).toContain("etl.load(");
  expect(text).toContain(tokensOf(keys.VEIL_TOKEN_KEY).ip(CANARIES.ip));
  expect(found(text, personal)).toEqual([]);
  expect(found(text, secrets())).toEqual([]);
});

test("no secret stands in any output", () => {
  for (const { command, run } of runs) {
    expect({ command, found: found(run.stdout + run.stderr, secrets()) }).toEqual({
      command,
      found: [],
    });
  }
});
