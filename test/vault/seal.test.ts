import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { deriveSubkeys } from "../../vault/keys.ts";
import { MAX_SEALS_PER_DATA_KEY, open, type Place, seal } from "../../vault/seal.ts";
import { makeToken } from "../../vault/token.ts";
import * as independent from "../vectors/independent.ts";

const KEY = new Uint8Array(32).fill(0x42);
const TOKEN = makeToken(deriveSubkeys({ generation: 1, bytes: KEY }), "ip", "203.0.113.7");
const ORIGINAL: Place = { kind: "original", token: TOKEN };
const QUARANTINE: Place = { kind: "quarantine", messageId: "m1" };

const text = fc.string({ unit: "binary" });
const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
const name = fc.oneof(fc.constant(TOKEN), fc.string({ unit: "binary" }));
const place = fc.oneof(
  name.map((token): Place => ({ kind: "original", token })),
  name.map((messageId): Place => ({ kind: "quarantine", messageId })),
);

/** What a padded text of so many bytes takes: nonce, full blocks, tag. */
const sealedLength = (bytes: number): number => 12 + 16 * (Math.floor(bytes / 16) + 1) + 16;

describe("a seal", () => {
  test("opens to the very text, whatever the text", () => {
    fc.assert(
      fc.property(key, place, text, (dataKey, where, original) => {
        const sealed = seal(dataKey, where, original);
        expect(open(dataKey, where, sealed)).toBe(original);
        expect(independent.open(dataKey, where, sealed)).toBe(original);
      }),
    );
  });

  test("opens to a text of every length around the blocks", () => {
    for (const length of [0, 1, 2, 14, 15, 16, 17, 30, 31, 32, 33, 1023, 1024, 1025, 262_144]) {
      const original = "x".repeat(length);
      const sealed = seal(KEY, ORIGINAL, original);
      expect(sealed.length).toBe(sealedLength(length));
      expect(open(KEY, ORIGINAL, sealed)).toBe(original);
    }
  });

  test("tells a length to sixteen bytes only", () => {
    const lengths = Array.from({ length: 16 }, (_, n) => seal(KEY, ORIGINAL, "x".repeat(n)).length);
    expect(new Set(lengths)).toEqual(new Set([44]));
    expect(seal(KEY, ORIGINAL, "x".repeat(16)).length).toBe(60);
  });

  test("keeps a text that ends as padding does", () => {
    for (const original of ["\u00c0", "\u00c0\0", "\u00c0\0\0", "\0", "\0".repeat(33)]) {
      for (let before = 0; before <= 17; before++) {
        const whole = "a".repeat(before) + original;
        expect(open(KEY, ORIGINAL, seal(KEY, ORIGINAL, whole))).toBe(whole);
      }
    }
  });

  test("keeps a byte order mark and both normal forms", () => {
    for (const original of ["\ufeff203.0.113.7", "\ufeff", "Zo\u00eb", "Zoe\u0308"]) {
      expect(open(KEY, ORIGINAL, seal(KEY, ORIGINAL, original))).toBe(original);
    }
  });

  test("of one text is another one each time, and begins with another nonce", () => {
    const seals = Array.from({ length: 1000 }, () => Buffer.from(seal(KEY, ORIGINAL, "same")));
    expect(new Set(seals.map((one) => one.toString("hex", 0, 12))).size).toBe(1000);
    expect(new Set(seals.map((one) => one.toString("hex", 12))).size).toBe(1000);
  });

  test("does not show its text", () => {
    const canary = "canary-203.0.113.7";
    expect(Buffer.from(seal(KEY, ORIGINAL, canary)).includes("canary")).toBe(false);
  });

  test("opens from the middle of a larger buffer, as a driver may hand it over", () => {
    const sealed = seal(KEY, ORIGINAL, "203.0.113.7");
    const buffer = new Uint8Array(sealed.length + 10).fill(0xee);
    buffer.set(sealed, 5);
    expect(open(KEY, ORIGINAL, buffer.subarray(5, 5 + sealed.length))).toBe("203.0.113.7");
  });

  test("leaves key, nonce and itself as they were", () => {
    const nonce = new Uint8Array(12).fill(3);
    const dataKey = KEY.slice();
    const sealed = seal(dataKey, ORIGINAL, "203.0.113.7", nonce);
    const copy = sealed.slice();
    open(dataKey, ORIGINAL, sealed);
    expect([dataKey, nonce, sealed]).toEqual([KEY, new Uint8Array(12).fill(3), copy]);
  });
});

