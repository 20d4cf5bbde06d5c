// Writes the vectors: `bun run vectors`. Everything but wrapped.json comes out the same every time;
// that file is random by nature and is kept unless `--new-wrapped` asks for another one.
import { createHash } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type AgeKind, identityRecipients } from "../../vault/age.ts";
import { type AuditEntry, chainHash, entryBytes, genesisHash } from "../../vault/audit.ts";
import { canonicalBytes, type Field } from "../../vault/canonical.ts";
import {
  type AuditKey,
  type Checkpoint,
  checkpointBytes,
  formatAuditKey,
  publicKey,
  signCheckpoint,
} from "../../vault/checkpoint.ts";
import { proveDataKey, wrapDataKey } from "../../vault/data-key.ts";
import { deriveSubkeys, formatKey, type GenerationKey } from "../../vault/keys.ts";
import { type Place, seal } from "../../vault/seal.ts";
import { makeToken } from "../../vault/token.ts";
import { BECH32M, encodeBech32, encodeWords, toWords, wordsOf } from "./bech32.ts";
import { additionalData, encrypt, pad } from "./independent.ts";
import type {
  AuditVectors,
  CanonicalVectors,
  KeyLineVectors,
  KeyVectors,
  ProofVectors,
  RecipientVectors,
  SealVectors,
  TokenVectors,
  WrappedVectors,
} from "./vectors.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
/** Thirty-two bytes that anybody can recompute from what they are called. */
const named = (name: string): Uint8Array =>
  new Uint8Array(createHash("sha256").update(name).digest());

const counting = Uint8Array.from({ length: 32 }, (_, i) => i);

const TOKEN_KEYS: readonly GenerationKey[] = [
  { generation: 1, bytes: counting },
  { generation: 2, bytes: named("veil test vectors: token key 2") },
  { generation: 10, bytes: named("veil test vectors: token key 10") },
  { generation: 2147483647, bytes: named("veil test vectors: token key 2147483647") },
  { generation: 1, bytes: new Uint8Array(32) },
  { generation: 1, bytes: new Uint8Array(32).fill(0xff) },
];
const DATA_KEY = named("veil test vectors: data key");
const OTHER_DATA_KEY = named("veil test vectors: another data key");
const DATA_KEY_ID = "0f8fad5b-d9cb-469f-a165-70867728950e";

function keyVectors(): KeyVectors {
  return {
    about: "token key -> subkeys: HKDF-SHA-256, no salt, the label as info; bytes in hex",
    keys: TOKEN_KEYS.map((key) => {
      const subkeys = deriveSubkeys(key);
      return {
        generation: key.generation,
        tokenKey: hex(key.bytes),
        subkeys: {
          "veil/v1/token/ip": hex(subkeys.ip),
          "veil/v1/token/device_id": hex(subkeys.deviceId),
          "veil/v1/data-key": hex(subkeys.verify),
          "veil/v1/key-check": hex(subkeys.check),
        },
      };
    }),
  };
}

const IPV4 = ["0.0.0.0", "8.8.8.8", "10.1.1.1", "192.0.2.1", "203.0.113.7", "255.255.255.255"];

