import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { readDatabase } from "../../src/config/database-url.ts";
import type { Environment } from "../../src/config/environment.ts";
import { CANARY, expectRefused, refusal } from "../support/refusals.ts";

const folder = mkdtempSync(join(tmpdir(), "veil-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function fileOf(content: string): string {
  const path = join(folder, `file-${files++}`);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

describe("DATABASE_URL", () => {
  const read = (DATABASE_URL: string, env: Environment = {}) =>
    readDatabase({ DATABASE_URL, ...env });

  test("names host, port, database, user and password", () => {
    expect(read("postgres://etl:secret@127.0.0.1:5433/logins")).toEqual({
      host: "127.0.0.1",
      port: 5433,
      socket: null,
      database: "logins",
      user: "etl",
      password: "secret",
      tls: "prefer",
      applicationName: "veil",
      connectTimeoutSeconds: 10,
    });
    expect(read("postgresql://etl@db.example.org/logins")).toMatchObject({
      host: "db.example.org",
      port: 5432,
      password: null,
    });
  });

  test("may be percent-encoded wherever it names something", () => {
    expect(
      read("postgres://us%40er:p%40ss%2Fw%3Ard%25%F0%9F%98%80@h/d%20b%2Fc?application_name=a%20b"),
    ).toMatchObject({
      user: "us@er",
      password: "p@ss/w:rd%😀",
      database: "d b/c",
      applicationName: "a b",
    });
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1 }), (password) => {
        const url = `postgres://u:${encodeURIComponent(password)}@localhost/db`;
        expect(read(url).password).toBe(password);
      }),
    );
  });

  test("may name an IPv6 address in brackets", () => {
    expect(read("postgres://u@[::1]:5433/db")).toMatchObject({ host: "::1", port: 5433 });
    expect(read("postgres://u@[2001:db8::1]/db").host).toBe("2001:db8::1");
  });

  test("falls back to what libpq's variables say", () => {
    const env = {
      PGHOST: "db.example.org",
      PGPORT: "5433",
      PGUSER: "etl",
      PGPASSWORD: "secret",
      PGDATABASE: "logins",
    };
    expect(read("postgres:///", env)).toMatchObject({
      host: "db.example.org",
      port: 5433,
      user: "etl",
      password: "secret",
      database: "logins",
    });
    expect(read("postgres://u:p@h:1/db", env)).toMatchObject({
      host: "h",
      port: 1,
      user: "u",
      password: "p",
      database: "db",
    });
    expect(read("postgres://u@h")).toMatchObject({ database: "u", password: null });
    expect(read("postgres:///db", { PGUSER: "u" }).host).toBe("localhost");
  });

  test.each([
    ["postgres://u@%2Frun%2Fpg/db", {}],
    ["postgres://u:p@%2Frun%2Fpg:5432/db", {}],
    ["postgres:///db?host=/run/pg", { PGUSER: "u" }],
    ["postgres:///db?host=%2Frun%2Fpg", { PGUSER: "u" }],
    ["postgres:///db", { PGUSER: "u", PGHOST: "/run/pg" }],
  ])("may name a folder of unix sockets, which needs no TLS: %s", (url, env) => {
    const socket = { host: "/run/pg", socket: "/run/pg/.s.PGSQL.5432", tls: false, database: "db" };
    expect(read(url, env)).toMatchObject(socket);
    expect(read(url, { ...env, PGSSLMODE: "verify-full" })).toMatchObject(socket);
    expect(read(url, { ...env, PGPORT: "5433" }).socket).toMatch(/5432$|5433$/);
  });

  test("may set how long connecting may take, and under which name", () => {
    expect(read("postgres://u@h/db?connect_timeout=3&application_name=x")).toMatchObject({
      connectTimeoutSeconds: 3,
      applicationName: "x",
    });
    expect(read("postgres://u@h/db?connect_timeout=&application_name=")).toMatchObject({
      connectTimeoutSeconds: 10,
      applicationName: "veil",
    });
    for (const seconds of ["0", "-1", "1.5", "x", `1${CANARY}`]) {
      expectRefused("DATABASE_URL", () => read(`postgres://u@h/db?connect_timeout=${seconds}`));
    }
  });

  test.each([
    CANARY,
    `mysql://u:${CANARY}@h/db`,
    `https://u:${CANARY}@h/db`,
    `postgres:u:${CANARY}@h/db`,
    `postgres:/u:${CANARY}@h/db`,
    `host=h user=u password=${CANARY}`,
    `"postgres://u:${CANARY}@h/db"`,
    `postgres://u:${CANARY}@h:99999/db`,
    `postgres://u:${CANARY}@h:x/db`,
    `postgres://u:${CANARY}#x@h/db`,
    `postgres://u:${CANARY}/x@h/db`,
    `postgres://u:${CANARY}?x@h/db`,
    `postgres://u:${CANARY}%zz@h/db`,
    `postgres://u%:${CANARY}@h/db`,
    `postgres://u:${CANARY}@h%/db`,
    `postgres://u:${CANARY}@h/db%ff`,
    `postgres://u:${CANARY}@h1,h2/db`,
    `postgres://u:${CANARY}@h1:1,h2:2/db`,
    `postgres://:${CANARY}@h/db`,
    `postgres://${CANARY}/db`,
  ])("is refused where it is malformed: %s", (url) => {
    expectRefused("DATABASE_URL", () => read(url));
  });

  test("with a parameter that veil does not know is refused rather than half obeyed", () => {
    for (const query of [
      `options=-c%20${CANARY}`,
      `hostaddr=${CANARY}`,
      `${CANARY}=1`,
      "SSLMODE=x",
    ]) {
      const failure = expectRefused("DATABASE_URL", () => read(`postgres://u@h/db?${query}`));
      expect(failure.hint).toContain("sslmode");
    }
    expect(
      read("postgres://u@h/db?sslmode=disable&application_name=x&sslmode=disable"),
    ).toBeTruthy();
  });

  test("takes host, port, user, password and dbname in the query too, where they win as in libpq", () => {
    expect(
      read("postgres://u@h/db?host=/run/pg&port=6000&user=v&password=a+b&dbname=other"),
    ).toMatchObject({
      host: "/run/pg",
      socket: "/run/pg/.s.PGSQL.6000",
      user: "v",
      password: "a+b",
      database: "other",
      tls: false,
    });
    expect(read("postgres://u:p@/db?host=/run/pg")).toMatchObject({
      socket: "/run/pg/.s.PGSQL.5432",
      user: "u",
      password: "p",
    });
  });

  test("does not excuse a malformed PGPORT", () => {
    for (const PGPORT of ["x", "0.5", "99999"])
      refusal(() => read("postgres://u@h/db", { PGPORT }));
  });
});

