import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { readDatabase } from "../../src/config/database-url.ts";
import { type Environment, isSet, wantsEmbedded } from "../../src/config/environment.ts";
import {
  checkKeys,
  readIdentities,
  readRecipients,
  readTokenKey,
  readVerifyKey,
} from "../../src/config/keys.ts";
import { readQueue } from "../../src/config/queue-url.ts";
import { KEY_FILES, writeKeyFiles } from "../../src/keys/files.ts";
import { generateIdentity } from "../../vault/age.ts";
import { formatKey, generateTokenKey } from "../../vault/keys.ts";
import { CANARY, expectRefused, refusal } from "../support/refusals.ts";

const folder = mkdtempSync(join(tmpdir(), "veil-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function fileOf(content: string): string {
  const path = join(folder, `file-${files++}`);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

const tokenKey = generateTokenKey();
const otherKey = generateTokenKey(7);
const classic = await generateIdentity("classic");

const VALUES = {
  DATABASE_URL: "postgres://etl:secret@127.0.0.1:5432/logins",
  VEIL_TOKEN_KEY: formatKey(tokenKey),
  VEIL_RECIPIENTS: classic.recipient,
  VEIL_IDENTITY: classic.identity,
  VEIL_VERIFY_KEY: formatKey(otherKey),
} as const;
type Name = keyof typeof VALUES;
const NAMES = Object.keys(VALUES) as Name[];

const READERS: Record<Name, (env: Environment) => unknown> = {
  DATABASE_URL: readDatabase,
  VEIL_TOKEN_KEY: readTokenKey,
  VEIL_RECIPIENTS: readRecipients,
  VEIL_IDENTITY: readIdentities,
  VEIL_VERIFY_KEY: readVerifyKey,
};
const REQUIRED = NAMES.filter((name) => name !== "VEIL_VERIFY_KEY");

describe("a file of a secret key", () => {
  const SECRETS = ["VEIL_TOKEN_KEY", "VEIL_VERIFY_KEY", "VEIL_IDENTITY"] as const;

  test.each(SECRETS)("that others than its owner may read is refused: %s", (name) => {
    for (const mode of [0o640, 0o604, 0o660, 0o777]) {
      const path = fileOf("a key of some kind");
      chmodSync(path, mode);
      const failure = expectRefused(`${name}_FILE`, () =>
        checkKeys({ [`${name}_FILE`]: path }, [name]),
      );
      expect(failure.hint).toContain("chmod 600");
      expect(failure.message).not.toContain("a key of some kind");
    }
  });

  test.each(SECRETS)("that systemd has mounted may be 0440: %s", (name) => {
    const path = fileOf("not a key, but it is read");
    chmodSync(path, 0o440);
    const env = { [`${name}_FILE`]: path, CREDENTIALS_DIRECTORY: dirname(path) };
    expect(expectRefused(name, () => checkKeys(env, [name])).message).toContain("malformed");
    // A folder that only begins like it is another one.
    const near = { ...env, CREDENTIALS_DIRECTORY: dirname(path).slice(0, -1) };
    expect(expectRefused(name, () => checkKeys(near, [name])).message).toContain("may use");
  });

  test("of recipients may be read by everybody: they are public", () => {
    const path = fileOf("age1");
    chmodSync(path, 0o644);
    const refused = () => checkKeys({ VEIL_RECIPIENTS_FILE: path }, ["VEIL_RECIPIENTS"]);
    expect(expectRefused("VEIL_RECIPIENTS", refused).message).toContain("malformed");
  });
});

describe("a variable and its _FILE twin", () => {
  test.each(NAMES)("%s may stand in the environment or in a file", (name) => {
    const read = READERS[name];
    const value = read({ [name]: VALUES[name] });
    expect(value).not.toBeNull();
    expect(read({ [`${name}_FILE`]: fileOf(VALUES[name]) })).toEqual(value);
    expect(isSet({ [name]: VALUES[name] }, name)).toBe(true);
    expect(isSet({ [`${name}_FILE`]: "anything" }, name)).toBe(true);
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
    expect(isSet({ [name]: "", [`${name}_FILE`]: "" }, name)).toBe(false);
    expect(isSet({}, name)).toBe(false);
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
    const failure = refusal(() => readQueue({ QUEUE_URL_FILE: fileOf("logins") }));
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
      const subkeys = readTokenKey({ VEIL_TOKEN_KEY_FILE: join(out, "token.key") });
      const verify = readVerifyKey({ VEIL_VERIFY_KEY_FILE: join(out, "verify.key") });
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

test("several variables are checked at once, those that are set only", () => {
  const names = ["VEIL_TOKEN_KEY", "VEIL_RECIPIENTS", "VEIL_IDENTITY", "VEIL_VERIFY_KEY"] as const;
  checkKeys({}, names);
  checkKeys(VALUES, names);
  for (const name of names) {
    expectRefused(name, () => checkKeys({ ...VALUES, [name]: CANARY }, names));
    checkKeys(
      { [name]: CANARY },
      names.filter((other) => other !== name),
    );
  }
});

describe("the embedded default", () => {
  const DATABASE = { DATABASE_URL: VALUES.DATABASE_URL };
  const QUEUE = { QUEUE_URL: "logins" };

  test("is taken by etl where neither queue nor database is set", () => {
    expect(wantsEmbedded({}, "etl")).toBe(true);
    expect(wantsEmbedded({ QUEUE_URL: "", DATABASE_URL: "" }, "etl")).toBe(true);
    expect(wantsEmbedded({ ...DATABASE, ...QUEUE }, "etl")).toBe(false);
    const file = { DATABASE_URL_FILE: fileOf(VALUES.DATABASE_URL) };
    expect(wantsEmbedded({ ...file, ...QUEUE }, "etl")).toBe(false);
  });

  test("is refused to etl where only one of them is set, naming both", () => {
    expect(refusal(() => wantsEmbedded(QUEUE, "etl")).message).toBe(
      "QUEUE_URL is set, but DATABASE_URL is not",
    );
    for (const env of [DATABASE, { DATABASE_URL_FILE: "x" }, { ...DATABASE, QUEUE_URL: "" }]) {
      expect(refusal(() => wantsEmbedded(env, "etl")).message).toBe(
        "DATABASE_URL is set, but QUEUE_URL is not",
      );
    }
  });

  test("depends on DATABASE_URL alone for the other commands", () => {
    expect(wantsEmbedded({}, "other")).toBe(true);
    expect(wantsEmbedded(QUEUE, "other")).toBe(true);
    expect(wantsEmbedded(DATABASE, "other")).toBe(false);
    expect(wantsEmbedded({ DATABASE_URL_FILE: "x" }, "other")).toBe(false);
  });
});
