import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Field } from "../../vault/canonical.ts";
import { deriveSubkeys, type Subkeys } from "../../vault/keys.ts";
import { makeToken, parseToken } from "../../vault/token.ts";
import * as independent from "../vectors/independent.ts";

const TOKEN = /^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$/;

const field = fc.constantFrom<Field>("ip", "device_id");
const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
const generation = fc.oneof(
  fc.integer({ min: 1, max: 3 }),
  fc.integer({ min: 1, max: 2 ** 31 - 1 }),
);
const text = fc.string({ unit: "binary" });

const subkeysOf = (bytes: Uint8Array, of = 1): Subkeys => deriveSubkeys({ generation: of, bytes });
const subkeys = subkeysOf(new Uint8Array(32).fill(7));

describe("a token", () => {
  test("is written as the design says, and names its field and generation", () => {
    fc.assert(
      fc.property(key, generation, field, text, (bytes, of, name, value) => {
        const token = makeToken(subkeysOf(bytes, of), name, value);
        expect(token).toMatch(TOKEN);
        expect(token).toStartWith(name === "ip" ? `ip${of}_` : `dev${of}_`);
        expect(parseToken(token)).toEqual({ field: name, generation: of });
      }),
    );
  });

  test("is what node:crypto makes of the same key and value", () => {
    fc.assert(
      fc.property(key, generation, field, text, (bytes, of, name, value) => {
        const expected = independent.makeToken(bytes, of, name, value);
        expect(makeToken(subkeysOf(bytes, of), name, value)).toBe(expected);
      }),
    );
  });

  test("is the same for every spelling of an address", () => {
    const tokens = [
      ...["2001:db8::1", "2001:DB8::1", "2001:db8:0:0:0:0:0:1", "2001:0db8::0.0.0.1"],
      "2001:0db8:0000:0000:0000:0000:0000:0001",
    ].map((value) => makeToken(subkeys, "ip", value));
    expect(new Set(tokens).size).toBe(1);
    const mapped = ["192.0.2.1", "::ffff:192.0.2.1", "::FFFF:C000:201", "0:0:0:0:0:ffff:c000:0201"];
    expect(new Set(mapped.map((value) => makeToken(subkeys, "ip", value))).size).toBe(1);
  });

  test("of two different texts is two tokens", () => {
    fc.assert(
      fc.property(field, text, text, (name, one, other) => {
        fc.pre(one !== other);
        expect(makeToken(subkeys, name, one)).not.toBe(makeToken(subkeys, name, other));
      }),
    );
  });

  test("of two fields, generations or keys has nothing in common but its prefix", () => {
    const body = (token: string) => token.split("_")[1];
    fc.assert(
      fc.property(key, key, text, (one, other, value) => {
        fc.pre(Buffer.compare(one, other) !== 0);
        const made = [
          makeToken(subkeysOf(one), "ip", value),
          makeToken(subkeysOf(one), "device_id", value),
          makeToken(subkeysOf(other), "ip", value),
          makeToken(subkeysOf(other, 2), "device_id", value),
        ];
        expect(new Set(made.map(body)).size).toBe(4);
        // The generation stands in the prefix alone: it is the key that makes the difference.
        const renamed = makeToken(subkeysOf(one, 2), "ip", value);
        expect(renamed).not.toBe(made[0]);
        expect(body(renamed)).toBe(body(made[0]!));
      }),
    );
  });

  test("of a device id that is written as an address is not that address's token", () => {
    const [ip, device] = (["ip", "device_id"] as const).map((name) =>
      makeToken(subkeys, name, "192.0.2.1").replace(/^.*_/, ""),
    );
    expect(ip).not.toBe(device);
    const respelled = makeToken(subkeys, "device_id", "::ffff:192.0.2.1");
    expect(makeToken(subkeys, "device_id", "192.0.2.1")).not.toBe(respelled);
  });

  test("does not exist for a lone surrogate", () => {
    for (const name of ["ip", "device_id"] as const) {
      expect(() => makeToken(subkeys, name, "\ud800")).toThrow("lone surrogate");
      expect(() => makeToken(subkeys, name, "192.0.2.1\udc00")).toThrow("lone surrogate");
    }
  });
});

describe("reading a token", () => {
  test("accepts what the design's pattern accepts, and nothing else", () => {
    const nearly = fc
      .tuple(text, fc.nat(40), fc.string({ unit: "grapheme", maxLength: 2 }), fc.nat(2))
      .map(([value, at, inserted, removed]) => {
        const token = makeToken(subkeys, "ip", value);
        return token.slice(0, at) + inserted + token.slice(at + removed);
      });
    let accepted = 0;
    fc.assert(
      fc.property(fc.oneof(nearly, text), (candidate) => {
        const matches = TOKEN.test(candidate);
        if (matches) accepted++;
        expect(parseToken(candidate) !== null).toBe(matches);
      }),
      { numRuns: 2000, seed: 32 },
    );
    expect(accepted).toBeGreaterThan(50);
  });

  test("accepts eight of 32 last characters: the others have bits that no token has", () => {
    const token = makeToken(subkeys, "ip", "192.0.2.1");
    const accepted = Array.from("abcdefghijklmnopqrstuvwxyz234567").filter(
      (last) => parseToken(token.slice(0, -1) + last) !== null,
    );
    expect(accepted.join("")).toBe("aeimquy4");
  });
});
