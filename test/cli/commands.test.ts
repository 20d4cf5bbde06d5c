// Every command as its users meet it: what stands on stdout, what on stderr, the exit code, the record.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
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
import { identityToRecipient } from "age-encryption";
import { tokensOf } from "../line/expected.ts";
import { summary } from "../line/stored.ts";
import { createDatabase } from "../support/database.ts";
import { makeKeys } from "../support/keys.ts";
import { type Run, startVeil, veil } from "../support/veil.ts";
import { atTerminal } from "./pseudo-terminal.ts";
import { createScene, type Scene } from "./scene.ts";

let scene: Scene;
let folder: string;
const ip = "2001:DB8::17";
const device = 'Ωmega-"7"\u202e📱';
let ipToken: string;
let deviceToken: string;
let broken: string[];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "veil-commands-"));
  scene = await createScene();
  const tokens = tokensOf(scene.keys.VEIL_TOKEN_KEY);
  ipToken = tokens.ip(ip);
  deviceToken = tokens.device_id(device);
  scene.send({ user_id: "u1", ip, device_id: device, app_version: "2.3.0" });
  broken = Array.from({ length: 6 }, (_, i) => scene.send({ user_id: "u2", ip: [`192.0.2.${i}`] }));
  const run = await veil(["etl", "--json", "--max-messages", "7"], { env: scene.etl });
  expect(run.code).toBe(0);
  expect(summary(run)).toMatchObject({ received: 7, loaded: 1, quarantined: 6, newOriginals: 2 });
});
afterAll(async () => {
  await scene.database.drop();
  rmSync(folder, { recursive: true, force: true });
});

const done = (run: Run): Run => {
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
  return run;
};
const failed = (run: Run, message: RegExp): Run => {
  expect(run.stderr).toMatch(message);
  expect(run.stderr).toMatch(/\nhint: [^\n]+\n$/);
  expect(run.code).toBe(1);
  return run;
};
const audit = (scene: Scene) =>
  scene.database.sql(scene.database.url("auditor"))`
    select action, login, tokens, message_ids, items, reason from pii_vault.audit order by id`;

// keys

test.concurrent("keys generate writes four files for their owner only, and veil takes them as they are", async () => {
  for (const [name, options] of [
    ["classic", []],
    ["post-quantum", ["--pq"]],
  ] as const) {
    const out = join(folder, name, "keys");
    const run = done(await veil(["keys", "generate", "--out", out, ...options]));
    expect(readdirSync(out).sort()).toEqual([
      "identity.txt",
      "recipients.txt",
      "token.key",
      "verify.key",
    ]);
    expect(statSync(out).mode & 0o777).toBe(0o700);
    for (const file of readdirSync(out)) {
      expect(statSync(join(out, file)).mode & 0o777).toBe(0o600);
      expect(run.stdout).toContain(join(out, file));
    }
    const read = (file: string) => readFileSync(join(out, file), "utf8");
    for (const file of ["token.key", "verify.key"]) {
      expect(read(file)).toMatch(/^1:[A-Za-z0-9+/]{43}=\n$/);
      expect(run.stdout).not.toContain(read(file).trim().slice(2));
    }
    const kind = options.length > 0 ? "AGE-SECRET-KEY-PQ-1" : "AGE-SECRET-KEY-1";
    const identity = read("identity.txt");
    expect(identity).toMatch(
      new RegExp(
        `^# created: \\d{4}-\\d\\d-\\d\\dT[0-9:]+Z\\n# public key: age1\\w+\\n${kind}\\w+\\n$`,
      ),
    );
    const recipient = await identityToRecipient(identity.trim().split("\n").at(-1)!);
    expect(read("recipients.txt")).toBe(`${recipient}\n`);
    expect(identity).toContain(`# public key: ${recipient}\n`);

    const own = await createScene();
    try {
      own.send({ user_id: "u", ip: "192.0.2.5" });
      const files = {
        VEIL_TOKEN_KEY_FILE: join(out, "token.key"),
        VEIL_VERIFY_KEY_FILE: join(out, "verify.key"),
        VEIL_IDENTITY_FILE: join(out, "identity.txt"),
        VEIL_RECIPIENTS_FILE: join(out, "recipients.txt"),
      };
      const { VEIL_TOKEN_KEY: _, VEIL_RECIPIENTS: __, ...servers } = own.etl;
      done(await veil(["etl", "--max-messages", "1"], { env: { ...servers, ...files } }));
      const token = tokensOf(read("token.key").trim()).ip("192.0.2.5");
      const env = { DATABASE_URL: own.database.url("revealer"), ...files };
      const { VEIL_TOKEN_KEY_FILE: ___, ...verifying } = env;
      for (const revealing of [env, verifying]) {
        const revealed = done(await veil(["reveal", token, "--json"], { env: revealing }));
        expect(JSON.parse(revealed.stdout)).toMatchObject([
          { original: "192.0.2.5", verified: true },
        ]);
      }
    } finally {
      await own.database.drop();
    }
  }
});

