import { beforeAll, describe, expect, test } from "bun:test";
import { createDecipheriv, createHmac, hkdfSync } from "node:crypto";
import fc from "fast-check";
import { parseMessage } from "../../src/login/parse.ts";
import { maxSeals, type ParsedMessage, type Protected, protect } from "../../src/login/protect.ts";
import { type DataKey, generateDataKey } from "../../vault/data-key.ts";
import { deriveSubkeys, generateTokenKey, type Subkeys } from "../../vault/keys.ts";
import { open } from "../../vault/seal.ts";
import { makeToken } from "../../vault/token.ts";

const GENERATION = 3;
const tokenKey = generateTokenKey(GENERATION);
let subkeys: Subkeys;
let dataKey: DataKey;
beforeAll(() => {
  subkeys = deriveSubkeys(tokenKey);
  dataKey = generateDataKey(GENERATION);
});

const SENT = new Date("2026-02-28T23:59:59.999Z");

let ids = 0;
const message = (content: unknown): ParsedMessage => {
  const body = typeof content === "string" ? content : JSON.stringify(content);
  return { id: `message-${ids++}`, body, sentAt: SENT, parsed: parseMessage(body) };
};
const run = (...contents: unknown[]): Protected => protect(contents.map(message), subkeys, dataKey);

// The formats of the design once more, on node:crypto.

function base32(bytes: Buffer): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return bits
    .replace(/.{1,5}/g, (five) => `${five.padEnd(5, "0")} `)
    .trim()
    .split(" ")
    .map((five) => "abcdefghijklmnopqrstuvwxyz234567".charAt(Number.parseInt(five, 2)))
    .join("");
}

/** Reads addresses that are known to be addresses: digits and dots, or whatever holds a colon. */
function referenceCanonical(field: "ip" | "device_id", text: string): Buffer {
  if (field === "device_id") return Buffer.from(text);
  if (/^(\d+\.){3}\d+$/.test(text)) return Buffer.from([0x34, ...text.split(".").map(Number)]);
  if (!text.includes(":")) return Buffer.concat([Buffer.of(0x30), Buffer.from(text)]);
  const dotted = /(\d+)\.(\d+)\.(\d+)\.(\d+)$/;
  const pair = (a: string, b: string) => (Number(a) * 256 + Number(b)).toString(16);
  const plain = text.replace(dotted, (_, a, b, c, d) => `${pair(a, b)}:${pair(c, d)}`);
  const [left = [], right = []] = plain
    .split("::")
    .map((half) => half.split(":").filter((group) => group !== ""));
  const zeros = Array<string>(8 - left.length - right.length).fill("0");
  const hex = [...left, ...zeros, ...right].map((group) => group.padStart(4, "0")).join("");
  const mapped = /^0{20}ffff(.{8})$/i.exec(hex)?.[1];
  return Buffer.from(mapped === undefined ? `36${hex}` : `34${mapped}`, "hex");
}

function referenceToken(field: "ip" | "device_id", text: string): string {
  const info = `veil/v1/token/${field}`;
  const subkey = hkdfSync("sha256", tokenKey.bytes, "", info, 32);
  const mac = createHmac("sha256", Buffer.from(subkey)).update(referenceCanonical(field, text));
  return `${field === "ip" ? "ip" : "dev"}${GENERATION}_${base32(mac.digest().subarray(0, 16))}`;
}

/** Throws where the seal was not made for this place under this key. */
function referenceOpen(place: string, sealed: Uint8Array): string {
  const decipher = createDecipheriv("aes-256-gcm", dataKey.bytes, sealed.subarray(0, 12));
  decipher.setAAD(Buffer.from(place));
  decipher.setAuthTag(sealed.subarray(-16));
  const padded = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  expect(padded.length % 16).toBe(0);
  const end = padded.lastIndexOf(0x80);
  expect([...padded.subarray(end + 1)].every((byte) => byte === 0)).toBe(true);
  return padded.subarray(0, end).toString("utf8");
}

