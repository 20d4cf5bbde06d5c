import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import * as config from "../../src/config/config.ts";
import { Failure } from "../../src/failure.ts";
import { KEY_FILES, writeKeyFiles } from "../../src/keys/files.ts";
import { generateIdentity } from "../../vault/age.ts";
import { deriveSubkeys, formatKey, generateTokenKey } from "../../vault/keys.ts";

const CANARY = "kanarienvogel";

const folder = mkdtempSync(join(tmpdir(), "veil-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function fileOf(content: string): string {
  const path = join(folder, `file-${files++}`);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

/** What `read` throws, which must be a refusal by configuration. */
function refusal(read: () => unknown): Failure {
  try {
    read();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.exitCode).toBe(2);
    return error;
  }
  throw new Error("expected a refusal, nothing was thrown");
}

/** A refusal that says which variable is meant, and nothing of what it holds. */
function expectRefused(name: string, read: () => unknown): Failure {
  const failure = refusal(read);
  expect(failure.message).toContain(name);
  expect(failure.hint ?? "").not.toBe("");
  expect(`${failure.message}\n${failure.hint}\n${failure.stack}`).not.toContain(CANARY);
  return failure;
}

const tokenKey = generateTokenKey();
const otherKey = generateTokenKey(7);
const base64 = (key: { readonly bytes: Uint8Array }) => Buffer.from(key.bytes).toString("base64");
const classic = await generateIdentity("classic");
const classic2 = await generateIdentity("classic");
const hybrid = await generateIdentity("post-quantum");
const hybrid2 = await generateIdentity("post-quantum");

const VALUES = {
  DATABASE_URL: "postgres://etl:secret@127.0.0.1:5432/logins",
  VEIL_TOKEN_KEY: formatKey(tokenKey),
  VEIL_RECIPIENTS: classic.recipient,
  VEIL_IDENTITY: classic.identity,
  VEIL_VERIFY_KEY: formatKey(otherKey),
} as const;
type Name = keyof typeof VALUES;
const NAMES = Object.keys(VALUES) as Name[];

const READERS: Record<Name, (env: config.Environment) => unknown> = {
  DATABASE_URL: config.database,
  VEIL_TOKEN_KEY: config.tokenKey,
  VEIL_RECIPIENTS: config.recipients,
  VEIL_IDENTITY: config.identities,
  VEIL_VERIFY_KEY: config.optionalVerifyKey,
};
const REQUIRED = NAMES.filter((name) => name !== "VEIL_VERIFY_KEY");

describe("a file of a secret key", () => {
  const SECRETS = ["VEIL_TOKEN_KEY", "VEIL_VERIFY_KEY", "VEIL_IDENTITY"] as const;

  test.each(SECRETS)("that others than its owner may read is refused: %s", (name) => {
    for (const mode of [0o640, 0o604, 0o660, 0o777]) {
      const path = fileOf("a key of some kind");
      chmodSync(path, mode);
      const failure = expectRefused(`${name}_FILE`, () =>
        config.checkSet({ [`${name}_FILE`]: path }, [name]),
      );
      expect(failure.hint).toContain("chmod 600");
      expect(failure.message).not.toContain("a key of some kind");
    }
  });

  test.each(SECRETS)("that systemd has mounted may be 0440: %s", (name) => {
    const path = fileOf("not a key, but it is read");
    chmodSync(path, 0o440);
    const env = { [`${name}_FILE`]: path, CREDENTIALS_DIRECTORY: dirname(path) };
    expect(expectRefused(name, () => config.checkSet(env, [name])).message).toContain("malformed");
    // A folder that only begins like it is another one.
    const near = { ...env, CREDENTIALS_DIRECTORY: dirname(path).slice(0, -1) };
    expect(expectRefused(name, () => config.checkSet(near, [name])).message).toContain("may use");
  });

  test("of recipients may be read by everybody: they are public", () => {
    const path = fileOf("age1");
    chmodSync(path, 0o644);
    const refused = () => config.checkSet({ VEIL_RECIPIENTS_FILE: path }, ["VEIL_RECIPIENTS"]);
    expect(expectRefused("VEIL_RECIPIENTS", refused).message).toContain("malformed");
  });
});

describe("a variable and its _FILE twin", () => {
  test.each(NAMES)("%s may stand in the environment or in a file", (name) => {
    const read = READERS[name];
    const value = read({ [name]: VALUES[name] });
    expect(value).not.toBeNull();
    expect(read({ [`${name}_FILE`]: fileOf(VALUES[name]) })).toEqual(value);
    expect(config.isSet({ [name]: VALUES[name] }, name)).toBe(true);
    expect(config.isSet({ [`${name}_FILE`]: "anything" }, name)).toBe(true);
  });

  test.each(NAMES)("%s may have white space around it, and comment lines", (name) => {
    const read = READERS[name];
    const value = VALUES[name];
    const expected = read({ [name]: value });
    const spellings = [
      ` ${value} `,
      `\t${value}\r\n`,
      `\n\n${value}\n\n`,
      `# ${CANARY}\n${value}`,
      `${value}\n# ${CANARY}\n`,
      `  # ${CANARY}\r\n\r\n  ${value}\r\n#\r\n`,
    ];
    for (const text of spellings) {
      expect(read({ [name]: text })).toEqual(expected);
      expect(read({ [`${name}_FILE`]: fileOf(text) })).toEqual(expected);
    }
  });

  test.each(NAMES)("%s and its twin together are refused, whatever they hold", (name) => {
    for (const [value, file] of [
      [VALUES[name], fileOf(VALUES[name])],
      [CANARY, `/${CANARY}`],
    ]) {
      const env = { [name]: value, [`${name}_FILE`]: file };
      expect(expectRefused(name, () => READERS[name](env)).message).toContain(`${name}_FILE`);
    }
  });

  test.each(NAMES)("an empty %s is unset", (name) => {
    const read = READERS[name];
    const expected = read({ [name]: VALUES[name] });
    const file = fileOf(VALUES[name]);
    expect(read({ [name]: "", [`${name}_FILE`]: file })).toEqual(expected);
    expect(read({ [name]: VALUES[name], [`${name}_FILE`]: "" })).toEqual(expected);
    expect(config.isSet({ [name]: "", [`${name}_FILE`]: "" }, name)).toBe(false);
    expect(config.isSet({}, name)).toBe(false);
  });

  test.each(REQUIRED)("a missing %s is refused by name", (name) => {
    for (const env of [{}, { [name]: "" }, { [`${name}_FILE`]: "" }]) {
      const failure = expectRefused(name, () => READERS[name](env));
      expect(failure.message).toBe(`${name} is not set`);
    }
  });

  test.each(NAMES)("a %s of nothing but comments or white space is refused", (name) => {
    for (const text of [" ", "\n", "#", `# ${CANARY}`, ` #${CANARY}\n\n # ${CANARY}\n`]) {
      expectRefused(name, () => READERS[name]({ [name]: text }));
      expectRefused(name, () => READERS[name]({ [`${name}_FILE`]: fileOf(text) }));
    }
  });

  test.each(NAMES)("a file that %s_FILE names and nobody can read is refused", (name) => {
    for (const path of [join(folder, CANARY), folder, join(fileOf("x"), CANARY)]) {
      expectRefused(`${name}_FILE`, () => READERS[name]({ [`${name}_FILE`]: path }));
    }
  });

  test("QUEUE_URL has no file twin", () => {
    const failure = refusal(() => config.queue({ QUEUE_URL_FILE: fileOf("logins") }));
    expect(failure.message).toBe("QUEUE_URL is not set");
  });

  test.each(["classic", "post-quantum"] as const)(
    "what `keys generate` writes is accepted as it stands, %s",
    async (kind) => {
      const out = join(folder, `keys-${kind}`);
      await writeKeyFiles(out, kind);
      const variables: Record<(typeof KEY_FILES)[number], Name> = {
        "token.key": "VEIL_TOKEN_KEY",
        "verify.key": "VEIL_VERIFY_KEY",
        "identity.txt": "VEIL_IDENTITY",
        "recipients.txt": "VEIL_RECIPIENTS",
      };
      for (const file of KEY_FILES) {
        const name = variables[file];
        const path = join(out, file);
        const asValue = READERS[name]({ [name]: readFileSync(path, "utf8") });
        expect(asValue).not.toBeNull();
        expect(READERS[name]({ [`${name}_FILE`]: path })).toEqual(asValue);
      }
      const subkeys = config.tokenKey({ VEIL_TOKEN_KEY_FILE: join(out, "token.key") });
      const verify = config.optionalVerifyKey({ VEIL_VERIFY_KEY_FILE: join(out, "verify.key") });
      expect(verify).toEqual({ generation: subkeys.generation, bytes: subkeys.verify });
    },
  );

  test("whatever a variable holds, it is read or refused by name, and never repeated", () => {
    const value = fc
      .tuple(
        fc.string({ unit: "binary" }),
        fc.constantFrom("", ...Object.values(VALUES), "postgres://", "age1", "1:", "?sslmode="),
        fc.string(),
      )
      .map((parts) => parts.join(CANARY));
    fc.assert(
      fc.property(fc.constantFrom(...NAMES), value, (name, text) => {
        try {
          READERS[name]({ [name]: text });
        } catch {
          expectRefused(name === "DATABASE_URL" ? "" : name, () => READERS[name]({ [name]: text }));
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe("VEIL_TOKEN_KEY", () => {
  test("is 32 bytes in base64, of generation 1 where it does not say", () => {
    const { generation, ip } = config.tokenKey({ VEIL_TOKEN_KEY: base64(tokenKey) });
    expect(generation).toBe(1);
    expect(ip).toEqual(deriveSubkeys(tokenKey).ip);
    expect(config.tokenKey({ VEIL_TOKEN_KEY: `1:${base64(tokenKey)}` }).ip).toEqual(ip);
  });

  test("names its generation", () => {
    const read = (n: string) => config.tokenKey({ VEIL_TOKEN_KEY: `${n}:${base64(tokenKey)}` });
    expect(read("7").generation).toBe(7);
    expect(read("2147483647").generation).toBe(2_147_483_647);
    for (const n of ["0", "-1", "01", "1.0", "2147483648", "99999999999", "x", "", "1 ", "1:1"]) {
      expectRefused("VEIL_TOKEN_KEY", () => read(n));
    }
  });

  const key = base64(tokenKey);
  test.each([
    ["any text", CANARY],
    ["31 bytes", Buffer.alloc(31, 1).toString("base64")],
    ["33 bytes", Buffer.alloc(33, 1).toString("base64")],
    ["hex", Buffer.alloc(32, 1).toString("hex")],
    ["base64 without padding", key.slice(0, -1)],
    ["base64url", `${"-_".repeat(21)}A=`],
    ["trailing bits that are not zero", `${"A".repeat(42)}B=`],
    ["two keys", `${key}\n${key}`],
    ["a key and more", `${key} ${CANARY}`],
    ["quotes", `"${key}"`],
    ["an identity", classic.identity],
  ])("is refused where it holds %s", (_, text) => {
    const failure = expectRefused("VEIL_TOKEN_KEY", () =>
      config.tokenKey({ VEIL_TOKEN_KEY: text }),
    );
    expect(failure.message + failure.hint).not.toContain(text.slice(0, 12));
  });

  test("is optional where a command can do without, and then still checked", () => {
    expect(config.optionalTokenKey({})).toBeNull();
    expect(config.optionalTokenKey({ VEIL_TOKEN_KEY: key })?.generation).toBe(1);
    expectRefused("VEIL_TOKEN_KEY", () => config.optionalTokenKey({ VEIL_TOKEN_KEY: CANARY }));
  });
});

describe("VEIL_VERIFY_KEY", () => {
  test("is optional, and a line like the token key's", () => {
    expect(config.optionalVerifyKey({})).toBeNull();
    expect(config.optionalVerifyKey({ VEIL_VERIFY_KEY: formatKey(otherKey) })).toEqual(otherKey);
    for (const text of [CANARY, `${formatKey(otherKey)}=`, `0:${base64(otherKey)}`]) {
      expectRefused("VEIL_VERIFY_KEY", () => config.optionalVerifyKey({ VEIL_VERIFY_KEY: text }));
    }
  });
});

describe("VEIL_RECIPIENTS", () => {
  const read = (text: string) => config.recipients({ VEIL_RECIPIENTS: text });
  const [a, b] = [classic.recipient, classic2.recipient];

  test.each([
    ["a space", `${a} ${b}`],
    ["a comma", `${a},${b}`],
    ["both", ` ${a} , ${b} ,`],
    ["a line end", `${a}\n${b}\n`],
    ["a comment", `${a}\n# the second one\n${b}`],
    ["white space of all kinds", `\t${a}\r\n\r\n\t${b}`],
  ])("may be several, separated by %s", (_, text) => {
    expect(read(text)).toEqual([a, b]);
  });

  test("are taken once each, all of them post-quantum too", () => {
    expect(read(`${a} ${b} ${a}`)).toEqual([a, b]);
    expect(read(`${hybrid.recipient}\n${hybrid2.recipient}`)).toEqual([
      hybrid.recipient,
      hybrid2.recipient,
    ]);
  });

  test("may not mix classic and post-quantum", () => {
    for (const text of [`${a} ${hybrid.recipient}`, `${hybrid.recipient},${b},${a}`]) {
      const failure = expectRefused("VEIL_RECIPIENTS", () => read(text));
      expect(failure.message).toContain("mixes");
      expect(failure.hint).toContain("weaker part");
      expect(failure.message + failure.hint).not.toContain(a.slice(0, 12));
    }
  });

  test.each([
    ["a classic one", classic.identity],
    ["a post-quantum one", hybrid.identity],
    ["a lower-case one", classic.identity.toLowerCase()],
    ["one that is cut short", classic.identity.slice(0, 30)],
    ["one beside a recipient", `${classic.recipient} ${classic2.identity}`],
    ["one after nonsense", `${CANARY},${classic.identity}`],
    ["one in quotes", `"${classic.identity}"`],
  ])("may not be a private identity: %s", (_, text) => {
    const failure = expectRefused("VEIL_RECIPIENTS", () => read(text));
    expect(failure.message).toContain("private identity");
    expect(failure.hint).toContain("take the identity off this machine");
    expect(failure.message + failure.hint).not.toMatch(/SECRET-KEY/i);
  });

  const flip = (text: string) => text.slice(0, -1) + (text.endsWith("q") ? "p" : "q");
  test.each([
    ["any text", CANARY],
    ["only separators", " , ,"],
    ["a wrong checksum", flip(a)],
    ["a wrong post-quantum checksum", flip(hybrid.recipient)],
    ["a good one and a bad one", `${a} ${CANARY}`],
    ["an ssh key", `ssh-ed25519 ${CANARY}`],
    ["a plugin's", `age1yubikey1${CANARY}`],
    ["no data", "age1"],
    ["another separator", `${a};${b}`],
  ])("are refused where they hold %s", (_, text) => {
    expectRefused("VEIL_RECIPIENTS", () => read(text));
  });

  test("are optional where a command can do without, and then still checked", () => {
    expect(config.optionalRecipients({})).toBeNull();
    expect(config.optionalRecipients({ VEIL_RECIPIENTS: a })).toEqual([a]);
    expectRefused("VEIL_RECIPIENTS", () => config.optionalRecipients({ VEIL_RECIPIENTS: CANARY }));
  });
});

describe("VEIL_IDENTITY", () => {
  const read = (text: string) => config.identities({ VEIL_IDENTITY: text });

  test("may be one or several, of any kind", () => {
    expect(read(classic.identity)).toEqual([classic.identity]);
    expect(read(`# old\n${classic.identity}\n# new\n${hybrid.identity}\n`)).toEqual([
      classic.identity,
      hybrid.identity,
    ]);
  });

  test.each([
    ["any text", CANARY],
    ["a recipient", classic.recipient],
    ["an identity that is cut short", classic.identity.slice(0, -1)],
    [
      "a wrong checksum",
      `${classic.identity.slice(0, -1)}${classic.identity.endsWith("Q") ? "P" : "Q"}`,
    ],
    ["a good one and a bad one", `${classic.identity} ${CANARY}`],
    ["an encrypted file", `-----BEGIN AGE ENCRYPTED FILE-----\n${CANARY}`],
  ])("is refused where it holds %s", (_, text) => {
    const failure = expectRefused("VEIL_IDENTITY", () => read(text));
    expect(failure.message + failure.hint).not.toContain(classic.identity.slice(0, 20));
  });
});

test("several variables are checked at once, those that are set only", () => {
  const names = ["VEIL_TOKEN_KEY", "VEIL_RECIPIENTS", "VEIL_IDENTITY", "VEIL_VERIFY_KEY"] as const;
  config.checkSet({}, names);
  config.checkSet(VALUES, names);
  for (const name of names) {
    expectRefused(name, () => config.checkSet({ ...VALUES, [name]: CANARY }, names));
    config.checkSet(
      { [name]: CANARY },
      names.filter((other) => other !== name),
    );
  }
});

describe("the embedded default", () => {
  const DATABASE = { DATABASE_URL: VALUES.DATABASE_URL };
  const QUEUE = { QUEUE_URL: "logins" };

  test("is taken by etl where neither queue nor database is set", () => {
    expect(config.wantsEmbedded({}, "etl")).toBe(true);
    expect(config.wantsEmbedded({ QUEUE_URL: "", DATABASE_URL: "" }, "etl")).toBe(true);
    expect(config.wantsEmbedded({ ...DATABASE, ...QUEUE }, "etl")).toBe(false);
    const file = { DATABASE_URL_FILE: fileOf(VALUES.DATABASE_URL) };
    expect(config.wantsEmbedded({ ...file, ...QUEUE }, "etl")).toBe(false);
  });

  test("is refused to etl where only one of them is set, naming both", () => {
    expect(refusal(() => config.wantsEmbedded(QUEUE, "etl")).message).toBe(
      "QUEUE_URL is set, but DATABASE_URL is not",
    );
    for (const env of [DATABASE, { DATABASE_URL_FILE: "x" }, { ...DATABASE, QUEUE_URL: "" }]) {
      expect(refusal(() => config.wantsEmbedded(env, "etl")).message).toBe(
        "DATABASE_URL is set, but QUEUE_URL is not",
      );
    }
  });

  test("depends on DATABASE_URL alone for the other commands", () => {
    expect(config.wantsEmbedded({}, "other")).toBe(true);
    expect(config.wantsEmbedded(QUEUE, "other")).toBe(true);
    expect(config.wantsEmbedded(DATABASE, "other")).toBe(false);
    expect(config.wantsEmbedded({ DATABASE_URL_FILE: "x" }, "other")).toBe(false);
  });
});

describe("QUEUE_URL", () => {
  const read = (QUEUE_URL: string, env: config.Environment = {}) =>
    config.queue({ QUEUE_URL, ...env });

  test.each([
    ["https://sqs.eu-central-1.amazonaws.com/123456789012/logins", "eu-central-1"],
    ["https://sqs.us-gov-west-1.amazonaws.com/123456789012/logins", "us-gov-west-1"],
    ["https://sqs.cn-north-1.amazonaws.com.cn/123456789012/logins", "cn-north-1"],
    ["https://sqs.eu-west-1.api.aws/123456789012/logins.fifo", "eu-west-1"],
    ["https://vpce-0a1b-2c.sqs.us-east-1.vpce.amazonaws.com/123456789012/logins", "us-east-1"],
    ["https://queue.amazonaws.com/123456789012/logins", null],
    ["https://us-west-2.queue.amazonaws.com/123456789012/logins", null],
  ])("at AWS keeps the SDK's endpoint: %s", (url, region) => {
    const expected = { queue: url, endpoint: null, region, credentials: null };
    expect(read(url)).toEqual(expected);
    // The queue's own region beats a default.
    expect(read(url, { AWS_REGION: "ap-south-1" })).toEqual(expected);
  });

  test.each([
    ["http://localhost:4566/000000000000/logins", "http://localhost:4566"],
    ["http://127.0.0.1:9324/queue/logins", "http://127.0.0.1:9324"],
    ["http://[::1]:9324/queue/logins", "http://[::1]:9324"],
    ["https://sqs.example.org/1/logins", "https://sqs.example.org"],
    ["https://amazonaws.com.example.org/1/logins", "https://amazonaws.com.example.org"],
    ["https://notamazonaws.com/1/logins", "https://notamazonaws.com"],
  ])("of an emulator is its own endpoint: %s", (url, endpoint) => {
    expect(read(url)).toEqual({ queue: url, endpoint, region: "us-east-1", credentials: null });
    expect(read(url, { AWS_REGION: "eu-west-1" }).region).toBeNull();
    expect(read(url, { AWS_DEFAULT_REGION: "eu-west-1" }).region).toBeNull();
    expect(read(url, { AWS_REGION: "", AWS_DEFAULT_REGION: "" }).region).toBe("us-east-1");
  });

  test("of an emulator may name its region", () => {
    const url = "http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/logins";
    expect(read(url)).toMatchObject({
      endpoint: "http://sqs.eu-west-1.localhost.localstack.cloud:4566",
      region: "eu-west-1",
    });
  });

  test("is passed on as it stands where an endpoint is set", () => {
    const urls = [
      "http://a-host-that-does-not-resolve.invalid:1234/000000000000/logins",
      "https://sqs.eu-central-1.amazonaws.com/123456789012/logins",
    ];
    for (const queue of urls) {
      for (const name of ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"]) {
        const env = { [name]: "http://localhost:4566" };
        expect(read(queue, env)).toMatchObject({ queue, endpoint: "http://localhost:4566" });
      }
    }
    const both = { AWS_ENDPOINT_URL_SQS: "http://sqs:1", AWS_ENDPOINT_URL: "http://all:2" };
    expect(read("logins", both).endpoint).toBe("http://sqs:1");
    expect(read("logins", { ...both, AWS_ENDPOINT_URL_SQS: "" }).endpoint).toBe("http://all:2");
  });

  test.each(["logins", "Logins_2-b", "logins.fifo", "x", "x".repeat(75), `${"x".repeat(75)}.fifo`])(
    "may be a queue's name: %s",
    (queue) => {
      expect(read(queue)).toEqual({ queue, endpoint: null, region: null, credentials: null });
      expect(read(` ${queue}\n`).queue).toBe(queue);
    },
  );

  test.each([
    `${CANARY} ${CANARY}`,
    `${CANARY}.txt`,
    `${CANARY}/${CANARY}`,
    `arn:aws:sqs:us-east-1:1:${CANARY}`,
    `ftp://localhost/1/${CANARY}`,
    `${CANARY}${"x".repeat(75)}`,
    `localhost:4566/1/${CANARY}`,
    `http://${CANARY}`,
    `http://${CANARY}/`,
    `http://[${CANARY}]/1/logins`,
    `http://u:${CANARY}@h:99999/1/logins`,
    "http://",
  ])("is refused where it is neither a URL of a queue nor a name: %s", (url) => {
    expectRefused("QUEUE_URL", () => read(url));
  });

  test("is refused by name where it is missing", () => {
    for (const env of [{}, { QUEUE_URL: "" }, { QUEUE_URL: " \n" }]) {
      expectRefused("QUEUE_URL", () => config.queue(env));
    }
  });

  test("does not excuse a malformed AWS_ENDPOINT_URL_SQS", () => {
    for (const endpoint of [CANARY, "http://", `//${CANARY}`, `http://${CANARY}:x`]) {
      const env = { AWS_ENDPOINT_URL_SQS: endpoint };
      expectRefused("AWS_ENDPOINT_URL_SQS", () => read("logins", env));
    }
  });

  // `host:port` is a URL of the scheme `host` to the parser, and no endpoint.
  test("does not excuse an AWS_ENDPOINT_URL_SQS without http:// either", () => {
    for (const endpoint of ["localhost:4566", "ftp://localhost/"]) {
      expectRefused("AWS_ENDPOINT_URL_SQS", () =>
        read("logins", { AWS_ENDPOINT_URL_SQS: endpoint }),
      );
    }
  });

  test("names AWS_ENDPOINT_URL where that is the malformed one", () => {
    const { message } = refusal(() => read("logins", { AWS_ENDPOINT_URL: CANARY }));
    expect(message).toMatch(/AWS_ENDPOINT_URL(?!_SQS)/);
  });
});

describe("DATABASE_URL", () => {
  const read = (DATABASE_URL: string, env: config.Environment = {}) =>
    config.database({ DATABASE_URL, ...env });

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

  const read = (host: string, query: string, env: config.Environment = {}) =>
    config.database({ DATABASE_URL: `postgres://u:p@${host}/db?${query}`, ...env }).tls;

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
    const source = fileURLToPath(new URL("../../src/config/config.ts", import.meta.url));
    const inHome = (query: string): unknown => {
      const script = `import { database } from ${JSON.stringify(source)};
        const DATABASE_URL = "postgres://u@db.example.org/db?${query}";
        console.log(JSON.stringify(database({ DATABASE_URL }).tls));`;
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
