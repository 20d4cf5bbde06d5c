// The formats a second time, on node:crypto, node:net and the platform's URL parser, written from their
// description. Nothing here may import vault/: two programs that share a mistake would agree on it.
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPublicKey,
  hkdfSync,
  verify,
} from "node:crypto";
import { isIPv6 } from "node:net";

type Field = "ip" | "device_id";
type Place =
  | { readonly kind: "original"; readonly token: string }
  | { readonly kind: "quarantine"; readonly messageId: string };

export const deriveSubkey = (tokenKey: Uint8Array, label: string, length: number): Buffer =>
  Buffer.from(hkdfSync("sha256", tokenKey, new Uint8Array(), label, length));

export function canonicalBytes(field: Field, value: string): Buffer {
  if (field === "device_id") return Buffer.from(value, "utf8");
  const address = addressBytes(value);
  if (address === null) return Buffer.concat([Buffer.from([0x30]), Buffer.from(value, "utf8")]);
  return Buffer.concat([Buffer.from([address.length === 4 ? 0x34 : 0x36]), address]);
}

/** Four or sixteen bytes, mapped IPv4 as four; null for what is not an address. */
export function addressBytes(text: string): Buffer | null {
  return ipv4Bytes(text) ?? ipv6Bytes(text);
}

/** A URL's host reads many notations of IPv4 and writes one: this is that one, or it is none. */
function ipv4Bytes(text: string): Buffer | null {
  if (!/^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$/.test(text)) return null;
  const host = hostOf(text);
  return host === text ? Buffer.from(text.split(".").map(Number)) : null;
}

/** One parser says whether it is an address, another one which: Bun's URL is lax with `::0:`. */
function ipv6Bytes(text: string): Buffer | null {
  if (text.includes("%") || !isIPv6(text)) return null;
  // Bun's URL also refuses `1:2:3:4::1.2.3.4`: the dotted tail is written in hex for it.
  const dotted = /^(.*:)([0-9.]+\.[0-9.]+)$/.exec(text);
  const tail4 = dotted === null ? null : ipv4Bytes(dotted[2]!);
  const pair = (at: number) => tail4!.readUInt16BE(at).toString(16);
  const host = hostOf(`[${tail4 === null ? text : `${dotted![1]}${pair(0)}:${pair(2)}`}]`);
  if (host === null) return null;
  const [head = "", tail] = host.slice(1, -1).split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  const zeros = Array<string>(8 - before.length - after.length).fill("0");
  const hex = [...before, ...zeros, ...after].map((group) => group.padStart(4, "0")).join("");
  const mapped = /^0{20}ffff(.{8})$/.exec(hex);
  return Buffer.from(mapped?.[1] ?? hex, "hex");
}

function hostOf(host: string): string | null {
  try {
    return new URL(`http://${host}/`).hostname;
  } catch {
    return null;
  }
}

export function makeToken(
  tokenKey: Uint8Array,
  generation: number,
  field: Field,
  value: string,
): string {
  const subkey = deriveSubkey(tokenKey, `veil/v1/token/${field}`, 32);
  const mac = createHmac("sha256", subkey).update(canonicalBytes(field, value)).digest();
  return `${field === "ip" ? "ip" : "dev"}${generation}_${base32(mac.subarray(0, 16))}`;
}

function base32(bytes: Uint8Array): string {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  const groups = bits.match(/.{1,5}/g) ?? [];
  return groups
    .map((group) => "abcdefghijklmnopqrstuvwxyz234567"[Number.parseInt(group.padEnd(5, "0"), 2)])
    .join("");
}

export const prove = (verifyKey: Uint8Array, id: string, dataKey: Uint8Array): Buffer =>
  createHmac("sha256", verifyKey)
    .update(Buffer.from(id.replaceAll("-", ""), "hex"))
    .update(dataKey)
    .digest();

export function additionalData(place: Place): Buffer {
  const [label, name] =
    place.kind === "original"
      ? ["veil/v1/original", place.token]
      : ["veil/v1/quarantine", place.messageId];
  return Buffer.from(`${label}\0${name}`, "utf8");
}

export function pad(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  const zeros = 15 - (bytes.length % 16);
  return Buffer.concat([bytes, Buffer.from([0x80]), Buffer.alloc(zeros)]);
}

