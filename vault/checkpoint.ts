// A checkpoint: where a chain ends, signed, to be kept where the database's owner cannot write. Whoever
// rewrites the chain afterwards, its hashes included, cannot make one for what it says then.
import { concatBytes, randomBytes } from "@noble/hashes/utils.js";
import { int4, int8 } from "./audit.ts";
import { decodeBase64, encodeBase64, encodeUtf8, uuidBytes } from "./bytes.ts";

export const MOST_MARKS = 1024;

export type Mark = { readonly position: bigint; readonly hash: Uint8Array };

export type Checkpoint = {
  readonly chain: string;
  /** How many entries there were; 0 and an entry of 0 for an empty chain. */
  readonly position: bigint;
  readonly entry: bigint;
  readonly hash: Uint8Array;
  /** `YYYY-MM-DDTHH:MM:SS.mmmZ`. */
  readonly madeAt: string;
  /** Hashes on the way, so that what was rewritten has a place. */
  readonly marks: readonly Mark[];
};

/** One of Ed25519: a seed of 32 bytes, or a public key of 32. */
export type AuditKey = { readonly kind: "secret" | "public"; readonly bytes: Uint8Array };

const KEY_BYTES = 32;

export const generateAuditKey = (): AuditKey => ({ kind: "secret", bytes: randomBytes(KEY_BYTES) });

export const formatAuditKey = ({ kind, bytes }: AuditKey): string =>
  `audit-${kind}:${encodeBase64(bytes)}`;

/** Null for anything else: what is nearly a key may not stand in a message. */
export function parseAuditKey(line: string): AuditKey | null {
  const match = /^audit-(secret|public):([A-Za-z0-9+/]{43}=)$/.exec(line);
  const bytes = match === null ? null : decodeBase64(match[2]!);
  return bytes === null ? null : { kind: match![1] as AuditKey["kind"], bytes };
}

export async function publicKey(key: AuditKey): Promise<AuditKey> {
  if (key.kind === "public") return key;
  const { x } = await crypto.subtle.exportKey("jwk", await importSecret(key));
  const bytes = decodeBase64(`${(x ?? "").replaceAll("-", "+").replaceAll("_", "/")}=`);
  if (bytes?.length !== KEY_BYTES) throw new Error("expected a public key of 32 bytes");
  return { kind: "public", bytes };
}

/** The 64 bytes of an Ed25519 signature (RFC 8032). Throws for a public key. */
export async function signCheckpoint(key: AuditKey, checkpoint: Checkpoint): Promise<Uint8Array> {
  const bytes = checkpointBytes(checkpoint, (await publicKey(key)).bytes);
  return new Uint8Array(await crypto.subtle.sign("Ed25519", await importSecret(key), bytes));
}

/** False for another key, another checkpoint, and whatever is no signature. */
export async function verifyCheckpoint(
  key: AuditKey,
  checkpoint: Checkpoint,
  signature: Uint8Array,
): Promise<boolean> {
  const { bytes } = await publicKey(key);
  try {
    const imported = await crypto.subtle.importKey("raw", owned(bytes), "Ed25519", true, [
      "verify",
    ]);
    const signed = checkpointBytes(checkpoint, bytes);
    return await crypto.subtle.verify("Ed25519", imported, owned(signature), signed);
  } catch {
    return false; // no point of the curve
  }
}

/** What is signed. Every part has its length, but the marks, which come last: no two give the same bytes. */
export function checkpointBytes(
  checkpoint: Checkpoint,
  signer: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const { chain, position, entry, hash, madeAt, marks } = checkpoint;
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(madeAt)) {
    throw new Error(`expected a time with milliseconds in UTC, got ${madeAt.length} characters`);
  }
  for (const bytes of [hash, signer, ...marks.map((mark) => mark.hash)]) {
    if (bytes.length !== 32) throw new Error(`expected 32 bytes, got ${bytes.length}`);
  }
  const head = [uuidBytes(chain), int8(position), int8(entry), hash, encodeUtf8(madeAt), signer];
  const rest = marks.flatMap((mark) => [int8(mark.position), mark.hash]);
  return owned(concatBytes(LABEL, ...head, int4(marks.length), ...rest));
}

const LABEL = encodeUtf8("veil/v1/audit-checkpoint");

/** A key in PKCS #8 is these bytes and the seed (RFC 8410). */
const PKCS8 = Uint8Array.from([
  ...[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06],
  ...[0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20],
]);

async function importSecret({ kind, bytes }: AuditKey): Promise<CryptoKey> {
  if (kind !== "secret" || bytes.length !== KEY_BYTES) throw new Error("expected a secret key");
  const pkcs8 = owned(concatBytes(PKCS8, bytes));
  return await crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", true, ["sign"]);
}

/** For the platform, which takes no view of shared memory. */
const owned = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes);
