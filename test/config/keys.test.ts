import { describe, expect, test } from "bun:test";
import {
  readIdentities,
  readOptionalRecipients,
  readOptionalTokenKey,
  readRecipients,
  readTokenKey,
  readVerifyKey,
} from "../../src/config/keys.ts";
import { generateIdentity } from "../../vault/age.ts";
import { deriveSubkeys, formatKey, generateTokenKey } from "../../vault/keys.ts";
import { CANARY, expectRefused } from "../support/refusals.ts";

const tokenKey = generateTokenKey();
const otherKey = generateTokenKey(7);
const base64 = (key: { readonly bytes: Uint8Array }) => Buffer.from(key.bytes).toString("base64");
const classic = await generateIdentity("classic");
const classic2 = await generateIdentity("classic");
const hybrid = await generateIdentity("post-quantum");
const hybrid2 = await generateIdentity("post-quantum");

describe("VEIL_TOKEN_KEY", () => {
  test("is 32 bytes in base64, of generation 1 where it does not say", () => {
    const { generation, ip } = readTokenKey({ VEIL_TOKEN_KEY: base64(tokenKey) });
    expect(generation).toBe(1);
    expect(ip).toEqual(deriveSubkeys(tokenKey).ip);
    expect(readTokenKey({ VEIL_TOKEN_KEY: `1:${base64(tokenKey)}` }).ip).toEqual(ip);
  });

  test("names its generation", () => {
    const read = (n: string) => readTokenKey({ VEIL_TOKEN_KEY: `${n}:${base64(tokenKey)}` });
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
    const failure = expectRefused("VEIL_TOKEN_KEY", () => readTokenKey({ VEIL_TOKEN_KEY: text }));
    expect(failure.message + failure.hint).not.toContain(text.slice(0, 12));
  });

  test("is optional where a command can do without, and then still checked", () => {
    expect(readOptionalTokenKey({})).toBeNull();
    expect(readOptionalTokenKey({ VEIL_TOKEN_KEY: key })?.generation).toBe(1);
    expectRefused("VEIL_TOKEN_KEY", () => readOptionalTokenKey({ VEIL_TOKEN_KEY: CANARY }));
  });
});

describe("VEIL_VERIFY_KEY", () => {
  test("is optional, and a line like the token key's", () => {
    expect(readVerifyKey({})).toBeNull();
    expect(readVerifyKey({ VEIL_VERIFY_KEY: formatKey(otherKey) })).toEqual(otherKey);
    for (const text of [CANARY, `${formatKey(otherKey)}=`, `0:${base64(otherKey)}`]) {
      expectRefused("VEIL_VERIFY_KEY", () => readVerifyKey({ VEIL_VERIFY_KEY: text }));
    }
  });
});

describe("VEIL_RECIPIENTS", () => {
  const read = (text: string) => readRecipients({ VEIL_RECIPIENTS: text });
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
    expect(readOptionalRecipients({})).toBeNull();
    expect(readOptionalRecipients({ VEIL_RECIPIENTS: a })).toEqual([a]);
    expectRefused("VEIL_RECIPIENTS", () => readOptionalRecipients({ VEIL_RECIPIENTS: CANARY }));
  });
});

describe("VEIL_IDENTITY", () => {
  const read = (text: string) => readIdentities({ VEIL_IDENTITY: text });

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