describe("a row", () => {
  test("has tokens in place of personal values and everything else as it was", () => {
    const { rows, rejected } = run({
      user_id: "u1",
      app_version: "2.3.0",
      device_type: "ios",
      ip: "203.0.113.7",
      locale: "de",
      device_id: "593-47-5928",
    });
    expect(rejected).toEqual([]);
    expect(rows).toEqual([
      {
        messageId: `message-${ids - 1}`,
        sentAt: SENT,
        userId: "u1",
        deviceType: "ios",
        maskedIp: referenceToken("ip", "203.0.113.7"),
        maskedDeviceId: referenceToken("device_id", "593-47-5928"),
        locale: "de",
        appVersion: 2_003_000,
      },
    ]);
  });

  test("has null where the message has no value, or an empty one", () => {
    const { rows, originals } = run(
      { user_id: "u1" },
      { user_id: "u2", ip: null, device_id: null },
      { user_id: "u3", ip: "", device_id: "" },
    );
    for (const row of rows) {
      expect(row).toMatchObject({ maskedIp: null, maskedDeviceId: null, appVersion: null });
    }
    expect(rows).toHaveLength(3);
    expect(originals.size).toBe(0);
  });

  test("tells an ip from a device id of the same text", () => {
    const { rows, originals } = run({ user_id: "u", ip: "203.0.113.7", device_id: "203.0.113.7" });
    expect(rows[0]?.maskedIp).toStartWith(`ip${GENERATION}_`);
    expect(rows[0]?.maskedDeviceId).toStartWith(`dev${GENERATION}_`);
    expect(originals.size).toBe(2);
  });

  test("stands in the order of its messages, one each", () => {
    const { rows, rejected } = run(
      { user_id: "a" },
      "no JSON",
      { user_id: "b" },
      {},
      {
        user_id: "a",
      },
    );
    expect(rows.map((row) => row.userId)).toEqual(["a", "b", "a"]);
    expect(rejected).toHaveLength(2);
  });
});

describe("originals", () => {
  test("open at their token, and there only", () => {
    const { rows, originals } = run({ user_id: "u", ip: "2001:DB8::1", device_id: "Ä-🤖" });
    const { maskedIp, maskedDeviceId } = rows[0]!;
    expect([...originals.keys()].sort()).toEqual([maskedDeviceId!, maskedIp!].sort());
    const sealed = originals.get(maskedIp!)!;
    expect(open(dataKey.bytes, { kind: "original", token: maskedIp! }, sealed)).toBe("2001:DB8::1");
    expect(open(dataKey.bytes, { kind: "original", token: maskedDeviceId! }, sealed)).toBeNull();
    expect(open(dataKey.bytes, { kind: "quarantine", messageId: maskedIp! }, sealed)).toBeNull();
    expect(open(generateDataKey(1).bytes, { kind: "original", token: maskedIp! }, sealed)).toBe(
      null,
    );
    expect(
      open(
        dataKey.bytes,
        { kind: "original", token: maskedDeviceId! },
        originals.get(maskedDeviceId!)!,
      ),
    ).toBe("Ä-🤖");
  });

  test("are sealed once for each distinct token of a batch", () => {
    const login = { user_id: "u", ip: "203.0.113.7", device_id: "d" };
    const { rows, originals } = run(login, login, { ...login, device_id: "D" }, login);
    expect(rows).toHaveLength(4);
    expect(originals.size).toBe(3);
    expect(new Set(rows.map((row) => row.maskedIp)).size).toBe(1);
  });

  test("keep the first spelling of an address", () => {
    const spellings = [
      "::FFFF:203.0.113.7",
      "203.0.113.7",
      "::ffff:cb00:7107",
      "0:0:0:0:0:ffff:cb00:7107",
    ];
    for (const first of spellings) {
      const rest = spellings.filter((spelling) => spelling !== first);
      const { rows, originals } = run(...[first, ...rest].map((ip) => ({ user_id: "u", ip })));
      const [token = ""] = new Set(rows.map((row) => row.maskedIp));
      expect(originals.size).toBe(1);
      const sealed = originals.get(token!)!;
      expect(open(dataKey.bytes, { kind: "original", token: token! }, sealed)).toBe(first);
    }
  });

  test("keep what only looks like an address as it is", () => {
    const texts = ["010.1.1.1", "10.1.1.1", " 10.1.1.1", "fe80::1%eth0", "fe80::1", "example.org"];
    const { rows, originals } = run(...texts.map((ip) => ({ user_id: "u", ip })));
    expect(originals.size).toBe(texts.length);
    for (const [i, text] of texts.entries()) {
      const token = rows[i]!.maskedIp!;
      expect(open(dataKey.bytes, { kind: "original", token }, originals.get(token)!)).toBe(text);
    }
  });

  test("have a nonce of their own in every batch", () => {
    const login = { user_id: "u", ip: "203.0.113.7" };
    const seals = Array.from({ length: 20 }, () => [...run(login).originals.values()][0]!);
    expect(
      new Set(seals.map((sealed) => Buffer.from(sealed.subarray(0, 12)).toString("hex"))).size,
    ).toBe(20);
    expect(new Set(seals.map((sealed) => Buffer.from(sealed).toString("hex"))).size).toBe(20);
  });
});