test.concurrent("keys generate overwrites nothing: one file that exists, and none is written", async () => {
  for (const name of ["token.key", "verify.key", "identity.txt", "recipients.txt"]) {
    const out = mkdtempSync(join(folder, "existing-"));
    writeFileSync(join(out, name), "mine");
    const run = await veil(["keys", "generate", "--out", out, "--json"]);
    failed(run, new RegExp(`^error: .*${name.replace(".", "\\.")}.*nothing was written`));
    expect(run.stdout).toBe("");
    expect(readdirSync(out)).toEqual([name]);
    expect(readFileSync(join(out, name), "utf8")).toBe("mine");
  }
});

test.concurrent("keys generate --json prints the files' paths, and a folder that cannot be is exit code 1", async () => {
  const out = join(folder, "as-json");
  const run = done(await veil(["keys", "generate", "--out", out, "--json"]));
  const names = ["token.key", "verify.key", "identity.txt", "recipients.txt"];
  expect(JSON.parse(run.stdout)).toEqual({ files: names.map((name) => join(out, name)) });
  const file = join(folder, "a-file");
  writeFileSync(file, "");
  failed(await veil(["keys", "generate", "--out", join(file, "keys")]), /^error: cannot write/);
});

// migrate

test.concurrent("migrate brings an empty database up, and changes nothing the second time", async () => {
  const database = await createDatabase({ migrated: false });
  try {
    const env = { DATABASE_URL: database.ownerUrl };
    const first = JSON.parse(done(await veil(["migrate", "--json"], { env })).stdout);
    expect(first.from).toBe(0);
    expect(first.applied.at(-1)).toBe("functions");
    expect(first.applied).toHaveLength(first.to + 1);
    const again = JSON.parse(done(await veil(["migrate", "--json"], { env })).stdout);
    const nothing = { from: first.to, to: first.to, applied: [], copied: null, period: "month" };
    expect(again).toEqual(nothing);
    expect(done(await veil(["migrate"], { env })).stdout).toMatch(
      new RegExp(`^the database is at schema version ${first.to} already\\n$`),
    );
    const [row] = await database.sql(database.ownerUrl)`select etl.schema_version() as version`;
    expect(row?.version).toBe(first.to);
  } finally {
    await database.drop();
  }
});

// token

test.concurrent("token prints one token a line for the values on stdin", async () => {
  const { VEIL_TOKEN_KEY } = scene.keys;
  const tokens = tokensOf(VEIL_TOKEN_KEY);
  const env = { VEIL_TOKEN_KEY };
  for (const [field, values] of [
    ["ip", ["192.0.2.1", "2001:db8::17", "not an address", " 192.0.2.1"]],
    ["device_id", ["593-47-5928", "Ωmega 📱", "e\u0301", "é", " spaces ", "\ttab"]],
  ] as const) {
    const expected = values.map((value) => tokens[field](value));
    for (const stdin of [
      values.join("\n"),
      `${values.join("\r\n")}\r\n`,
      `\n${values.join("\n\n\r\n")}\n\n`,
    ]) {
      const run = await veil(["token", field], { env, stdin });
      expect(run.code).toBe(0);
      expect(run.stdout).toBe(expected.map((token) => `${token}\n`).join(""));
    }
    const json = await veil(["token", field, "--json"], { env, stdin: values.join("\n") });
    expect(JSON.parse(json.stdout)).toEqual(expected.map((token) => ({ field, token })));
  }
  // What the line stored: the same token, from another spelling.
  const run = done(await veil(["token", "ip"], { env, stdin: ip.toLowerCase() }));
  expect(run.stdout).toBe(`${ipToken}\n`);
});

