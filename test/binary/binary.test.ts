import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import packageJson from "../../package.json" with { type: "json" };
import { VERSION } from "../../src/version.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys } from "../support/keys.ts";
import { createQueue } from "../support/servers.ts";

const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = mkdtempSync(join(tmpdir(), "veil-binary-"));
const binary = join(folder, "bin", "veil");
/** The same program, built without the switches: to see that the hostile folder is hostile. */
const careless = join(folder, "bin", "careless");

beforeAll(async () => {
  mkdirSync(dirname(binary));
  const build = Bun.spawn([process.execPath, "scripts/build.ts", "--out", dirname(binary)], {
    cwd: checkout,
    stdout: "ignore",
  });
  expect(await build.exited).toBe(0);
  cpSync(join(dirname(binary), "veil-linux-x64"), binary);
  const plain = Bun.spawn(
    [process.execPath, "build", "src/cli.ts", "--compile", `--outfile=${careless}`],
    { cwd: checkout, stdout: "ignore", stderr: "ignore" },
  );
  expect(await plain.exited).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let folders = 0;
function emptyFolder(): string {
  const path = join(folder, `cwd-${++folders}`);
  mkdirSync(path);
  return path;
}

/** Nothing in reach but the binary: no Bun, no Node, no checkout. */
async function run(
  program: string,
  args: readonly string[],
  options: { env?: Record<string, string>; cwd?: string } = {},
) {
  const child = Bun.spawn([program, ...args], {
    env: { PATH: "/nonexistent", HOME: folder, AWS_EC2_METADATA_DISABLED: "true", ...options.env },
    cwd: options.cwd ?? emptyFolder(),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

test("a second build, from another folder, has the same sum", async () => {
  const copy = join(folder, "copy of the checkout");
  mkdirSync(copy);
  for (const name of ["src", "sql", "vault", "scripts", "package.json", "tsconfig.json"]) {
    cpSync(join(checkout, name), join(copy, name), { recursive: true });
  }
  symlinkSync(join(checkout, "node_modules"), join(copy, "node_modules"));
  const { stdout } = await run(binary, ["--version"]);
  const build = Bun.spawn([process.execPath, "scripts/build.ts"], {
    cwd: copy,
    env: { PATH: process.env.PATH ?? "", VEIL_COMMIT: /\((\S+),/.exec(stdout)?.[1] ?? "" },
    stdout: "ignore",
  });
  expect(await build.exited).toBe(0);
  expect(await Bun.file(join(copy, "dist", "SHA256SUMS")).text()).toBe(
    await Bun.file(join(dirname(binary), "SHA256SUMS")).text(),
  );
});

test("the version is the package's", () => {
  expect(VERSION).toBe(packageJson.version);
});

test("--version says version, commit and runtime", async () => {
  const { code, stdout } = await run(binary, ["--version"]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^veil \d+\.\d+\.\d+ \([0-9a-f]{12}(\+changes)?, bun \d+\.\d+\.\d+\)\n$/);
});

test("with nothing configured it says that the embedded default is for checkouts, and what to set", async () => {
  const { code, stdout, stderr } = await run(binary, ["etl"]);
  expect(code).toBe(2);
  expect(stdout).toBe("");
  expect(stderr).toContain("QUEUE_URL and DATABASE_URL are not set");
  expect(stderr).toContain("for checkouts only");
  const reveal = await run(binary, ["reveal", `ip1_${"a".repeat(26)}`]);
  expect(reveal.code).toBe(2);
  expect(reveal.stderr).toContain("DATABASE_URL is not set");
});

test("it carries neither the servers of the embedded default nor a path of the machine it was built on", async () => {
  const bytes = Buffer.from(await Bun.file(binary).arrayBuffer());
  // A text with a letter beyond ASCII is in it as UTF-16.
  const holds = (text: string) => bytes.includes(text) || bytes.includes(text, 0, "utf16le");
  for (const absent of ["startFauxqs", "toad-cache", "inspectQueue", checkout]) {
    expect({ absent, found: holds(absent) }).toEqual({ absent, found: false });
  }
  expect(holds("create table pii_vault.originals")).toBe(true);
  expect(holds("create table etl.ledger")).toBe(true);
});

describe("started in a hostile folder", () => {
  const EVIL = 'require("node:fs").writeFileSync(process.env.MARKER, "run"); process.exit(99);\n';

  const HOSTILE: Record<string, (cwd: string) => void> = {
    "a bunfig.toml with a preload": (cwd) => {
      writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./evil.cjs"]\n');
    },
    "a .env": (cwd) => {
      for (const name of [".env", ".env.local", ".env.production", ".env.development"]) {
        writeFileSync(join(cwd, name), "QUEUE_URL=evil\nVEIL_RECIPIENTS=evil\n");
      }
    },
    "a package.json": (cwd) => {
      const imports = { "#*": "./evil.cjs", postgres: "./evil.cjs" };
      writeFileSync(
        join(cwd, "package.json"),
        JSON.stringify({ name: "veil", type: "commonjs", imports, main: "./evil.cjs" }),
      );
    },
    "a tsconfig.json": (cwd) => {
      const paths = { "*": ["./evil.cjs"], postgres: ["./evil.cjs"] };
      const compilerOptions = { baseUrl: ".", paths, jsxImportSource: "evil" };
      writeFileSync(join(cwd, "tsconfig.json"), JSON.stringify({ compilerOptions }));
    },
    node_modules: (cwd) => {
      for (const name of ["postgres", "commander", "@aws-sdk/client-sqs", "node:fs", "fauxqs"]) {
        const at = join(cwd, "node_modules", name);
        mkdirSync(at, { recursive: true });
        writeFileSync(join(at, "package.json"), JSON.stringify({ name, main: "index.js" }));
        writeFileSync(join(at, "index.js"), EVIL);
      }
    },
  };

  const hostileFolder = (place: (cwd: string) => void) => {
    const cwd = emptyFolder();
    writeFileSync(join(cwd, "evil.cjs"), EVIL);
    place(cwd);
    return { cwd, env: { MARKER: join(cwd, "marker") } };
  };

  test.each(Object.keys(HOSTILE))("it takes nothing from %s", async (name) => {
    const options = hostileFolder(HOSTILE[name]!);
    for (const args of [["--version"], ["etl"], ["migrate"], ["token", "ip"]]) {
      const { code, stderr } = await run(binary, args, options);
      expect(code).toBe(args[0] === "--version" ? 0 : 2);
      expect(existsSync(options.env.MARKER)).toBe(false);
      // As if there were no file: only one of the two variables being set is another message.
      if (args[0] === "etl") expect(stderr).toContain("QUEUE_URL and DATABASE_URL are not set");
    }
  });

  test("a binary that is built without the switches would run its code and read its variables", async () => {
    const preload = hostileFolder(HOSTILE["a bunfig.toml with a preload"]!);
    expect((await run(careless, ["--version"], preload)).code).toBe(99);
    expect(existsSync(preload.env.MARKER)).toBe(true);
    const dotenv = hostileFolder(HOSTILE["a .env"]!);
    const { stderr } = await run(careless, ["etl"], dotenv);
    expect(stderr).toContain("QUEUE_URL is set, but DATABASE_URL is not");
  });
});

describe("against real servers", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase({ migrated: false });
  });
  afterAll(() => database.drop());

  test("it tells what the database refuses from a defect of its own", async () => {
    const url = new URL(database.ownerUrl);
    url.pathname = "/there_is_none";
    const { code, stderr } = await run(binary, ["migrate"], { env: { DATABASE_URL: url.href } });
    expect(stderr).toMatch(/^error: [^\n]+ 3D000[^\n]+\nhint: [^\n]+\n$/);
    expect(code).toBe(1);
  });

  test("it migrates, drains, and reveals", async () => {
    const queue = await createQueue();
    for (let i = 0; i < 30; i++) {
      queue.send(JSON.stringify({ user_id: `u${i}`, ip: `192.0.2.${i % 10}`, device_id: `d${i}` }));
    }
    queue.send("not JSON");
    const keys = await makeKeys();
    const migrate = () => run(binary, ["migrate"], { env: { DATABASE_URL: database.ownerUrl } });
    expect((await migrate()).stdout).toContain("now");
    expect((await migrate()).stdout).toContain("already");
    const etl = await run(binary, ["etl", "--json"], {
      env: {
        ...queue.env,
        DATABASE_URL: await database.addLogin("etl"),
        VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
        VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
      },
    });
    expect(etl.stderr).toBe("");
    expect(JSON.parse(etl.stdout)).toMatchObject({
      received: 31,
      loaded: 30,
      duplicates: 0,
      quarantined: 1,
      acknowledged: 31,
      newOriginals: 40,
    });
    const [row] = await database
      .sql(database.ownerUrl)
      .unsafe("select masked_ip from user_logins where user_id = 'u7'");
    const reveal = await run(binary, ["reveal", String(row?.masked_ip), "--json"], {
      env: {
        DATABASE_URL: await database.addLogin("revealer"),
        VEIL_IDENTITY: keys.VEIL_IDENTITY,
        VEIL_VERIFY_KEY: keys.VEIL_VERIFY_KEY,
      },
    });
    expect(reveal.code).toBe(0);
    expect(JSON.parse(reveal.stdout)).toMatchObject([
      { token: row?.masked_ip, field: "ip", original: "192.0.2.7", verified: true },
    ]);
  });

  test("it starts itself again for --workers, with nothing but itself in reach", async () => {
    const queue = await createQueue();
    const own = await createDatabase();
    try {
      for (let i = 0; i < 500; i++) queue.send(JSON.stringify({ user_id: `w${i}` }));
      const { VEIL_TOKEN_KEY, VEIL_RECIPIENTS } = await makeKeys();
      const { code, stdout, stderr } = await run(binary, ["etl", "--json", "--workers", "3"], {
        env: { ...queue.env, DATABASE_URL: own.url("etl"), VEIL_TOKEN_KEY, VEIL_RECIPIENTS },
      });
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(JSON.parse(stdout)).toMatchObject({
        ...{ received: 500, loaded: 500, duplicates: 0, acknowledged: 500 },
        ...{ workers: 3, replaced: 0 },
      });
    } finally {
      await own.drop();
    }
  });
});