describe("a message that cannot become a row", () => {
  test("is sealed whole, at its own id", () => {
    const bodies = ["", "no JSON", '{"user_id":7,"ip":"203.0.113.7"}', "x".repeat(2 ** 20), "\0"];
    const messages = bodies.map(message);
    const { rows, originals, rejected } = protect(messages, subkeys, dataKey);
    expect(rows).toEqual([]);
    expect(originals.size).toBe(0);
    for (const [i, { messageId, sentAt, reason, sealed }] of rejected.entries()) {
      const { id, parsed } = messages[i]!;
      expect(messageId).toBe(id);
      expect(sentAt).toEqual(SENT);
      expect(parsed).toEqual({ kind: "rejected", reason });
      const place = { kind: "quarantine", messageId } as const;
      expect(open(dataKey.bytes, place, sealed)).toBe(bodies[i]!);
      expect(open(dataKey.bytes, { ...place, messageId: "other" }, sealed)).toBeNull();
      expect(open(dataKey.bytes, { kind: "original", token: messageId }, sealed)).toBeNull();
      expect(referenceOpen(`veil/v1/quarantine\0${messageId}`, sealed)).toBe(bodies[i]!);
    }
    expect(rejected).toHaveLength(bodies.length);
  });

  test("is kept although it holds what UTF-8 cannot", () => {
    const { rejected } = run("broken \ud800 body");
    const { messageId, sealed } = rejected[0]!;
    expect(open(dataKey.bytes, { kind: "quarantine", messageId }, sealed)).toBe(
      "broken \ufffd body",
    );
  });

  test("does not touch its neighbours", () => {
    const good = [
      { user_id: "a", ip: "203.0.113.7" },
      { user_id: "b", device_id: "d" },
    ];
    const alone = run(...good);
    const among = run("{", good[0], { user_id: 1, ip: "203.0.113.8" }, good[1], "[]");
    const masked = ({ rows }: Protected) =>
      rows.map((row) => [row.userId, row.maskedIp, row.maskedDeviceId]);
    expect(masked(among)).toEqual(masked(alone));
    expect([...among.originals.keys()]).toEqual([...alone.originals.keys()]);
  });
});

test("no messages are an empty batch", () => {
  expect(run()).toEqual({ rows: [], originals: new Map(), rejected: [] });
});