test.concurrent("token without a value is exit code 2", async () => {
  const { VEIL_TOKEN_KEY } = scene.keys;
  for (const stdin of ["", "\n\r\n"]) {
    const run = await veil(["token", "ip"], { env: { VEIL_TOKEN_KEY }, stdin });
    expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 2, stdout: "" });
    expect(run.stderr).toMatch(/^error: no ip was given\nhint: /);
  }
});

test.concurrent("a device id with a line separator inside is one value", async () => {
  const { VEIL_TOKEN_KEY } = scene.keys;
  for (const value of ["a\u2028b", "a\u2029b", "a\u0085b", "a\u000bb"]) {
    const stdin = `${value}\n`;
    const run = done(await veil(["token", "device_id"], { env: { VEIL_TOKEN_KEY }, stdin }));
    expect(run.stdout).toBe(`${tokensOf(VEIL_TOKEN_KEY).device_id(value)}\n`);
  }
});

// reveal

test.concurrent("reveal --json prints the promised objects, one a distinct token, in order", async () => {
  const env = scene.recovering("revealer");
  const args = ["reveal", deviceToken, ipToken, deviceToken, "--json"];
  const run = done(await veil(args, { env }));
  expect(run.stdout.endsWith("]\n")).toBe(true);
  const revealed = JSON.parse(run.stdout);
  expect(revealed).toEqual([
    {
      token: deviceToken,
      field: "device_id",
      original: device,
      verified: true,
      sealedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    },
    { token: ipToken, field: "ip", original: ip, verified: true, sealedAt: expect.any(String) },
  ]);
  expect(Object.keys(revealed[0])).toEqual(["token", "field", "original", "verified", "sealedAt"]);
});

test.concurrent("verified is null where no key could verify", async () => {
  const { VEIL_TOKEN_KEY: _, ...env } = scene.recovering("revealer");
  const run = done(await veil(["reveal", ipToken, "--json"], { env }));
  expect(JSON.parse(run.stdout)).toMatchObject([{ original: ip, verified: null }]);
});

test.concurrent("reveal reads tokens from stdin, between those of the command line", async () => {
  const env = scene.recovering("revealer");
  const stdin = `\r\n${ipToken}\r\n\n  ${deviceToken}  \n`;
  const run = done(await veil(["reveal", "-", "--json"], { env, stdin }));
  const tokens = (text: string) => JSON.parse(text).map(({ token }: { token: string }) => token);
  expect(tokens(run.stdout)).toEqual([ipToken, deviceToken]);
  const mixed = await veil(["reveal", deviceToken, "-", "--json"], { env, stdin: ipToken });
  expect(tokens(done(mixed).stdout)).toEqual([deviceToken, ipToken]);
});

test.concurrent("a piped table has no header, and control characters of an original are spelled out", async () => {
  const run = done(
    await veil(["reveal", ipToken, deviceToken], { env: scene.recovering("revealer") }),
  );
  const lines = run.stdout.trimEnd().split("\n");
  expect(lines.length).toBe(2);
  expect(lines[0]).toMatch(new RegExp(`^${ipToken} +ip +verified +\\S+Z  ${ip}$`));
  expect(lines[1]).toEndWith('  Ωmega-"7"\\u202e📱');
});

test.concurrent("tokens that the vault does not hold are named on stderr, the others are printed, exit 1", async () => {
  const env = scene.recovering("revealer");
  const unknown = `ip1_${"a".repeat(26)}`;
  const generation0 = `dev0_${"b".repeat(25)}a`;
  const json = await veil(["reveal", unknown, ipToken, generation0, "--json"], { env });
  failed(json, new RegExp(`^error: ${unknown}: the vault does not hold it$`, "m"));
  expect(json.stderr).toContain(`error: ${generation0}: the vault does not hold it\n`);
  expect(JSON.parse(json.stdout)).toMatchObject([{ token: ipToken, original: ip }]);
  const none = await veil(["reveal", unknown, "--json"], { env });
  failed(none, /^error: /);
  expect(none.stdout).toBe("[]\n");
  const table = await veil(["reveal", unknown], { env });
  expect({ code: table.code, stdout: table.stdout }).toEqual({ code: 1, stdout: "" });
});

test.concurrent("another identity opens nothing, and the refusal is loud", async () => {
  const { VEIL_IDENTITY } = await makeKeys();
  const env = { ...scene.recovering("revealer"), VEIL_IDENTITY };
  const run = await veil(["reveal", ipToken, "--json"], { env });
  failed(run, new RegExp(`^error: ${ipToken}: REFUSED`));
  expect(run.stdout).toBe("[]\n");
});

