import { describe, expect, test } from "bun:test";
import { createHmac, hkdfSync } from "node:crypto";
import fc from "fast-check";
import { DataKeys, type SealingKey } from "../../src/keys/data-keys.ts";
import { generateIdentity } from "../../vault/age.ts";
import { checkProof, unwrapDataKey } from "../../vault/data-key.ts";
import { deriveSubkeys, generateTokenKey } from "../../vault/keys.ts";
import { open, seal } from "../../vault/seal.ts";

const LIMIT = 2 ** 20;
const HOUR = 60 * 60 * 1000;

const tokenKey = generateTokenKey(4);
const subkeys = deriveSubkeys(tokenKey);
const { identity, recipient } = await generateIdentity("classic");

/** Data keys under a clock that stands still until it is set. */
function withClock(start = 1_700_000_000_000) {
  const clock = { now: start };
  return { clock, keys: new DataKeys(subkeys, [recipient], () => clock.now) };
}

const id = ({ dataKey }: SealingKey): string => dataKey.id;

describe("a data key", () => {
  test("is used again while it is young and has seals left", async () => {
    const { clock, keys } = withClock();
    const first = await keys.take(10);
    clock.now += HOUR / 2;
    expect(await keys.take(0)).toBe(first);
    expect(await keys.take(1000)).toBe(first);
  });

  test("makes 2^20 seals and not one more", async () => {
    const { keys } = withClock();
    const first = await keys.take(LIMIT - 1);
    expect(id(await keys.take(1))).toBe(id(first));
    expect(id(await keys.take(0))).toBe(id(first));
    const second = await keys.take(1);
    expect(id(second)).not.toBe(id(first));
    expect(id(await keys.take(LIMIT - 1))).toBe(id(second));
    expect(id(await keys.take(1))).not.toBe(id(second));
  });

  test("is renewed before a batch that it could not seal whole", async () => {
    const { keys } = withClock();
    const first = await keys.take(LIMIT - 10);
    const second = await keys.take(11);
    expect(id(second)).not.toBe(id(first));
    expect(id(await keys.take(LIMIT - 11))).toBe(id(second));
  });

  test("is renewed within an hour", async () => {
    for (const age of [HOUR, HOUR + 1, 24 * HOUR, 365 * 24 * HOUR]) {
      const { clock, keys } = withClock();
      const first = await keys.take(1);
      clock.now += age;
      const second = await keys.take(1);
      expect(id(second)).not.toBe(id(first));
      expect(await keys.take(1)).toBe(second);
    }
  });

  test("has an hour of its own, however late it was made", async () => {
    const { clock, keys } = withClock();
    await keys.take(1);
    clock.now += 5 * HOUR;
    const second = await keys.take(1);
    clock.now += HOUR / 2;
    expect(await keys.take(1)).toBe(second);
    clock.now += HOUR / 2;
    expect(id(await keys.take(1))).not.toBe(id(second));
  });

  test("is renewed when the clock was set back", async () => {
    const { clock, keys } = withClock();
    const first = await keys.take(1);
    clock.now -= 1;
    const second = await keys.take(1);
    expect(id(second)).not.toBe(id(first));
    expect(await keys.take(1)).toBe(second);
  });

  test("is another one in every process", async () => {
    const [one, other] = [withClock().keys, withClock().keys];
    const [a, b] = [await one.take(1), await other.take(1)];
    expect(id(a)).not.toBe(id(b));
    expect(a.dataKey.bytes).not.toEqual(b.dataKey.bytes);
  });

  test("never seals more, or lives longer, than it may", async () => {
    const step = fc.record({
      seals: fc.oneof(fc.nat(2000), fc.nat(LIMIT)),
      wait: fc.oneof(fc.nat(HOUR / 4), fc.nat(2 * HOUR), fc.integer({ min: -HOUR, max: 0 })),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const { clock, keys } = withClock();
        const used = new Map<string, { seals: number; since: number }>();
        let previous: string | null = null;
        for (const { seals, wait } of steps) {
          clock.now += wait;
          const key = id(await keys.take(seals));
          // Once replaced, it does not come back.
          if (key !== previous) expect(used.has(key)).toBe(false);
          previous = key;
          const use = used.get(key) ?? { seals: 0, since: clock.now };
          used.set(key, { ...use, seals: use.seals + seals });
          expect(use.seals + seals).toBeLessThanOrEqual(LIMIT);
          expect(clock.now - use.since).toBeLessThan(HOUR);
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe("a wrapped data key", () => {
  test("opens with the identity to the very key that seals", async () => {
    const { dataKey, wrapped } = await withClock().keys.take(1);
    const place = { kind: "original", token: "t" } as const;
    const sealed = seal(dataKey.bytes, place, "203.0.113.7");
    const bytes = await unwrapDataKey(wrapped.wrapped, [identity]);
    expect(bytes).toEqual(dataKey.bytes);
    expect(open(bytes!, place, sealed)).toBe("203.0.113.7");
  });

  test("opens with no other identity, and holds no byte of the key in the clear", async () => {
    const { dataKey, wrapped } = await withClock().keys.take(1);
    const other = await generateIdentity("classic");
    expect(await unwrapDataKey(wrapped.wrapped, [other.identity])).toBeNull();
    expect(Buffer.from(wrapped.wrapped).includes(dataKey.bytes)).toBe(false);
  });

  test("names its generation, id and recipients, and carries a proof that holds", async () => {
    const { dataKey, wrapped } = await withClock().keys.take(1);
    expect(wrapped).toMatchObject({ id: dataKey.id, generation: 4, recipients: [recipient] });
    expect(dataKey.generation).toBe(4);
    expect(checkProof(subkeys.verify, wrapped.id, dataKey.bytes, wrapped.proof)).toBe(true);
    const verify = Buffer.from(hkdfSync("sha256", tokenKey.bytes, "", "veil/v1/data-key", 32));
    const proof = createHmac("sha256", verify)
      .update(Buffer.from(wrapped.id.replaceAll("-", ""), "hex"))
      .update(dataKey.bytes)
      .digest();
    expect(Buffer.from(wrapped.proof)).toEqual(proof);
  });

  test("has a proof that another key, id or verify key does not share", async () => {
    const { keys } = withClock();
    const [a, b] = [await keys.take(LIMIT), await keys.take(LIMIT)];
    const { verify } = deriveSubkeys(generateTokenKey(4));
    expect(checkProof(subkeys.verify, a.wrapped.id, b.dataKey.bytes, a.wrapped.proof)).toBe(false);
    expect(checkProof(subkeys.verify, b.wrapped.id, a.dataKey.bytes, a.wrapped.proof)).toBe(false);
    expect(checkProof(verify, a.wrapped.id, a.dataKey.bytes, a.wrapped.proof)).toBe(false);
  });

  test.each(["classic", "post-quantum"] as const)(
    "opens for each of several %s recipients",
    async (kind) => {
      const pairs = await Promise.all([1, 2, 3].map(() => generateIdentity(kind)));
      const recipients = pairs.map((pair) => pair.recipient);
      const { dataKey, wrapped } = await new DataKeys(subkeys, recipients).take(1);
      expect(wrapped.recipients).toEqual(recipients);
      for (const pair of pairs) {
        expect(await unwrapDataKey(wrapped.wrapped, [pair.identity])).toEqual(dataKey.bytes);
      }
      expect(await unwrapDataKey(wrapped.wrapped, [identity])).toBeNull();
      expect(await unwrapDataKey(wrapped.wrapped, [identity, pairs[2]!.identity])).toEqual(
        dataKey.bytes,
      );
    },
  );
});
