import { beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type AgeKind, generateIdentity } from "../../vault/age.ts";
import {
  checkProof,
  generateDataKey,
  proveDataKey,
  unwrapDataKey,
  wrapDataKey,
} from "../../vault/data-key.ts";
import { encodeBech32 } from "../vectors/bech32.ts";

const KINDS = ["classic", "post-quantum"] as const satisfies readonly AgeKind[];
const VERIFY_KEY = new Uint8Array(32).fill(5);

type Pair = Awaited<ReturnType<typeof generateIdentity>>;
const pairs: Record<AgeKind, Pair[]> = { classic: [], "post-quantum": [] };
beforeAll(async () => {
  for (const kind of KINDS) {
    for (let i = 0; i < 4; i++) pairs[kind].push(await generateIdentity(kind));
  }
});

describe("a data key", () => {
  test("is random, of 32 bytes, and has an id of its own", () => {
    const keys = Array.from({ length: 100 }, () => generateDataKey(3));
    expect(new Set(keys.map(({ id }) => id)).size).toBe(100);
    expect(new Set(keys.map(({ bytes }) => Buffer.from(bytes).toString("hex"))).size).toBe(100);
    expect(keys.every((key) => key.bytes.length === 32 && key.generation === 3)).toBe(true);
  });
});

for (const kind of KINDS) {
  describe(`a wrapped data key, ${kind}`, () => {
    test("carries id, generation, recipients and a proof that holds, and not the key", async () => {
      const dataKey = generateDataKey(4);
      const recipients = pairs[kind].map(({ recipient }) => recipient);
      const wrapped = await wrapDataKey(dataKey, recipients, VERIFY_KEY);
      expect(wrapped).toMatchObject({ id: dataKey.id, generation: 4, recipients });
      expect(checkProof(VERIFY_KEY, dataKey.id, dataKey.bytes, wrapped.proof)).toBe(true);
      expect(Buffer.from(wrapped.wrapped).includes(dataKey.bytes)).toBe(false);
      // Binary, as the age tool writes it without --armor.
      expect(Buffer.from(wrapped.wrapped).toString("latin1")).toStartWith(
        "age-encryption.org/v1\n",
      );
    });

    test("opens with the identity of each of its recipients, and with no other", async () => {
      const dataKey = generateDataKey(1);
      const [stranger, ...holders] = pairs[kind] as [Pair, ...Pair[]];
      const recipients = holders.map(({ recipient }) => recipient);
      const { wrapped } = await wrapDataKey(dataKey, recipients, VERIFY_KEY);
      for (const { identity } of holders) {
        expect(await unwrapDataKey(wrapped, [identity])).toEqual(dataKey.bytes);
        expect(await unwrapDataKey(wrapped, [stranger.identity, identity])).toEqual(dataKey.bytes);
      }
      expect(await unwrapDataKey(wrapped, [stranger.identity])).toBeNull();
      const otherKind = kind === "classic" ? "post-quantum" : "classic";
      const others = pairs[otherKind].map(({ identity }) => identity);
      expect(await unwrapDataKey(wrapped, others)).toBeNull();
      expect(await unwrapDataKey(wrapped, [])).toBeNull();
    });

    test("is another file each time, of the same key", async () => {
      const dataKey = generateDataKey(1);
      const { recipient, identity } = pairs[kind][0]!;
      const one = await wrapDataKey(dataKey, [recipient], VERIFY_KEY);
      const two = await wrapDataKey(dataKey, [recipient], VERIFY_KEY);
      expect(one.wrapped).not.toEqual(two.wrapped);
      expect(one.proof).toEqual(two.proof);
      expect(await unwrapDataKey(two.wrapped, [identity])).toEqual(dataKey.bytes);
    });

    test("does not open with a byte changed, missing or added", async () => {
      const { recipient, identity } = pairs[kind][0]!;
      const { wrapped } = await wrapDataKey(generateDataKey(1), [recipient], VERIFY_KEY);
      expect(await unwrapDataKey(wrapped, [identity])).not.toBeNull();
      // Of a post-quantum file's 1,500 bytes of encapsulated key, every 37th.
      const step = kind === "classic" ? 1 : 37;
      for (let at = 0; at < wrapped.length; at += step) {
        const changed = wrapped.with(at, wrapped[at]! ^ (1 << (at % 8)));
        expect({ at, opened: await unwrapDataKey(changed, [identity]) }).toEqual({
          at,
          opened: null,
        });
        expect(await unwrapDataKey(wrapped.subarray(0, at), [identity])).toBeNull();
      }
      const longer = new Uint8Array(wrapped.length + 1);
      longer.set(wrapped);
      expect(await unwrapDataKey(longer, [identity])).toBeNull();
    });

    test("of another length than 32 bytes opens to nothing", async () => {
      const { Encrypter } = await import("age-encryption");
      const { recipient, identity } = pairs[kind][0]!;
      for (const length of [0, 16, 31, 32, 33, 64, 70_000]) {
        const encrypter = new Encrypter();
        encrypter.addRecipient(recipient);
        const file = await encrypter.encrypt(new Uint8Array(length).fill(1));
        const opened = await unwrapDataKey(file, [identity]);
        expect({ length, bytes: opened?.length ?? null }).toEqual({
          length,
          bytes: length === 32 ? 32 : null,
        });
      }
    });
  });
}