test.concurrent("a reveal is on record with its reason, also when nothing was found", async () => {
  const env = scene.recovering("revealer");
  const unknown = `ip1_${"a".repeat(25)}q`;
  const reason = "case 4711: „Ω“ 'quoted'";
  done(await veil(["reveal", ipToken, "--reason", reason], { env }));
  await veil(["reveal", unknown, "--reason", "looking"], { env });
  const entries = await audit(scene);
  const login = scene.database.login("revealer");
  expect(entries).toContainEqual({
    action: "reveal.request",
    login,
    tokens: [ipToken],
    message_ids: [],
    items: 1,
    reason,
  });
  expect(
    entries.some((entry) => entry.reason === "looking" && entry.tokens.includes(unknown)),
  ).toBe(true);
  const long = await veil(["reveal", ipToken, "--reason", "x".repeat(1001)], { env });
  expect({ code: long.code, stdout: long.stdout }).toEqual({ code: 2, stdout: "" });
  expect(long.stderr).toMatch(/^error: .*1000 characters\n/);
});

test.concurrent("a large answer reaches a slow reader whole", async () => {
  const own = await createScene();
  try {
    const values = Array.from({ length: 900 }, (_, i) => `${i}-${"x".repeat(900)}`);
    for (const value of values) own.send({ user_id: "u", device_id: value });
    done(await veil(["etl", "--max-messages", "900"], { env: own.etl }));
    const tokens = values.map(tokensOf(own.keys.VEIL_TOKEN_KEY).device_id);
    const child = startVeil(["reveal", "-", "--json"], {
      env: own.recovering("revealer"),
      stdin: tokens.join("\n"),
    });
    // Nobody reads until the program has had all the time to write.
    await Bun.sleep(1500);
    const [stdout, code] = await Promise.all([new Response(child.stdout).text(), child.exited]);
    expect(code).toBe(0);
    expect(stdout.length).toBeGreaterThan(900 * 900);
    const revealed = JSON.parse(stdout) as { original: string }[];
    expect(revealed.map(({ original }) => original)).toEqual(values);
  } finally {
    await own.database.drop();
  }
});

// quarantine

test("quarantine list, show, replay and discard, as people and as JSON", async () => {
  const env = scene.recovering("operator");
  const listing = { DATABASE_URL: env.DATABASE_URL! };
  const reason = "ip is an array, expected a string";
  const list = done(await veil(["quarantine", "list", "--json"], { env: listing }));
  const entries = JSON.parse(list.stdout) as { messageId: string }[];
  expect(entries.map(({ messageId }) => messageId).sort()).toEqual([...broken].sort());
  expect(entries[0]).toEqual({
    messageId: expect.any(String),
    sentAt: expect.stringMatching(/^\d{4}-.*Z$/),
    state: "open",
    reason,
  } as never);
  const table = done(await veil(["quarantine", "list"], { env: listing }));
  expect(table.stdout.trimEnd().split("\n").length).toBe(6);
  expect(table.stdout).toContain(reason);
  expect(table.stdout).not.toContain("192.0.2.");
  // Nothing was opened, so nothing is on record.
  expect((await audit(scene)).filter(({ action }) => /^quarantine/.test(action))).toEqual([]);

  const [first, second, third] = broken as [string, string, string];
  const shown = done(await veil(["quarantine", "show", first, "--reason", "what is it?"], { env }));
  expect(shown.stdout).toBe('{"user_id":"u2","ip":["192.0.2.0"]}\n');
  const json = done(await veil(["quarantine", "show", first, "--json"], { env }));
  expect(JSON.parse(json.stdout)).toEqual({
    messageId: first,
    sentAt: expect.any(String),
    state: "open",
    reason,
    body: '{"user_id":"u2","ip":["192.0.2.0"]}',
    verified: true,
  });
  const absent = await veil(["quarantine", "show", "no-such-message", "--json"], { env });
  expect(failed(absent, /^error: the quarantine holds no body/).stdout).toBe("");

  const replayed = await veil(["quarantine", "replay", first, "gone", first, "--json"], { env });
  failed(replayed, /^error: 2 of 2 messages were not replayed/);
  expect(JSON.parse(replayed.stdout)).toEqual([
    { messageId: first, outcome: "still broken", reason },
    { messageId: "gone", outcome: "not open", reason: null },
  ]);
  const all = await veil(["quarantine", "replay"], { env });
  failed(all, /^error: 6 of 6 messages were not replayed/);
  expect(all.stdout.match(/still broken/g)?.length).toBe(6);

  const one = done(
    await veil(["quarantine", "discard", second, "--reason", "a test", "--json"], { env: listing }),
  );
  expect(one.stdout).toBe('{"discarded":1}\n');
  const twice = await veil(["quarantine", "discard", second, third, "--json"], { env: listing });
  failed(twice, /^error: 1 of 2 messages were not open/);
  expect(twice.stdout).toBe('{"discarded":1}\n');
  failed(await veil(["quarantine", "show", second], { env }), /holds no body/);
  const state = async (which: string) =>
    JSON.parse(
      done(await veil(["quarantine", "list", "--state", which, "--json"], { env: listing })).stdout,
    ).map(({ messageId }: { messageId: string }) => messageId);
  expect((await state("discarded")).sort()).toEqual([second, third].sort());
  expect((await state("all")).length).toBe(6);
  expect(done(await veil(["quarantine", "discard", "--all"], { env: listing })).stdout).toBe(
    "discarded 4 of 4\n",
  );
  expect(await state("open")).toEqual([]);
  const empty = await veil(["quarantine", "list"], { env: listing });
  expect(empty).toMatchObject({ code: 0, stdout: "" });
  const nothing = await veil(["quarantine", "replay", "--json"], { env });
  expect(nothing).toMatchObject({ code: 0, stdout: "[]\n" });

  const record = (await audit(scene)).filter(({ action }) => /^quarantine/.test(action));
  expect(record).toContainEqual({
    action: "quarantine.show",
    login: scene.database.login("operator"),
    tokens: [],
    message_ids: [first],
    items: 1,
    reason: "what is it?",
  });
  expect(record).toContainEqual({
    action: "quarantine.discard",
    login: scene.database.login("operator"),
    tokens: [],
    message_ids: [second],
    items: 1,
    reason: "a test",
  });
});