const ip = fc.oneof(
  fc.ipV4(),
  fc.ipV6(),
  fc.ipV6().map((text) => text.toUpperCase()),
  fc.ipV4().map((text) => `::ffff:${text}`),
  fc.constantFrom("::", "::1", "203.0.113.7", "::ffff:203.0.113.7", "example.org", "x y"),
);
const deviceId = fc.oneof(
  fc.constantFrom("a", "A", "a "),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 }).filter((s) => !s.includes("\0")),
);
const value = (arbitrary: fc.Arbitrary<string>) => fc.option(arbitrary, { nil: null });
const batch = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({ user_id: fc.uuid(), ip: value(ip), device_id: value(deviceId) }),
    },
    { weight: 1, arbitrary: fc.record({ ip: value(ip), device_id: value(deviceId) }) },
  ),
  { maxLength: 12 },
);

describe("for any batch", () => {
  test("tokens and seals are those of an independent computation", () => {
    fc.assert(
      fc.property(batch, (contents) => {
        const { rows, originals, rejected } = run(...contents);
        const logins = contents.filter((content) => "user_id" in content);
        const expected = new Map<string, string>();
        for (const [i, { ip, device_id }] of logins.entries()) {
          const maskedIp = ip === null ? null : referenceToken("ip", ip);
          const maskedDeviceId = device_id === null ? null : referenceToken("device_id", device_id);
          expect(rows[i]).toMatchObject({ maskedIp, maskedDeviceId });
          if (maskedIp !== null && !expected.has(maskedIp)) expected.set(maskedIp, ip!);
          if (maskedDeviceId !== null && !expected.has(maskedDeviceId)) {
            expected.set(maskedDeviceId, device_id!);
          }
        }
        expect(rows).toHaveLength(logins.length);
        expect([...originals.keys()].sort()).toEqual([...expected.keys()].sort());
        for (const [token, sealed] of originals) {
          expect(referenceOpen(`veil/v1/original\0${token}`, sealed)).toBe(expected.get(token)!);
        }
        expect(rejected).toHaveLength(contents.length - logins.length);
      }),
      { numRuns: 300 },
    );
  });

  test("there are never more seals than were reserved for it", () => {
    fc.assert(
      fc.property(batch, (contents) => {
        const { originals, rejected } = run(...contents);
        expect(originals.size + rejected.length).toBeLessThanOrEqual(maxSeals(contents.length));
      }),
    );
    const distinct = Array.from({ length: 50 }, (_, i) => ({
      user_id: "u",
      ip: `10.0.0.${i}`,
      device_id: `d${i}`,
    }));
    expect(run(...distinct).originals.size).toBe(maxSeals(50));
  });

  test("no personal value stands anywhere in the result", () => {
    const canary = fc.uuid().map((id) => `kanarienvogel-${id}`);
    const login = fc.record({ user_id: fc.constant("u"), ip: canary, device_id: canary });
    const broken = canary.map((text) => `{"user_id":{},"ip":"${text}`);
    fc.assert(
      fc.property(fc.array(fc.oneof(login, broken), { minLength: 1, maxLength: 5 }), (contents) => {
        const result = run(...contents);
        const bytes: Uint8Array[] = [];
        const json = JSON.stringify(result, (_, part: unknown) => {
          if (part instanceof Map) return [...part];
          if (part instanceof Uint8Array) bytes.push(part);
          return part;
        });
        expect(bytes).toHaveLength(result.originals.size + result.rejected.length);
        const everything = json + bytes.map((part) => Buffer.from(part).toString("latin1")).join();
        expect(everything).not.toContain("kanarienvogel");
      }),
    );
  });
});

test("an original that is known is not sealed, and its row has its token all the same", () => {
  const login = { user_id: "u", ip: "203.0.113.7", device_id: "593-47-5928" };
  const ip = makeToken(subkeys, "ip", login.ip);
  const { rows, originals } = protect([message(login)], subkeys, dataKey, {
    isKnown: (token) => token === ip,
  });
  expect(rows[0]!.maskedIp).toBe(ip);
  expect([...originals.keys()]).toEqual([rows[0]!.maskedDeviceId!]);
});