/** Any plaintext under any additional data: for seals that nobody should make, too. */
export function encrypt(
  dataKey: Uint8Array,
  nonce: Uint8Array,
  data: Uint8Array,
  plaintext: Uint8Array,
): Buffer {
  const cipher = createCipheriv("aes-256-gcm", dataKey, nonce).setAAD(data);
  return Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** The padded plaintext, or null where the tag does not fit. */
export function decrypt(dataKey: Uint8Array, place: Place, sealed: Uint8Array): Buffer | null {
  if (sealed.length < 28) return null;
  const decipher = createDecipheriv("aes-256-gcm", dataKey, sealed.subarray(0, 12));
  decipher.setAAD(additionalData(place)).setAuthTag(sealed.subarray(-16));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  } catch {
    return null;
  }
}

export function open(dataKey: Uint8Array, place: Place, sealed: Uint8Array): string | null {
  const padded = decrypt(dataKey, place, sealed);
  if (padded === null || padded.length % 16 !== 0) return null;
  const match = /^((?:..)*)80((?:00)*)$/.exec(padded.toString("hex"));
  if (match === null || match[2]!.length > 30) return null;
  const bytes = Buffer.from(match[1]!, "hex");
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

type Columns = {
  readonly id: string;
  readonly at: string | null;
  readonly loginOid: number | null;
  readonly items: number | null;
  readonly request: string | null;
  readonly tokens: readonly (string | null)[] | null;
  readonly messageIds: readonly (string | null)[] | null;
} & Readonly<Record<"login" | "role" | "address" | "action" | "reason" | "details", string | null>>;

/** 00, or 01 and the length and the bytes, all in hex. */
const field = (hex: string | null): string =>
  hex === null ? "00" : `01${unsigned(hex.length / 2, 4)}${hex}`;

/** Two's complement, big-endian. */
const unsigned = (value: bigint | number, bytes: number): string =>
  BigInt.asUintN(bytes * 8, BigInt(value))
    .toString(16)
    .padStart(bytes * 2, "0");

const utf8 = (text: string | null): string | null =>
  text === null ? null : Buffer.from(text, "utf8").toString("hex");

const listed = (items: readonly (string | null)[] | null): string | null =>
  items && unsigned(items.length, 4) + items.map((item) => field(utf8(item))).join("");

export const auditBytes = (entry: Columns): string =>
  [
    utf8("veil/v1/audit-entry"),
    field(unsigned(BigInt(entry.id), 8)),
    field(entry.at === null ? null : unsigned(BigInt(entry.at), 8)),
    field(utf8(entry.login)),
    field(entry.loginOid === null ? null : unsigned(entry.loginOid, 4)),
    field(utf8(entry.role)),
    field(utf8(entry.address)),
    field(utf8(entry.action)),
    field(entry.request === null ? null : entry.request.replaceAll("-", "")),
    field(listed(entry.tokens)),
    field(listed(entry.messageIds)),
    field(entry.items === null ? null : unsigned(entry.items, 4)),
    field(utf8(entry.reason)),
    field(utf8(entry.details)),
  ].join("");

const sha256 = (hex: string): string =>
  createHash("sha256").update(Buffer.from(hex, "hex")).digest("hex");

export const auditGenesis = (chain: string): string =>
  sha256(`${utf8("veil/v1/audit-genesis")}${chain.replaceAll("-", "")}`);

export const auditHash = (previous: string, position: string, bytes: string): string =>
  sha256(`${utf8("veil/v1/audit-chain")}${previous}${unsigned(BigInt(position), 8)}${bytes}`);

type SignedCheckpoint = Readonly<
  Record<"publicKey" | "chain" | "position" | "entry" | "hash" | "madeAt" | "signature", string>
> & { readonly marks: readonly (readonly string[])[] };

const publicBytes = (line: string): Buffer => Buffer.from(line.split(":")[1] ?? "", "base64");

export const checkpointBytes = (checkpoint: SignedCheckpoint): string =>
  [
    utf8("veil/v1/audit-checkpoint"),
    checkpoint.chain.replaceAll("-", ""),
    unsigned(BigInt(checkpoint.position), 8),
    unsigned(BigInt(checkpoint.entry), 8),
    checkpoint.hash,
    utf8(checkpoint.madeAt),
    publicBytes(checkpoint.publicKey).toString("hex"),
    unsigned(checkpoint.marks.length, 4),
    ...checkpoint.marks.map(([position, hash]) => `${unsigned(BigInt(position ?? 0), 8)}${hash}`),
  ].join("");

export const checkpointHolds = (checkpoint: SignedCheckpoint): boolean => {
  const x = publicBytes(checkpoint.publicKey).toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const signed = Buffer.from(checkpointBytes(checkpoint), "hex");
  return verify(null, signed, key, Buffer.from(checkpoint.signature, "hex"));
};