// help

const COMMANDS = [
  ["etl"],
  ["reveal"],
  ["token"],
  ["migrate"],
  ["keys", "generate"],
  ["quarantine", "list"],
  ["quarantine", "show"],
  ["quarantine", "replay"],
  ["quarantine", "discard"],
  ["forget"],
  ["expire"],
  ["hold", "add"],
  ["hold", "release"],
  ["hold", "list"],
];

test.concurrent("the help of every command has an example of it, and needs no configuration", async () => {
  for (const command of COMMANDS) {
    const run = done(await veil([...command, "--help"]));
    expect(run.stdout).toStartWith(`Usage: veil ${command.join(" ")} `);
    expect(run.stdout).toContain(`$ veil ${command.join(" ")}`);
    if (command[0] !== "migrate" || command.length > 1) continue;
    expect(run.stdout).toContain("--json");
  }
  const all = done(await veil(["--help"]));
  for (const [name] of COMMANDS) expect(all.stdout).toMatch(new RegExp(`^  ${name}\\b`, "m"));
});

test.concurrent("every command is a script of package.json under its own name", async () => {
  const { scripts } = await Bun.file(new URL("../../package.json", import.meta.url)).json();
  const help = done(await veil(["--help"])).stdout.split("Commands:")[1] ?? "";
  const names = [...help.matchAll(/^ {2}(\w+)/gm)].map(([, name]) => name!);
  const expected = names.filter((name) => name !== "help").map((name) => `bun src/cli.ts ${name}`);
  const ours = Object.entries<string>(scripts)
    .filter(([name, script]) => script === `bun src/cli.ts ${name}`)
    .map(([, script]) => script);
  expect(ours.sort()).toEqual(expected.sort());
});

test.concurrent("--version names the version of veil and of what runs it", async () => {
  const { version } = await Bun.file(new URL("../../package.json", import.meta.url)).json();
  const run = done(await veil(["--version"]));
  expect(run.stdout).toStartWith(`veil ${version} (`);
  expect(run.stdout).toEndWith(`bun ${Bun.version})\n`);
});

// At a terminal and in a pipe.