describe("a seal that was moved", () => {
  test("does not open at any other place", () => {
    fc.assert(
      fc.property(place, place, text, (from, to, original) => {
        fc.pre(JSON.stringify(from) !== JSON.stringify(to));
        expect(open(KEY, to, seal(KEY, from, original))).toBeNull();
      }),
    );
  });

  test("does not open at another token, another message, or the same name's other kind", () => {
    const sealed = seal(KEY, ORIGINAL, "203.0.113.7");
    const swapped = TOKEN.replace(/.$/, (last) => (last === "a" ? "e" : "a"));
    for (const token of [swapped, TOKEN.replace("ip1", "ip2"), TOKEN.replace("ip", "dev"), ""]) {
      expect(open(KEY, { kind: "original", token }, sealed)).toBeNull();
    }
    expect(open(KEY, { kind: "quarantine", messageId: TOKEN }, sealed)).toBeNull();
    const body = seal(KEY, QUARANTINE, "{}");
    expect(open(KEY, QUARANTINE, body)).toBe("{}");
    expect(open(KEY, { kind: "quarantine", messageId: "m2" }, body)).toBeNull();
    expect(open(KEY, { kind: "original", token: "m1" }, body)).toBeNull();
  });

  test("does not open under another key, one bit away", () => {
    const sealed = seal(KEY, ORIGINAL, "203.0.113.7");
    for (let bit = 0; bit < 256; bit++) {
      const other = KEY.with(bit >> 3, KEY[bit >> 3]! ^ (1 << (bit & 7)));
      expect(open(other, ORIGINAL, sealed)).toBeNull();
    }
    fc.assert(
      fc.property(key, (other) => {
        fc.pre(Buffer.compare(other, KEY) !== 0);
        expect(open(other, ORIGINAL, sealed)).toBeNull();
      }),
    );
  });
});

describe("a seal that was altered", () => {
  const originals = ["", "203.0.113.7", "x".repeat(40)];

  test("is refused for every single bit of nonce, body and tag", () => {
    for (const original of originals) {
      const sealed = seal(KEY, ORIGINAL, original);
      expect(open(KEY, ORIGINAL, sealed)).toBe(original);
      for (let bit = 0; bit < sealed.length * 8; bit++) {
        const flipped = sealed.with(bit >> 3, sealed[bit >> 3]! ^ (1 << (bit & 7)));
        expect({ bit, opened: open(KEY, ORIGINAL, flipped) }).toEqual({ bit, opened: null });
      }
    }
  });

  test("is refused at every shorter length, from either end, and with anything added", () => {
    for (const original of originals) {
      const sealed = seal(KEY, ORIGINAL, original);
      for (let length = 0; length < sealed.length; length++) {
        expect(open(KEY, ORIGINAL, sealed.subarray(0, length))).toBeNull();
        expect(open(KEY, ORIGINAL, sealed.subarray(sealed.length - length))).toBeNull();
      }
      for (const more of [1, 15, 16, 17]) {
        const longer = new Uint8Array(sealed.length + more);
        longer.set(sealed);
        expect(open(KEY, ORIGINAL, longer)).toBeNull();
        longer.set(sealed, more);
        expect(open(KEY, ORIGINAL, longer)).toBeNull();
      }
    }
  });

  test("is refused when made of the parts of two", () => {
    const [one, two] = ["203.0.113.7", "203.0.113.8"].map((value) => seal(KEY, ORIGINAL, value));
    for (const cut of [12, 28]) {
      for (const [head, tail] of [
        [one!, two!],
        [two!, one!],
      ] as const) {
        const mixed = Uint8Array.of(...head.subarray(0, cut), ...tail.subarray(cut));
        expect(open(KEY, ORIGINAL, mixed)).toBeNull();
      }
    }
  });

  test("is refused as random bytes of any length are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        expect(open(KEY, ORIGINAL, noise)).toBeNull();
      }),
    );
  });

  test("is refused under a fitting tag when what it holds is not a padded text", () => {
    const data = independent.additionalData(ORIGINAL);
    // Zeros and 80 in any order, in full blocks mostly: what is nearly padding.
    const padded = fc
      .constantFrom(15, 16, 17, 32, 48)
      .chain((length) =>
        fc
          .array(
            fc.oneof(
              { weight: 12, arbitrary: fc.constant(0) },
              { weight: 1, arbitrary: fc.constantFrom(0x80, 0x41, 1) },
            ),
            { minLength: length, maxLength: length },
          )
          .map((all) => Uint8Array.from(all)),
      );
    let opened = 0;
    fc.assert(
      fc.property(padded, (plaintext) => {
        const forged = independent.encrypt(KEY, new Uint8Array(12), data, plaintext);
        const expected = independent.open(KEY, ORIGINAL, forged);
        if (expected !== null) opened++;
        expect(open(KEY, ORIGINAL, forged)).toBe(expected);
      }),
      { numRuns: 2000, seed: 7816 },
    );
    // Some of it is padding, and opens.
    expect(opened).toBeGreaterThan(100);
    expect(opened).toBeLessThan(1900);
  });
});

describe("sealing", () => {
  test("refuses a lone surrogate in the text, and in the place", () => {
    for (const broken of ["\ud800", "a\udfff", "\ude00\ud83d"]) {
      expect(() => seal(KEY, ORIGINAL, broken)).toThrow("lone surrogate");
      const token: Place = { kind: "original", token: broken };
      const message: Place = { kind: "quarantine", messageId: broken };
      expect(() => seal(KEY, token, "x")).toThrow("lone surrogate");
      expect(() => seal(KEY, message, "x")).toThrow("lone surrogate");
    }
  });

  test("refuses a nonce of any length but 12", () => {
    for (const length of [0, 1, 7, 8, 11, 13, 16, 24]) {
      expect(() => seal(KEY, ORIGINAL, "x", new Uint8Array(length))).toThrow();
    }
  });

  test("refuses a key of any length but 32: AES-256 and nothing weaker", () => {
    for (const length of [0, 16, 24, 31, 33, 64]) {
      expect(() => seal(new Uint8Array(length), ORIGINAL, "x")).toThrow();
    }
  });

  test("has a bound for each key that keeps random nonces apart", () => {
    expect(MAX_SEALS_PER_DATA_KEY).toBe(2 ** 20);
  });
});
