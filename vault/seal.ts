// Seals: AES-256-GCM (NIST SP 800-38D) of one text under a data key, bound to the place where it is
// kept. Stored as nonce ‖ ciphertext ‖ tag.
//
// Why random nonces are safe here: a data key seals at most 2^20 values, and with 96-bit nonces the
// chance that two of them meet is below 2^-57. The exception is a machine cloned while it runs: both
// copies draw the same nonces under the same key (SECURITY.md).
import { randomBytes } from "@noble/hashes/utils.js";
import { decodeUtf8, encodeUtf8, labelled } from "./bytes.ts";
import { javaScript, type Primitives } from "./primitives.ts";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const BLOCK_BYTES = 16;

/** Data keys are replaced after this many seals. */
export const MAX_SEALS_PER_DATA_KEY = 2 ** 20;

/** Where a seal is kept. It opens there only: the place is authenticated as additional data. */
export type Place =
  | { readonly kind: "original"; readonly token: string }
  | { readonly kind: "quarantine"; readonly messageId: string };

/** Throws for a text with a lone surrogate, and for a nonce or key of a wrong length. */
export function seal(
  dataKey: Uint8Array,
  place: Place,
  text: string,
  nonce: Uint8Array = randomBytes(NONCE_BYTES),
  { encrypt }: Pick<Primitives, "encrypt"> = javaScript,
): Uint8Array {
  // GCM itself would take shorter keys and other nonces: weaker, or never to be opened again.
  expectLength("a data key", dataKey, KEY_BYTES);
  expectLength("a nonce", nonce, NONCE_BYTES);
  const encrypted = encrypt(dataKey, nonce, additionalData(place), pad(encodeUtf8(text)));
  const sealed = new Uint8Array(NONCE_BYTES + encrypted.length);
  sealed.set(nonce);
  sealed.set(encrypted, NONCE_BYTES);
  return sealed;
}

/**
 * The text that was sealed for this place, or null. One null for every cause (another key, another
 * place, an altered byte, a wrong length, bad padding): whoever feeds us seals learns nothing from
 * how they fail.
 */
export function open(
  dataKey: Uint8Array,
  place: Place,
  sealed: Uint8Array,
  { decrypt }: Pick<Primitives, "decrypt"> = javaScript,
): string | null {
  if (dataKey.length !== KEY_BYTES) return null;
  if (sealed.length < NONCE_BYTES + BLOCK_BYTES + TAG_BYTES) return null;
  const nonce = sealed.subarray(0, NONCE_BYTES);
  try {
    const encrypted = sealed.subarray(NONCE_BYTES);
    const padded = decrypt(dataKey, nonce, additionalData(place), encrypted);
    const bytes = unpad(padded);
    return bytes === null ? null : decodeUtf8(bytes);
  } catch {
    return null;
  }
}

function expectLength(name: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) {
    throw new Error(`expected ${name} of ${length} bytes, got ${bytes.length}`);
  }
}

function additionalData(place: Place): Uint8Array {
  return place.kind === "original"
    ? labelled("veil/v1/original", place.token)
    : labelled("veil/v1/quarantine", place.messageId);
}

/** ISO/IEC 7816-4: 80, then 00 up to a full block, always at least the one byte. */
function pad(bytes: Uint8Array): Uint8Array {
  const padded = new Uint8Array((Math.floor(bytes.length / BLOCK_BYTES) + 1) * BLOCK_BYTES);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  return padded;
}

function unpad(padded: Uint8Array): Uint8Array | null {
  const end = padded.lastIndexOf(0x80);
  if (end < padded.length - BLOCK_BYTES || end < 0 || padded.length % BLOCK_BYTES !== 0)
    return null;
  return padded.subarray(end + 1).every((byte) => byte === 0) ? padded.subarray(0, end) : null;
}