test.concurrent("etl draws its progress on a terminal, and nothing in a pipe", async () => {
  const own = await createScene();
  try {
    for (let i = 0; i < 60; i++) own.send({ user_id: "u", ip: `192.0.2.${i}` });
    const { code, screen } = await atTerminal(["etl", "--max-messages", "60"], own.etl);
    expect(code).toBe(0);
    expect(screen).toMatch(/\r[█░]{30} \d+ of 60 /);
    expect(screen).toMatch(/ received +60 /);
    own.send({ user_id: "u", ip: "192.0.2.99" });
    const piped = done(await veil(["etl", "--max-messages", "1"], { env: own.etl }));
    expect(piped.stdout).not.toMatch(/[\r█░]/);
  } finally {
    await own.database.drop();
  }
});

test.concurrent("at a terminal reveal asks for a reason: Enter skips it, words are recorded, Ctrl-C ends", async () => {
  const env = scene.recovering("revealer");
  const when = "reason, for the record";
  const skipped = await atTerminal(["reveal", ipToken], env, [{ when, keys: "\r" }]);
  expect(skipped.code).toBe(0);
  expect(skipped.screen).toContain(ip);
  expect(skipped.screen).toContain("ORIGINAL");
  const keys = "typed at a terminal\r";
  const given = await atTerminal(["reveal", deviceToken], env, [{ when, keys }]);
  expect(given.code).toBe(0);
  const reasons = (await audit(scene)).map(({ reason }) => reason);
  expect(reasons).toContain("typed at a terminal");
  const before = (await audit(scene)).filter(({ tokens }) => tokens.length === 2).length;
  const stopped = await atTerminal(["reveal", ipToken, deviceToken], env, [
    { when, keys: "\u0003" },
  ]);
  expect(stopped.code).toBe(130);
  expect(stopped.screen).not.toContain(ip);
  expect((await audit(scene)).filter(({ tokens }) => tokens.length === 2).length).toBe(before);
  const said = await atTerminal(["reveal", ipToken, "--reason", "said"], env);
  expect(said.code).toBe(0);
  expect(said.screen).not.toContain(when);
});

test.concurrent("at a terminal token asks for a value", async () => {
  const { VEIL_TOKEN_KEY } = scene.keys;
  const asked = await atTerminal(["token", "ip"], { VEIL_TOKEN_KEY }, [
    { when: "ip: ", keys: `${ip}\r` },
  ]);
  expect(asked.code).toBe(0);
  expect(asked.screen).toContain(ipToken);
  const stopped = await atTerminal(["token", "ip"], { VEIL_TOKEN_KEY }, [
    { when: "ip: ", keys: "\u0003" },
  ]);
  expect(stopped.code).toBe(130);
});

test.concurrent("at a terminal whoever types tokens is told so, and how they end", async () => {
  const env = scene.recovering("revealer");
  const told = "tokens, one a line; Ctrl-D ends";
  for (const args of [
    ["reveal", "-", "--reason", "typed"],
    ["forget", "-", "--dry-run"],
  ]) {
    const stopped = await atTerminal(args, env, [{ when: told, keys: "no token\r\u0004" }]);
    expect([stopped.code, stopped.screen.includes("line 1 of stdin is not a token")]).toEqual([
      ...[2, true],
    ]);
  }
});

test.concurrent("what is no IP address is named by its line, and has a token all the same", async () => {
  const { VEIL_TOKEN_KEY } = scene.keys;
  const env = { VEIL_TOKEN_KEY };
  const stdin = "203.0.113.7\n\n 203.0.113.7\n::ffff:203.0.113.7\nnowhere\n";
  const run = await veil(["token", "ip"], { env, stdin });
  expect([run.code, run.stdout.trim().split("\n").length]).toEqual([0, 4]);
  expect(run.stderr).toMatch(/^warning: lines 3, 5 are no IP addresses in any spelling; [^\n]+\n$/);
  expect(run.stderr).not.toMatch(/203|nowhere/);
  const many = await veil(["token", "ip"], { env, stdin: "x\n".repeat(12) });
  expect(many.stderr).toContain(
    "lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more are no IP addresses",
  );
  const device = await veil(["token", "device_id"], { env, stdin: "nowhere\n" });
  expect([device.code, device.stderr]).toEqual([0, ""]);
});

test.concurrent("nothing is asked, and nothing drawn, where stderr is no terminal", async () => {
  const env = scene.recovering("revealer");
  const run = done(await veil(["reveal", ipToken], { env }));
  expect(run.stdout).not.toContain("reason");
  expect(existsSync(join("/", ".veil"))).toBe(false);
});
