import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { deriveSubkeys, formatKey, generateTokenKey, parseKey } from "../../vault/keys.ts";

const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
const generation = fc.integer({ min: 1, max: 2 ** 31 - 1 });

describe("a key's line", () => {
  test("reads back as the key that was written", () => {
    fc.assert(
      fc.property(key, generation, (bytes, of) => {
        const line = formatKey({ generation: of, bytes });
        expect(line).toBe(`${of}:${Buffer.from(bytes).toString("base64")}`);
        expect(parseKey(line)).toEqual({ generation: of, bytes });
      }),
    );
  });

  test("is of generation 1 where none is named", () => {
    fc.assert(
      fc.property(key, (bytes) => {
        const plain = Buffer.from(bytes).toString("base64");
        expect(parseKey(plain)).toEqual({ generation: 1, bytes });
      }),
    );
  });

  test("of every other number of bytes is refused", () => {
    for (let length = 0; length <= 100; length++) {
      const line = `1:${Buffer.alloc(length, 0x5a).toString("base64")}`;
      expect({ length, accepted: parseKey(line) !== null }).toEqual({
        length,
        accepted: length === 32,
      });
    }
  });

  test("has one spelling: of all last characters before the padding only one reads as it does", () => {
    const line = formatKey({ generation: 1, bytes: new Uint8Array(32).fill(0xa7) });
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const accepted = Array.from(alphabet).filter(
      (last) => parseKey(`${line.slice(0, -2)}${last}=`) !== null,
    );
    expect(accepted.join("")).toBe("AEIMQUYcgkosw048");
  });

  test("with any other character at any place is refused", () => {
    const line = formatKey(generateTokenKey(12));
    for (let at = 0; at <= line.length; at++) {
      for (const character of [" ", "\n", "\r", "\t", "-", "_", "\0", "\ufeff", "é"]) {
        expect(parseKey(line.slice(0, at) + character + line.slice(at))).toBeNull();
        if (at < line.length) {
          expect(parseKey(line.slice(0, at) + character + line.slice(at + 1))).toBeNull();
        }
      }
    }
  });

  test("holds a generation that fits an integer column", () => {
    const plain = Buffer.alloc(32, 1).toString("base64");
    const accepted = ["0", "1", "9", "2147483646", "2147483647", "2147483648", "4294967297", "01"]
      .map((of) => parseKey(`${of}:${plain}`)?.generation)
      .filter((of) => of !== undefined);
    expect(accepted).toEqual([1, 9, 2147483646, 2147483647]);
  });
});

describe("a token key", () => {
  test("is generated anew each time, of 32 bytes and generation 1 unless said otherwise", () => {
    const keys = Array.from({ length: 50 }, () => generateTokenKey());
    expect(new Set(keys.map(formatKey)).size).toBe(50);
    expect(keys.every((one) => one.generation === 1 && one.bytes.length === 32)).toBe(true);
    expect(generateTokenKey(7).generation).toBe(7);
  });

  test("of another length derives nothing, and the error says lengths only", () => {
    for (const length of [0, 16, 31, 33, 64]) {
      expect(() => deriveSubkeys({ generation: 1, bytes: new Uint8Array(length) })).toThrow(
        `expected a token key of 32 bytes, got ${length}`,
      );
    }
  });

  test("derives subkeys that share nothing with each other, with it, or with another's", () => {
    fc.assert(
      fc.property(key, key, (one, other) => {
        fc.pre(Buffer.compare(one, other) !== 0);
        const derived = [one, other].flatMap((bytes) => {
          const { ip, deviceId, verify, check } = deriveSubkeys({ generation: 1, bytes });
          expect([ip, deviceId, verify, check].map((subkey) => subkey.length)).toEqual([
            ...[32, 32, 32, 8],
          ]);
          return [ip, deviceId, verify, check, bytes];
        });
        const starts = derived.map((bytes) => Buffer.from(bytes.subarray(0, 8)).toString("hex"));
        expect(new Set(starts).size).toBe(10);
      }),
    );
  });

  test("is left as it was by what is derived from it", () => {
    const bytes = new Uint8Array(32).fill(9);
    deriveSubkeys({ generation: 1, bytes });
    expect(bytes).toEqual(new Uint8Array(32).fill(9));
  });
});