describe("sslmode", () => {
  const ROOT = "-----BEGIN CERTIFICATE-----\nroot\n";
  let root: string;
  beforeAll(() => {
    root = fileOf(ROOT);
  });
  const LOOPBACK = ["localhost", "127.0.0.1", "127.8.9.10", "[::1]"];
  const REMOTE = [
    "db.example.org",
    "10.0.0.1",
    "[2001:db8::1]",
    "localhost.example.org",
    "128.0.0.1",
  ];
  const HOSTS = [...LOOPBACK, ...REMOTE];

  const read = (host: string, query: string, env: Environment = {}) =>
    readDatabase({ DATABASE_URL: `postgres://u:p@${host}/db?${query}`, ...env }).tls;

  // Whether the certificate's chain and its name are checked; null where TLS is not insisted on.
  const TABLE = [
    ["disable", false, false],
    ["allow", "prefer", "prefer"],
    ["prefer", "prefer", "prefer"],
    ["verify-ca", { rejectUnauthorized: true, checkHostName: false }, "same"],
    ["verify-full", { rejectUnauthorized: true, checkHostName: true }, "same"],
  ] as const;

  test.each(TABLE)("%s means the same for every host, as in libpq", (mode, plain, rooted) => {
    for (const host of HOSTS) {
      for (const [query, env] of [
        [`sslmode=${mode}`, {}],
        [`sslmode=${mode}`, { PGSSLMODE: "disable" }],
        ["", { PGSSLMODE: mode }],
        ["sslmode=", { PGSSLMODE: mode }],
      ] as const) {
        const tls = read(host, query, env);
        if (typeof plain === "object") expect(tls).toMatchObject(plain);
        else expect(tls).toBe(plain);
        const withRoot = read(host, `${query}&sslrootcert=${root}`, env);
        if (rooted === "same") {
          const files = { ca: ROOT, cert: null, key: null };
          expect(withRoot).toEqual(typeof plain === "object" ? { ...plain, ...files } : plain);
        } else expect(withRoot).toBe(rooted);
      }
    }
  });

  test("require verifies the chain where a root certificate is given, as in libpq", () => {
    for (const host of HOSTS) {
      const expected = { rejectUnauthorized: true, checkHostName: false, ca: ROOT };
      expect(read(host, `sslmode=require&sslrootcert=${root}`)).toMatchObject(expected);
      expect(read(host, "sslmode=require", { PGSSLROOTCERT: root })).toMatchObject(expected);
    }
  });

  test("is verify-full by default, unless the host is this machine itself", () => {
    const full = { rejectUnauthorized: true, checkHostName: true };
    for (const query of ["", "sslmode=", `sslrootcert=${root}`]) {
      for (const host of LOOPBACK) expect(read(host, query)).toBe("prefer");
      for (const host of REMOTE) expect(read(host, query)).toMatchObject(full);
    }
    expect(read("db.example.org", "sslrootcert=system")).toEqual({
      ...full,
      ca: null,
      cert: null,
      key: null,
    });
    expect(read("db.example.org", "sslmode=verify-full&sslrootcert=system")).toMatchObject(full);
  });

  // libpq: "weak sslmode may not be used with sslrootcert=system", and verify-full is its default.
  test("with the system's authorities is verify-full and nothing weaker", () => {
    for (const host of HOSTS) {
      for (const mode of ["allow", "prefer", "require", "verify-ca"]) {
        refusal(() => read(host, `sslmode=${mode}&sslrootcert=system`));
      }
      expect(read(host, "sslrootcert=system")).toMatchObject({
        rejectUnauthorized: true,
        checkHostName: true,
      });
    }
  });

  test("takes a client's certificate and key", () => {
    const [cert, key] = [fileOf("certificate"), fileOf("key")];
    const files = { cert: "certificate", key: "key" };
    expect(read("h", `sslcert=${cert}&sslkey=${key}`)).toMatchObject(files);
    expect(read("h", "", { PGSSLCERT: cert, PGSSLKEY: key })).toMatchObject(files);
  });

  test("of another spelling is refused", () => {
    for (const mode of [CANARY, "VERIFY-FULL", "on", "true", "verify_full", "no-verify"]) {
      expectRefused("sslmode", () => read("localhost", `sslmode=${mode}`));
      expectRefused("sslmode", () => read("h", "", { PGSSLMODE: mode }));
    }
  });

  test("is not weakened by a root certificate that cannot be read", () => {
    for (const name of ["sslrootcert", "sslcert", "sslkey"]) {
      const query = `sslmode=require&${name}=/${CANARY}`;
      expectRefused(name, () => read("h", query));
    }
  });

  test("of another spelling, or a file that cannot be read, is refused by variable", () => {
    for (const query of ["sslmode=on", "sslrootcert=/none", "sslcert=/none", "sslkey=/none"]) {
      expectRefused("DATABASE_URL", () => read("h", query));
    }
    expectRefused("PGSSLMODE", () => read("h", "", { PGSSLMODE: "on" }));
    expectRefused("PGSSLROOTCERT", () => read("h", "", { PGSSLROOTCERT: "/none" }));
  });

  test("looks for root.crt in the home folder, as libpq does", () => {
    const home = join(folder, "home");
    mkdirSync(join(home, ".postgresql"), { recursive: true });
    const source = fileURLToPath(new URL("../../src/config/database-url.ts", import.meta.url));
    const inHome = (query: string): unknown => {
      const script = `import { readDatabase } from ${JSON.stringify(source)};
        const DATABASE_URL = "postgres://u@db.example.org/db?${query}";
        console.log(JSON.stringify(readDatabase({ DATABASE_URL }).tls));`;
      const child = Bun.spawnSync([process.execPath, "--no-env-file", "-e", script], {
        env: { HOME: home },
        cwd: folder,
      });
      return JSON.parse(child.stdout.toString());
    };
    const none = { ca: null, cert: null, key: null };
    const weak = { rejectUnauthorized: false, checkHostName: false };
    const full = { rejectUnauthorized: true, checkHostName: true };
    expect(inHome("sslmode=require")).toEqual({ ...none, ...weak });
    expect(inHome("")).toEqual({ ...none, ...full });
    writeFileSync(join(home, ".postgresql", "root.crt"), ROOT);
    const chain = { ...none, ca: ROOT, rejectUnauthorized: true };
    expect(inHome("sslmode=require")).toEqual({ ...chain, checkHostName: false });
    expect(inHome("")).toEqual({ ...chain, checkHostName: true });
    expect(inHome("sslrootcert=system")).toEqual({ ...none, ...full });
  });
});
