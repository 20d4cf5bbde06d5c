import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  generateIdentity,
  identityRecipients,
  isIdentity,
  looksLikeIdentity,
  recipientKind,
} from "../../vault/age.ts";
import { unwrapDataKey, wrapDataKey } from "../../vault/data-key.ts";
import { BECH32M, encodeBech32, encodeWords, toWords, wordsOf } from "../vectors/bech32.ts";
import * as vectors from "../vectors/vectors.ts";

const CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
const recipientOf = (bytes: Uint8Array): string => encodeBech32("age", bytes);
const identityOf = (bytes: Uint8Array): string =>
  encodeBech32("age-secret-key-", bytes).toUpperCase();

describe("a classic recipient", () => {
  test("is one whatever its data begins with", () => {
    // Every first byte, so every first character; and the beginnings that other kinds have.
    for (let first = 0; first < 256; first++) {
      const bytes = new Uint8Array(32).fill(0x5c).with(0, first);
      expect({ first, kind: recipientKind(recipientOf(bytes)) }).toEqual({
        first,
        kind: "classic",
      });
    }
    const words = toWords(new Uint8Array(32).fill(0x5c));
    for (const start of [...CHARSET, "pq", "pqq", "tag", "tagpq", "tagq", "plug", "se"]) {
      const text = encodeWords("age", [...wordsOf(start), ...words.slice(start.length)]);
      expect(text).toStartWith(`age1${start}`);
      expect({ text, kind: recipientKind(text) }).toEqual({ text, kind: "classic" });
    }
  });

  test("is one for any 32 bytes, and none with any one character replaced", () => {
    fc.assert(
      fc.property(key, fc.nat(57), fc.nat(30), (bytes, at, shift) => {
        const text = recipientOf(bytes);
        expect(recipientKind(text)).toBe("classic");
        const index = 4 + at;
        const replaced = CHARSET[(CHARSET.indexOf(text[index]!) + 1 + shift) % 32]!;
        expect(recipientKind(text.slice(0, index) + replaced + text.slice(index + 1))).toBeNull();
      }),
    );
  });

  test("is none in capitals, of another length, or with another checksum", () => {
    fc.assert(
      fc.property(key, fc.uint8Array({ maxLength: 48 }), (bytes, other) => {
        fc.pre(other.length !== 32);
        expect(recipientKind(recipientOf(bytes).toUpperCase())).toBeNull();
        expect(recipientKind(recipientOf(other))).toBeNull();
        expect(recipientKind(encodeWords("age", toWords(bytes), BECH32M))).toBeNull();
      }),
    );
  });

  test("that the generator made wraps a key that its identity opens", async () => {
    const firsts = new Set<string>();
    for (let i = 0; i < 200; i++) {
      const { identity, recipient } = await generateIdentity("classic");
      firsts.add(recipient[4]!);
      expect(recipientKind(recipient)).toBe("classic");
      expect(isIdentity(identity)).toBe(true);
      if (i % 20 > 0) continue;
      const dataKey = { id: crypto.randomUUID(), generation: 1, bytes: new Uint8Array(32).fill(i) };
      const { wrapped } = await wrapDataKey(dataKey, [recipient], new Uint8Array(32));
      expect(await unwrapDataKey(wrapped, [identity])).toEqual(dataKey.bytes);
    }
    expect(firsts.size).toBeGreaterThan(16);
  });
});

describe("a post-quantum recipient", () => {
  test("is told from a classic one", async () => {
    const { identity, recipient } = await generateIdentity("post-quantum");
    expect(recipient).toStartWith("age1pq1");
    expect(recipientKind(recipient)).toBe("post-quantum");
    expect(identity).toStartWith("AGE-SECRET-KEY-PQ-1");
    expect(isIdentity(identity)).toBe(true);
    expect(recipientKind(recipient.toUpperCase())).toBeNull();
    expect(recipientKind(recipient.slice(0, -1))).toBeNull();
  });
});

describe("what only another program could open", () => {
  test("is no recipient: hardware tags and plugins", () => {
    const texts = ["age1tag", "age1tagpq", "age1yubikey", "age1fido2-hmac", "age1tpm", "age1se"];
    for (const prefix of texts) {
      for (const length of [32, 33, 1216, 1249]) {
        const text = encodeBech32(prefix, new Uint8Array(length).fill(2));
        expect({ prefix, length, kind: recipientKind(text) }).toEqual({
          ...{ prefix, length, kind: null },
        });
      }
    }
  });
});

describe("an identity", () => {
  test("is never a recipient, and looks like what it is in any case", async () => {
    for (const kind of ["classic", "post-quantum"] as const) {
      const { identity, recipient } = await generateIdentity(kind);
      for (const text of [identity, identity.toLowerCase(), `x${identity}`, `\n${identity}`]) {
        expect(recipientKind(text)).toBeNull();
        expect(looksLikeIdentity(text)).toBe(true);
      }
      expect(looksLikeIdentity(recipient)).toBe(false);
      expect(isIdentity(recipient)).toBe(false);
    }
  });

  test("is refused with a character replaced, in lower case, or of another length", () => {
    fc.assert(
      fc.property(key, fc.nat(57), (bytes, at) => {
        const text = identityOf(bytes);
        expect(isIdentity(text)).toBe(true);
        const index = "AGE-SECRET-KEY-1".length + at;
        const replaced = text[index] === "Q" ? "P" : "Q";
        expect(isIdentity(text.slice(0, index) + replaced + text.slice(index + 1))).toBe(false);
        expect(isIdentity(text.toLowerCase())).toBe(false);
        expect(isIdentity(identityOf(bytes.subarray(1)))).toBe(false);
        expect(isIdentity(identityOf(Uint8Array.of(...bytes, 0)))).toBe(false);
        expect(isIdentity(`${text}\n`)).toBe(false);
      }),
    );
    for (const text of ["", "AGE-SECRET-KEY-1", "AGE-PLUGIN-YUBIKEY-1QQ", "test"]) {
      expect(isIdentity(text)).toBe(false);
    }
  });

  test("names the recipient that it opens for", async () => {
    for (const { identities, recipients } of vectors.wrapped.files) {
      expect(await identityRecipients(identities)).toEqual([...recipients]);
    }
    expect(await identityRecipients([])).toEqual([]);
  });
});