describe("wrapping", () => {
  test("refuses what is not a recipient, and does not repeat an identity", async () => {
    const { identity, recipient } = pairs.classic[0]!;
    for (const bad of ["", "age1", recipient.toUpperCase(), `${recipient} `, identity]) {
      const error = await wrapDataKey(generateDataKey(1), [recipient, bad], VERIFY_KEY).then(
        () => null,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(Error);
      expect(String(error)).not.toContain(identity.slice(16, 40));
    }
  });

  test("refuses a recipient of a kind that no native identity opens", async () => {
    // P-256's base point: well formed for a hardware tag, which only a plugin opens.
    const point = Buffer.from(
      "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
      "hex",
    );
    const tag = encodeBech32("age1tag", point);
    await expect(wrapDataKey(generateDataKey(1), [tag], VERIFY_KEY)).rejects.toThrow();
  });

  test("refuses to wrap for nobody: nothing that such a key seals could ever be opened", async () => {
    await expect(wrapDataKey(generateDataKey(1), [], VERIFY_KEY)).rejects.toThrow();
  });

  test("refuses a data key that is not of 32 bytes: it would not be unwrapped again", async () => {
    const { recipient } = pairs.classic[0]!;
    const short = { ...generateDataKey(1), bytes: new Uint8Array(31) };
    await expect(wrapDataKey(short, [recipient], VERIFY_KEY)).rejects.toThrow();
  });
});

describe("unwrapping", () => {
  test("gives null for what is not an age file", async () => {
    const identities = [pairs.classic[0]!.identity];
    const armored = "-----BEGIN AGE ENCRYPTED FILE-----\n";
    for (const text of ["", "age", "age-encryption.org/v1\n", "age-encryption.org/v2\n", armored]) {
      expect(await unwrapDataKey(new TextEncoder().encode(text), identities)).toBeNull();
    }
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 500 }), async (noise) => {
        expect(await unwrapDataKey(noise, identities)).toBeNull();
      }),
    );
  });

  test("gives null for a file under a passphrase", async () => {
    const { Encrypter } = await import("age-encryption");
    const encrypter = new Encrypter();
    encrypter.setPassphrase("test");
    encrypter.setScryptWorkFactor(2);
    const file = await encrypter.encrypt(new Uint8Array(32));
    expect(await unwrapDataKey(file, [pairs.classic[0]!.identity])).toBeNull();
  });
});

describe("a proof", () => {
  const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

  test("holds for its key, id and data key, and fails for any other", () => {
    fc.assert(
      fc.property(
        bytes32,
        bytes32,
        fc.uuid(),
        fc.uuid(),
        fc.nat(255),
        (verify, key, id, id2, bit) => {
          fc.pre(id !== id2);
          const flip = (bytes: Uint8Array) =>
            bytes.with(bit >> 3, bytes[bit >> 3]! ^ (1 << (bit & 7)));
          const proof = proveDataKey(verify, id, key);
          expect(proof.length).toBe(32);
          expect(checkProof(verify, id, key, proof)).toBe(true);
          expect(checkProof(flip(verify), id, key, proof)).toBe(false);
          expect(checkProof(verify, id2, key, proof)).toBe(false);
          expect(checkProof(verify, id, flip(key), proof)).toBe(false);
          expect(checkProof(verify, id, key, flip(proof))).toBe(false);
        },
      ),
    );
  });

  test("of any other length fails", () => {
    const { id, bytes } = generateDataKey(1);
    const proof = proveDataKey(VERIFY_KEY, id, bytes);
    for (let length = 0; length < 32; length++) {
      expect(checkProof(VERIFY_KEY, id, bytes, proof.subarray(0, length))).toBe(false);
    }
    expect(checkProof(VERIFY_KEY, id, bytes, Uint8Array.of(...proof, 0))).toBe(false);
  });

  test("is made of a UUID in its canonical spelling only", () => {
    const id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for (const [at, character] of Array.from(id).entries()) {
      const capital = id.slice(0, at) + character.toUpperCase() + id.slice(at + 1);
      if (capital === id) continue;
      expect(() => proveDataKey(VERIFY_KEY, capital, new Uint8Array(32))).toThrow(
        "lower-case UUID",
      );
    }
    for (const bad of [
      ...["", id.toUpperCase(), id.replaceAll("-", ""), `{${id}}`, ` ${id}`, `${id}\n`],
      ...[id.slice(1), `${id}0`, `urn:uuid:${id}`, id.replace("0", "g")],
    ]) {
      expect(() => proveDataKey(VERIFY_KEY, bad, new Uint8Array(32))).toThrow("lower-case UUID");
    }
  });
});