const IPV6 = [
  ...["::", "0:0:0:0:0:0:0:0", "0000:0000:0000:0000:0000:0000:0000:0000", "::0", "0::"],
  ...["::1", "0:0:0:0:0:0:0:1", "0::1", "::0001"],
  ...["2001:db8::1", "2001:DB8::1", "2001:dB8::0001", "2001:db8:0:0:0:0:0:1", "2001:db8::0:1"],
  ...["2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8:0:0::1", "2001:db8:0::0:0:1"],
  ...["2001:db8::1:0:0:1", "2001:db8:0:0:1::1"],
  ...["ABCD:EF01:2345:6789:ABCD:EF01:2345:6789", "abcd:ef01:2345:6789:abcd:ef01:2345:6789"],
  ...["FF01::101", "fe80::", "1::8", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
  // "::" for a single group of zeros, at either end and in the middle.
  ...["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0", "::2:3:4:5:6:7:8", "1:2:3::5:6:7:8"],
  // The last four bytes in dotted decimal, and the same address without.
  ...["::1.2.3.4", "::102:304", "64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
  ...["1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304", "1:2:3:4:5::1.2.3.4", "ffff::1.2.3.4"],
  "0000:0000:0000:0000:0000:0000:255.255.255.255",
  // Close to mapped, and not mapped.
  ...["::fffe:1.2.3.4", "::ffff:0:1.2.3.4", "::1:ffff:1.2.3.4", "1::ffff:1.2.3.4"],
  ...["::ff:1.2.3.4", "::ff00:1.2.3.4", "::ffff"],
];

const MAPPED = [
  ...["::ffff:192.0.2.1", "::FFFF:192.0.2.1", "::ffff:c000:201", "::FFFF:C000:0201"],
  ...["0:0:0:0:0:ffff:192.0.2.1", "0000:0000:0000:0000:0000:FFFF:C000:0201"],
  ...["0::ffff:192.0.2.1", "::0:ffff:192.0.2.1", "::ffff:0.0.0.0", "::ffff:0:0"],
];

const TEXT_IPS = [
  ...["", "localhost", "host.example.com", "unknown", "-", "null"],
  // Other notations of IPv4: programs do not agree on what they mean.
  ...["010.1.1.1", "1.1.1.01", "00.0.0.0", "0x7f.0.0.1", "127.1", "2130706433", "0x7f000001"],
  ...["256.1.1.1", "1.1.1.1000", "1.2.3", "1.2.3.4.5", "1.2.3.4.", ".1.2.3.4", "1..2.3", "..."],
  ...["-1.2.3.4", "+1.2.3.4", "1e1.2.3.4", "1,2,3,4", "192.0.2.1, 198.51.100.2"],
  ...["192.0.2.1:443", "[::1]", "[2001:db8::1]:443", "[192.0.2.1]"],
  ...["fe80::1%eth0", "fe80::1%25eth0", "::1%", "192.0.2.0/24", "2001:db8::/32"],
  ...[" 192.0.2.1", "192.0.2.1 ", "192.0.2.1\n", "\t::1", "::1 ", "::1\r\n", "2001:db8:: 1"],
  ...["1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "1:2:3:4:5:6:7"],
  ...[
    "1:2:3:4:5:6:7:8:9",
    "1::2::3",
    "1:2:3:4:5:6:7:8::9::a",
    ":::",
    "::::",
    ":",
    "1:",
    ":1",
    "1:2:3:4:5:6:7:",
  ],
  ...[":1:2:3:4:5:6:7", ":::1", "1:::", "12345::", "00001::", "g::", "0x1::", "-1::"],
  ...["1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4", "::1.2.3", "::1.2.3.4.5", "1.2.3.4::"],
  ...["1:2:3:4:5:6:7:8:1.2.3.4", "::1.2.3.4:5", "1.2.3.4:5::", "::ffff:010.1.1.1"],
  ...["::ffff:256.1.1.1", "::ffff:1.2.3.4 ", "::1.2.3.4::"],
  // Digits and dots of other scripts: they look like an address and are none.
  ...["\uff11.2.3.4", "\u0661.2.3.4", "192\u30020\u30022\u30021", "::\uff11", "2001\uff1adb8::1"],
  // Texts that hold the canonical bytes of an address.
  ...["4\u0001\u0002\u0003\u0004", "00", "1.2.3.4\u0000", "\ufeff192.0.2.1"],
];

const DEVICE_IDS = [
  ...["", "a", "A", " a ", "0", "192.0.2.1", "::1"],
  ...["6f4be6a4-9c5b-4f3e-9d6d-0d3f5f4c9b1a", "6F4BE6A4-9C5B-4F3E-9D6D-0D3F5F4C9B1A"],
  // The same letters composed (NFC) and decomposed (NFD), and compatibility forms: all distinct.
  ...["Zo\u00eb", "Zoe\u0308", "\u212b", "\u00c5", "A\u030a", "\ufb01", "fi"],
  ...["\u0000", "a\u0000b", "\u007f", "\u0080", "\u07ff", "\u0800", "\uffff", "\u{10000}"],
  ...["\u{10ffff}", "\u{1f4f1}", "\u{1f468}\u200d\u{1f469}\u200d\u{1f467}", "\ufeffid", "\ufffd"],
  "d".repeat(1024),
];

const LONE_SURROGATES = [
  { why: "a high surrogate alone", value: "\ud800" },
  { why: "a low surrogate alone", value: "\udfff" },
  { why: "a high surrogate at the end", value: "a\ud83d" },
  { why: "a high surrogate before another character", value: "\ud83da" },
  { why: "a pair in the wrong order", value: "\ude00\ud83d" },
  { why: "a pair and one more", value: "\ud83d\ude00\ude00" },
  { why: "an address and a surrogate", value: "192.0.2.1\udc00" },
];

function canonicalVectors(): CanonicalVectors {
  const one = (field: Field) => (value: string) => ({
    field,
    value,
    canonical: hex(canonicalBytes(field, value)),
  });
  return {
    about:
      "value -> canonical bytes in hex; ip: 34 + 4 bytes, 36 + 16 bytes, or 30 + UTF-8; device_id: " +
      "UTF-8. What is rejected has no UTF-8 and no token, in either field",
    accept: [
      ...[...IPV4, ...IPV6, ...MAPPED, ...TEXT_IPS].map(one("ip")),
      ...DEVICE_IDS.map(one("device_id")),
    ],
    reject: LONE_SURROGATES,
  };
}

const TOKENIZED: readonly (readonly [Field, string])[] = [
  ["ip", "192.0.2.1"],
  ["ip", "::ffff:192.0.2.1"],
  ["ip", "2001:db8::1"],
  ["ip", "2001:0DB8:0:0:0:0:0:1"],
  ["ip", "010.1.1.1"],
  ["ip", ""],
  ["device_id", "6f4be6a4-9c5b-4f3e-9d6d-0d3f5f4c9b1a"],
  ["device_id", "192.0.2.1"],
  ["device_id", "Zo\u00eb"],
  ["device_id", "Zoe\u0308"],
  ["device_id", ""],
];

function tokenVectors(): TokenVectors {
  const made = TOKEN_KEYS.flatMap((key) => {
    const subkeys = deriveSubkeys(key);
    return TOKENIZED.map(([field, value]) => ({
      generation: key.generation,
      tokenKey: hex(key.bytes),
      field,
      value,
      token: makeToken(subkeys, field, value),
    }));
  });
  const body = "a".repeat(25);
  return {
    about:
      "token key, generation, field and value -> token; then what is written as a token and what is not: " +
      "^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$",
    tokens: made,
    accept: [
      ...Array.from("aeimquy4", (last) => ({
        text: `ip1_${body}${last}`,
        field: "ip" as const,
        generation: 1,
      })),
      { text: `dev1_${"z".repeat(25)}4`, field: "device_id", generation: 1 },
      { text: "dev1_abcdefghijklmnopqrstuvwxya", field: "device_id", generation: 1 },
      { text: "ip1_z234567z234567z234567z2344", field: "ip", generation: 1 },
      { text: `ip0_${body}a`, field: "ip", generation: 0 },
      { text: `dev0_${body}a`, field: "device_id", generation: 0 },
      { text: `dev10_${body}a`, field: "device_id", generation: 10 },
      { text: `ip2147483647_${body}a`, field: "ip", generation: 2147483647 },
    ],
    reject: [
      { why: "empty", text: "" },
      { why: "no body", text: "ip1_" },
      { why: "no prefix", text: `${body}a` },
      { why: "no generation", text: `ip_${body}a` },
      { why: "no underscore", text: `ip1${body}a` },
      { why: "a hyphen for the underscore", text: `ip1-${body}a` },
      { why: "an unknown field", text: `mac1_${body}a` },
      { why: "the field's long name", text: `device_id1_${body}a` },
      { why: "an upper-case prefix", text: `IP1_${body}a` },
      { why: "an upper-case body", text: `ip1_${body.toUpperCase()}a` },
      { why: "a generation with a leading zero", text: `ip01_${body}a` },
      { why: "a generation of zeros", text: `ip00_${body}a` },
      { why: "a negative generation", text: `ip-1_${body}a` },
      { why: "a generation in other digits", text: `ip\u0661_${body}a` },
      { why: "one character short", text: `ip1_${body.slice(1)}a` },
      { why: "one character long", text: `ip1_${body}aa` },
      { why: "padded", text: `ip1_${body}a======` },
      { why: "the digit 0", text: `ip1_0${body.slice(1)}a` },
      { why: "the digit 1", text: `ip1_1${body.slice(1)}a` },
      { why: "the digit 8", text: `ip1_8${body.slice(1)}a` },
      { why: "the digit 9", text: `ip1_9${body.slice(1)}a` },
      ...Array.from("bcdfghjklnoprstvwxz23567", (last) => ({
        why: "trailing bits that are not zero",
        text: `ip1_${body}${last}`,
      })),
      { why: "a space before", text: ` ip1_${body}a` },
      { why: "a space after", text: `ip1_${body}a ` },
      { why: "a line feed after", text: `ip1_${body}a\n` },
      { why: "a NUL after", text: `ip1_${body}a\u0000` },
      { why: "two tokens", text: `ip1_${body}a,ip1_${body}e` },
      { why: "a letter that folds to k", text: `ip1_\u212a${body.slice(1)}a` },
    ],
  };
}

function keyLineVectors(): KeyLineVectors {
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  const key = base64(counting);
  // 0xfb 0xff … is written with both `+` and `/`, so that the URL-safe alphabet differs.
  const both = Uint8Array.from({ length: 32 }, (_, i) => (i % 2 === 0 ? 0xfb : 0xff));
  const urlSafe = Buffer.from(both).toString("base64url");
  const accept = (line: string, generation: number, bytes: Uint8Array) => ({
    line,
    generation,
    bytes: hex(bytes),
    written: formatKey({ generation, bytes }),
  });
  return {
    about:
      "a key as one line, `N:base64` or plain base64 for generation 1, of exactly 32 bytes; `written` is " +
      "how the same key is always written",
    accept: [
      accept(key, 1, counting),
      accept(`1:${key}`, 1, counting),
      accept(`2:${key}`, 2, counting),
      accept(`10:${key}`, 10, counting),
      accept(`2147483647:${key}`, 2147483647, counting),
      accept(base64(both), 1, both),
      accept(`1:${base64(new Uint8Array(32))}`, 1, new Uint8Array(32)),
      accept(`1:${base64(new Uint8Array(32).fill(0xff))}`, 1, new Uint8Array(32).fill(0xff)),
    ],
    reject: [
      { why: "empty", line: "" },
      { why: "a generation only", line: "1:" },
      { why: "no generation before the colon", line: `:${key}` },
      { why: "no bytes", line: "1:====" },
      { why: "16 bytes", line: `1:${base64(counting.subarray(0, 16))}` },
      { why: "31 bytes", line: `1:${base64(counting.subarray(1))}` },
      { why: "33 bytes", line: `1:${base64(Uint8Array.of(...counting, 32))}` },
      { why: "64 bytes", line: `1:${base64(Uint8Array.of(...counting, ...counting))}` },
      { why: "base64 without padding", line: `1:${key.replace("=", "")}` },
      { why: "padding twice", line: `1:${key}=` },
      { why: "URL-safe base64", line: `1:${urlSafe}=` },
      { why: "URL-safe base64 without padding", line: urlSafe },
      // The last letter before the padding has two bits that no byte takes: they are zero.
      { why: "trailing bits that are not zero", line: `1:${key.replace(/.=$/, "9=")}` },
      { why: "hex", line: `1:${hex(counting)}` },
      { why: "generation 0", line: `0:${key}` },
      { why: "a generation with a leading zero", line: `01:${key}` },
      { why: "generation 2147483648", line: `2147483648:${key}` },
      { why: "generation 9999999999", line: `9999999999:${key}` },
      { why: "generation 10000000000", line: `10000000000:${key}` },
      { why: "generation 2^64 + 1", line: `18446744073709551617:${key}` },
      { why: "a negative generation", line: `-1:${key}` },
      { why: "a signed generation", line: `+1:${key}` },
      { why: "a fraction of a generation", line: `1.0:${key}` },
      { why: "an exponent", line: `1e0:${key}` },
      { why: "a hexadecimal generation", line: `0x1:${key}` },
      { why: "a generation in other digits", line: `\u0661:${key}` },
      { why: "two generations", line: `1:1:${key}` },
      { why: "two colons", line: `1::${key}` },
      { why: "a space before", line: ` 1:${key}` },
      { why: "a space after", line: `1:${key} ` },
      { why: "a space after the colon", line: `1: ${key}` },
      { why: "a line feed after", line: `1:${key}\n` },
      { why: "a carriage return after", line: `1:${key}\r` },
      { why: "a line feed inside", line: `1:${key.slice(0, 20)}\n${key.slice(20)}` },
      { why: "a byte order mark", line: `\ufeff1:${key}` },
      { why: "quotation marks", line: `"1:${key}"` },
      { why: "a variable's assignment", line: `VEIL_TOKEN_KEY=1:${key}` },
      { why: "a token", line: `ip1_${"a".repeat(26)}` },
      { why: "an age identity", line: TEST_IDENTITIES.classic[0]! },
    ],
  };
}

const TEST_IDENTITIES: Record<AgeKind, readonly string[]> = {
  classic: [1, 2, 3].map((n) =>
    encodeBech32("age-secret-key-", named(`veil test vectors: identity ${n}`)).toUpperCase(),
  ),
  "post-quantum": [1, 2].map((n) =>
    encodeBech32("age-secret-key-pq-", named(`veil test vectors: pq identity ${n}`)).toUpperCase(),
  ),
};

async function recipientVectors(): Promise<RecipientVectors> {
  const classic = await identityRecipients(TEST_IDENTITIES.classic);
  const postQuantum = await identityRecipients(TEST_IDENTITIES["post-quantum"]);
  const [one, two] = [classic[0]!, classic[1]!];
  const key = named("veil test vectors: recipient");
  /** A classic recipient whose data begins with these characters. */
  const beginning = (data: string): string => {
    const words = toWords(key);
    const changed = [...wordsOf(data), ...words.slice(data.length)];
    return encodeWords("age", changed);
  };
  const padded = toWords(key);
  const nonZeroPadding = [...padded.slice(0, -1), padded.at(-1)! | 1];
  const swapped = (text: string, index: number): string => {
    const other = text[index] === "q" ? "p" : "q";
    return text.slice(0, index) + other + text.slice(index + 1);
  };
  // The base point of P-256, compressed: a well-formed key for the recipients of hardware tags.
  const p256 = bytesOf("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
  return {
    about:
      "what is a recipient, and of which kind: native age recipients in lower case only, " +
      "`age1` + bech32 of 32 bytes, `age1pq1` + bech32 of 1,216 bytes",
    accept: [
      ...classic.map((text) => ({ text, kind: "classic" as const })),
      // Their beginnings look like the other kinds of recipients that age knows.
      ...["t", "p", "pq", "tag", "tagpq", "q", "s", "l", "pqqq"].map((data) => ({
        text: beginning(data),
        kind: "classic" as const,
      })),
      ...postQuantum.map((text) => ({ text, kind: "post-quantum" as const })),
    ],
    reject: [
      { why: "empty", text: "" },
      { why: "the prefix only", text: "age1" },
      { why: "the prefix of the other kind only", text: "age1pq1" },
      { why: "upper case", text: one.toUpperCase() },
      { why: "upper case", text: postQuantum[0]!.toUpperCase() },
      { why: "mixed case", text: `${one.slice(0, 20)}${one.slice(20).toUpperCase()}` },
      { why: "an upper-case prefix", text: `AGE1${one.slice(4)}` },
      { why: "a wrong checksum: the last character", text: swapped(one, one.length - 1) },
      { why: "a wrong checksum: the first character of the data", text: swapped(one, 4) },
      { why: "a wrong checksum: one in the middle", text: swapped(one, 30) },
      {
        why: "a wrong checksum of a post-quantum recipient",
        text: swapped(postQuantum[0]!, postQuantum[0]!.length - 1),
      },
      {
        why: "a wrong character in a post-quantum recipient",
        text: swapped(postQuantum[0]!, 1000),
      },
      { why: "bech32m", text: encodeWords("age", toWords(key), BECH32M) },
      { why: "padding bits that are not zero", text: encodeWords("age", nonZeroPadding) },
      { why: "31 bytes", text: encodeBech32("age", key.subarray(1)) },
      { why: "33 bytes", text: encodeBech32("age", Uint8Array.of(...key, 0)) },
      { why: "no bytes", text: encodeBech32("age", new Uint8Array()) },
      { why: "32 bytes as a post-quantum recipient", text: encodeBech32("age1pq", key) },
      { why: "1,216 bytes as a classic one", text: encodeBech32("age", new Uint8Array(1216)) },
      { why: "1,215 bytes", text: encodeBech32("age1pq", new Uint8Array(1215)) },
      { why: "the last character is missing", text: one.slice(0, -1) },
      { why: "the first character is missing", text: one.slice(1) },
      { why: "another prefix", text: encodeBech32("agf", key) },
      { why: "a hardware tag's recipient", text: encodeBech32("age1tag", p256) },
      {
        why: "a post-quantum hardware tag's recipient",
        text: encodeBech32("age1tagpq", Uint8Array.of(...new Uint8Array(1184), ...p256, ...key)),
      },
      { why: "a plugin's recipient", text: encodeBech32("age1yubikey", p256) },
      { why: "a plugin's recipient of 32 bytes", text: encodeBech32("age1veil", key) },
      { why: "a private identity", text: TEST_IDENTITIES.classic[0]! },
      { why: "a private identity in lower case", text: TEST_IDENTITIES.classic[0]!.toLowerCase() },
      { why: "a private post-quantum identity", text: TEST_IDENTITIES["post-quantum"][0]! },
      { why: "an SSH key", text: `ssh-ed25519 ${Buffer.from(key).toString("base64")}` },
      { why: "a space before", text: ` ${one}` },
      { why: "a space after", text: `${one} ` },
      { why: "a line feed after", text: `${one}\n` },
      { why: "two recipients", text: `${one},${two}` },
      { why: "two recipients on two lines", text: `${one}\n${two}` },
      { why: "a comment", text: `# ${one}` },
      { why: "a letter of another script", text: one.replace("a", "\u0430") },
    ],
  };
}

const TOKEN = makeToken(deriveSubkeys(TOKEN_KEYS[0]!), "ip", "203.0.113.7");
const ORIGINAL: Place = { kind: "original", token: TOKEN };
const QUARANTINE: Place = {
  kind: "quarantine",
  messageId: "7d9c1e5e-0a5c-4b5b-8f0e-3c9d7a3b2f10",
};

function sealVectors(): SealVectors {
  let seals = 0;
  // A nonce is used once under one key, in vectors too.
  const nextNonce = (): Uint8Array => named(`veil test vectors: nonce ${++seals}`).slice(0, 12);

  const texts = [
    ...[0, 1, 15, 16, 17, 31, 32, 1024].map((length) =>
      "Every login leaves an address. ".repeat(34).slice(0, length),
    ),
    "203.0.113.7",
    "Zo\u00eb",
    "Zoe\u0308",
    // UTF-8 that ends in 80, and in 80 00: what the padding looks like.
    ...["\u00c0", "\u00c0\u0000", "0123456789abcd\u00c0", "0123456789ab\u00c0\u0000\u0000"],
    ...["\u0000", "\u0000".repeat(16), "\ufeff203.0.113.7", "\u{1f4f1}\u{10ffff}"],
    '{"user_id":"u1","ip":["203.0.113.7"]}',
  ];
  const accept = [ORIGINAL, QUARANTINE].flatMap((place) =>
    texts.map((text) => {
      const nonce = nextNonce();
      return {
        dataKey: hex(DATA_KEY),
        place,
        additionalData: hex(additionalData(place)),
        nonce: hex(nonce),
        text,
        padded: hex(pad(text)),
        sealed: hex(seal(DATA_KEY, place, text, nonce)),
      };
    }),
  );

  const good = seal(DATA_KEY, ORIGINAL, "203.0.113.7", nextNonce());
  const other = seal(DATA_KEY, ORIGINAL, "203.0.113.8", nextNonce());
  const flipped = (index: number, bit: number): Uint8Array => {
    const copy = good.slice();
    const at = index < 0 ? copy.length + index : index;
    copy[at] = copy[at]! ^ (1 << bit);
    return copy;
  };
  const altered = (why: string, sealed: Uint8Array) => ({
    why,
    dataKey: hex(DATA_KEY),
    place: ORIGINAL,
    sealed: hex(sealed),
  });
  const moved = (why: string, place: Place, dataKey: Uint8Array = DATA_KEY) => ({
    why,
    dataKey: hex(dataKey),
    place,
    sealed: hex(good),
  });
  const original = (token: string): Place => ({ kind: "original", token });
  const quarantine = (messageId: string): Place => ({ kind: "quarantine", messageId });
  /** A plaintext or a label that no `seal` makes, under a tag that fits. */
  const forged = (why: string, plaintext: Uint8Array, data = additionalData(ORIGINAL)) =>
    altered(why, encrypt(DATA_KEY, nextNonce(), data, plaintext));
  const plain = pad("203.0.113.7");
  const block = (text: string): Uint8Array => bytesOf(text.replaceAll(" ", "").padEnd(32, "0"));

  return {
    about:
      "a text sealed at a place under a data key with a given nonce; padded: UTF-8, 80, then 00 to a full " +
      "block of 16; sealed: nonce, ciphertext, tag. What is rejected opens to nothing",
    accept,
    reject: [
      altered("the nonce's first bit", flipped(0, 7)),
      altered("the nonce's last bit", flipped(11, 0)),
      altered("the body's first bit", flipped(12, 7)),
      altered("the body's last bit", flipped(27, 0)),
      altered("the tag's first bit", flipped(28, 7)),
      altered("the tag's last bit", flipped(-1, 0)),
      altered("another seal's nonce", Uint8Array.of(...other.slice(0, 12), ...good.slice(12))),
      altered(
        "another seal's body",
        Buffer.concat([good.slice(0, 12), other.slice(12, 28), good.slice(28)]),
      ),
      altered("another seal's tag", Uint8Array.of(...good.slice(0, 28), ...other.slice(28))),
      altered("nothing at all", new Uint8Array()),
      altered("the nonce only", good.slice(0, 12)),
      altered("nonce and body without the tag", good.slice(0, 28)),
      altered(
        "nonce and tag without the body",
        Uint8Array.of(...good.slice(0, 12), ...good.slice(28)),
      ),
      altered("the last byte is missing", good.slice(0, -1)),
      altered("the first byte is missing", good.slice(1)),
      altered("one byte too many", Uint8Array.of(...good, 0)),
      altered("a tag of 12 bytes", good.slice(0, -4)),
      altered("all zeros", new Uint8Array(44)),
      moved(
        "another token",
        original(makeToken(deriveSubkeys(TOKEN_KEYS[0]!), "ip", "203.0.113.8")),
      ),
      moved(
        "the same value's token of another generation",
        original(makeToken(deriveSubkeys(TOKEN_KEYS[1]!), "ip", "203.0.113.7")),
      ),
      moved("another field's token", original(TOKEN.replace("ip", "dev"))),
      moved("the token in upper case", original(TOKEN.toUpperCase())),
      moved("the token without its last character", original(TOKEN.slice(0, -1))),
      moved("the token with a NUL after it", original(`${TOKEN}\u0000`)),
      moved("no token", original("")),
      moved("the quarantine, under the same name", quarantine(TOKEN)),
      moved("another data key", ORIGINAL, OTHER_DATA_KEY),
      {
        why: "a quarantined message as an original of the same name",
        dataKey: hex(DATA_KEY),
        place: original("m1"),
        sealed: hex(seal(DATA_KEY, quarantine("m1"), "203.0.113.7", nextNonce())),
      },
      {
        why: "another message's id",
        dataKey: hex(DATA_KEY),
        place: quarantine("m2"),
        sealed: hex(seal(DATA_KEY, quarantine("m1"), "203.0.113.7", nextNonce())),
      },
      forged("no additional data", plain, Buffer.alloc(0)),
      forged("the label alone", plain, Buffer.from("veil/v1/original")),
      forged("no 00 between label and token", plain, Buffer.from(`veil/v1/original${TOKEN}`)),
      forged("another version's label", plain, Buffer.from(`veil/v2/original\0${TOKEN}`)),
      forged("no plaintext", new Uint8Array()),
      forged(
        "a plaintext without padding",
        block("32 30 33 2e 30 2e 31 31 33 2e 37 20 20 20 20 20"),
      ),
      forged("padding of zeros only", new Uint8Array(16)),
      forged(
        "padding that does not end in zeros",
        block("32 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01"),
      ),
      forged("padding of a block too many", Buffer.concat([block("32 80"), new Uint8Array(16)])),
      forged(
        "padding of a full block of zeros",
        Buffer.concat([Buffer.from("0123456789abcde"), Buffer.from([0x80]), new Uint8Array(16)]),
      ),
      forged("a plaintext of 15 bytes", block("32 80").slice(0, 15)),
      forged("a plaintext of 17 bytes", Buffer.concat([block("32 80"), new Uint8Array(1)])),
      forged(
        "PKCS #7 padding",
        Buffer.concat([Buffer.from("203.0.113.7"), new Uint8Array(5).fill(5)]),
      ),
      forged("not UTF-8: FF", block("ff 80")),
      forged("not UTF-8: a sequence cut short", block("e2 82 80")),
      forged("not UTF-8: an overlong form", block("c0 b1 80")),
      forged("not UTF-8: a surrogate", block("ed a0 80 80")),
      forged("not UTF-8: beyond U+10FFFF", block("f4 90 80 80 80")),
    ],
  };
}

function proofVectors(): ProofVectors {
  const ids = [
    DATA_KEY_ID,
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
  ];
  const accept = TOKEN_KEYS.slice(0, 3).flatMap((key) =>
    ids.flatMap((id) =>
      [DATA_KEY, OTHER_DATA_KEY].map((dataKey) => {
        const { verify } = deriveSubkeys(key);
        return {
          verifyKey: hex(verify),
          id,
          dataKey: hex(dataKey),
          proof: hex(proveDataKey(verify, id, dataKey)),
        };
      }),
    ),
  );
  const good = accept[0]!;
  const proof = bytesOf(good.proof);
  return {
    about: "proof = HMAC-SHA-256(verify key, the id's 16 bytes and the data key); bytes in hex",
    accept,
    reject: [
      { ...good, why: "the first bit", proof: hex(proof.with(0, proof[0]! ^ 0x80)) },
      { ...good, why: "the last bit", proof: hex(proof.with(31, proof[31]! ^ 1)) },
      { ...good, why: "no proof", proof: "" },
      { ...good, why: "a truncated proof", proof: hex(proof.subarray(0, 16)) },
      { ...good, why: "a proof of 31 bytes", proof: hex(proof.subarray(0, 31)) },
      { ...good, why: "a proof of 33 bytes", proof: `${good.proof}00` },
      { ...good, why: "a proof of zeros", proof: "00".repeat(32) },
      { ...good, why: "another data key", dataKey: hex(OTHER_DATA_KEY) },
      { ...good, why: "another id", id: ids[1]! },
      {
        ...good,
        why: "another generation's key",
        verifyKey: hex(deriveSubkeys(TOKEN_KEYS[1]!).verify),
      },
      { ...good, why: "the token key for the verify key", verifyKey: hex(counting) },
      { ...good, why: "the tokens' subkey", verifyKey: hex(deriveSubkeys(TOKEN_KEYS[0]!).ip) },
    ],
  };
}

const CHAIN = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

const PLAIN_ENTRY: AuditEntry = {
  id: 1n,
  at: 820_497_600_123_456n, // 2026-01-01T00:00:00.123456Z
  login: "alice",
  loginOid: 16_385,
  role: null,
  address: "192.0.2.1",
  action: "reveal.request",
  request: DATA_KEY_ID,
  tokens: [TOKEN],
  messageIds: [],
  items: 1,
  reason: "case 4711",
  details: null,
};

const AUDIT_ENTRIES: readonly AuditEntry[] = [
  PLAIN_ENTRY,
  { ...PLAIN_ENTRY, id: 2n, action: "reveal.fetch", tokens: [], reason: null },
  {
    ...{
      id: 3n,
      at: -1n,
      login: "\u03a9\ud83d\udcf1\u0001",
      loginOid: 4_294_967_295,
      role: "veil_operator",
    },
    ...{ address: "2001:db8::1", action: "quarantine.show", request: null, tokens: [] },
    ...{ messageIds: ["", null, "NULL", '{a,"b"}', "\\"], items: -2_147_483_648, reason: "" },
    details: '{ "n": 1.0,\n"t": "\\u00e9\u00e9" }',
  },
  {
    ...{ id: 9_007_199_254_740_993n, at: 9_223_372_036_854_775_807n, login: "", loginOid: 0 },
    ...{
      role: "",
      address: "",
      action: "a.b",
      request: null,
      tokens: ["a", "b"],
      messageIds: ["ab"],
    },
    ...{ items: 2_147_483_647, reason: "x".repeat(300), details: "null" },
  },
  {
    ...{ id: 4n, at: null, login: null, loginOid: null, role: null, address: null, action: null },
    ...{ request: null, tokens: null, messageIds: null, items: null, reason: null, details: null },
  },
];

async function auditVectors(): Promise<AuditVectors> {
  let hash = genesisHash(CHAIN);
  const entries = AUDIT_ENTRIES.map((entry, i) => {
    const position = BigInt(i + 1);
    hash = chainHash(hash, position, entry);
    return {
      ...{ position: String(position), ...entry, id: String(entry.id) },
      at: entry.at === null ? null : String(entry.at),
      ...{ bytes: hex(entryBytes(entry)), hash: hex(hash) },
    };
  });
  const secret: AuditKey = { kind: "secret", bytes: named("veil test vectors: audit key") };
  const sign = async (checkpoint: Checkpoint, key = secret) => ({
    ...{ secretKey: formatAuditKey(key), publicKey: formatAuditKey(await publicKey(key)) },
    ...{ chain: checkpoint.chain, position: String(checkpoint.position) },
    ...{ entry: String(checkpoint.entry), hash: hex(checkpoint.hash), madeAt: checkpoint.madeAt },
    marks: checkpoint.marks.map((mark) => [String(mark.position), hex(mark.hash)]),
    bytes: hex(checkpointBytes(checkpoint, (await publicKey(key)).bytes)),
    signature: hex(await signCheckpoint(key, checkpoint)),
  });
  const marks = entries.map((entry) => ({
    position: BigInt(entry.position),
    hash: bytesOf(entry.hash),
  }));
  const full: Checkpoint = {
    ...{ chain: CHAIN, position: 5n, entry: 4n, hash, madeAt: "2026-01-02T03:04:05.678Z", marks },
  };
  const empty: Checkpoint = {
    ...{ chain: CHAIN, position: 0n, entry: 0n, hash: genesisHash(CHAIN) },
    ...{ madeAt: "2026-01-01T00:00:00.000Z", marks: [] },
  };
  const good = await sign(full);
  const other = await sign(full, { kind: "secret", bytes: new Uint8Array(32) });
  const altered = (index: number): string => {
    const bytes = bytesOf(good.signature);
    return hex(bytes.with(index, bytes[index]! ^ 1));
  };
  return {
    about:
      "entry -> bytes -> hash over the one before it, from the genesis of a chain on (numbers beyond 2^53 as " +
      "text; at: microseconds since 2000-01-01 UTC); checkpoint -> bytes -> Ed25519 signature; bytes in hex",
    chain: CHAIN,
    genesis: hex(genesisHash(CHAIN)),
    entries,
    accept: [await sign(empty), good],
    reject: [
      { ...good, why: "the signature's first bit", signature: altered(0) },
      { ...good, why: "the signature's last byte", signature: altered(63) },
      { ...good, why: "no signature", signature: "" },
      { ...good, why: "a truncated signature", signature: good.signature.slice(0, -2) },
      { ...good, why: "another key's signature", signature: other.signature },
      { ...good, why: "another key", secretKey: other.secretKey, publicKey: other.publicKey },
      { ...good, why: "another chain", chain: DATA_KEY_ID },
      { ...good, why: "another position", position: "4" },
      { ...good, why: "another entry", entry: "3" },
      { ...good, why: "another hash", hash: good.marks[0]![1]! },
      { ...good, why: "another time", madeAt: "2026-01-02T03:04:05.679Z" },
      { ...good, why: "a mark less", marks: good.marks.slice(1) },
      { ...good, why: "two marks swapped", marks: good.marks.with(0, good.marks[1]!) },
    ],
  };
}

async function wrappedVectors(): Promise<WrappedVectors> {
  const groups: readonly (readonly [AgeKind, readonly string[]])[] = [
    ["classic", TEST_IDENTITIES.classic.slice(0, 1)],
    ["classic", TEST_IDENTITIES.classic],
    ["post-quantum", TEST_IDENTITIES["post-quantum"].slice(0, 1)],
    ["post-quantum", TEST_IDENTITIES["post-quantum"]],
  ];
  const files = groups.map(async ([kind, identities]) => {
    const recipients = await identityRecipients(identities);
    const dataKey = { id: DATA_KEY_ID, generation: 1, bytes: DATA_KEY };
    const { wrapped } = await wrapDataKey(dataKey, recipients, new Uint8Array(32));
    return { kind, recipients, identities, dataKey: hex(DATA_KEY), wrapped: hex(wrapped) };
  });
  return {
    about: "data keys as age files, in hex: made once, each opened by each of its identities alone",
    WARNING:
      "TEST KEYS. THE PRIVATE IDENTITIES IN THIS FILE ARE PUBLIC. NEVER USE THEM FOR ANYTHING ELSE.",
    files: await Promise.all(files),
  };
}

/** ASCII only: no editor, file system or normalizer can change what a vector says. */
const write = (vectors: object): string =>
  `${JSON.stringify(vectors, null, 2).replace(
    /[\u007f-\uffff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  )}\n`;

/** Every file but wrapped.json, by name. */
export async function deterministicFiles(): Promise<ReadonlyMap<string, string>> {
  return new Map([
    ["keys.json", write(keyVectors())],
    ["canonical.json", write(canonicalVectors())],
    ["tokens.json", write(tokenVectors())],
    ["key-lines.json", write(keyLineVectors())],
    ["recipients.json", write(await recipientVectors())],
    ["seals.json", write(sealVectors())],
    ["proofs.json", write(proofVectors())],
    ["audit.json", write(await auditVectors())],
  ]);
}

if (import.meta.main) {
  const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
  for (const [name, text] of await deterministicFiles()) writeFileSync(pathOf(name), text);
  if (process.argv.includes("--new-wrapped") || !existsSync(pathOf("wrapped.json"))) {
    writeFileSync(pathOf("wrapped.json"), write(await wrappedVectors()));
  }
}
