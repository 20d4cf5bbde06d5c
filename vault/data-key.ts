// Data keys: random, short-lived, and at rest only as an age file. Whoever seals holds public
// recipients; whoever opens holds the identity. That is what keeps the writer from reading.
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { concatBytes, randomBytes } from "@noble/hashes/utils.js";
import { Decrypter, Encrypter } from "age-encryption";
import { recipientKind } from "./age.ts";
import { equalBytes, uuidBytes } from "./bytes.ts";

const DATA_KEY_BYTES = 32;

export type DataKey = {
  readonly id: string;
  /** The generation of the token key whose verify key made the proof. */
  readonly generation: number;
  readonly bytes: Uint8Array;
};

export type WrappedDataKey = {
  readonly id: string;
  readonly generation: number;
  /** A binary age file of the key's 32 bytes. */
  readonly wrapped: Uint8Array;
  readonly recipients: readonly string[];
  readonly proof: Uint8Array;
};

export const generateDataKey = (generation: number): DataKey => ({
  id: crypto.randomUUID(),
  generation,
  bytes: randomBytes(DATA_KEY_BYTES),
});

/**
 * Throws for what could never be opened again, or more weakly than it looks: no recipient, one that is
 * none (see `recipientKind`), two kinds at once, a data key of a wrong length.
 */
export async function wrapDataKey(
  dataKey: DataKey,
  recipients: readonly string[],
  verifyKey: Uint8Array,
): Promise<WrappedDataKey> {
  const kinds = new Set(recipients.map(recipientKind));
  if (kinds.size !== 1 || kinds.has(null)) {
    throw new Error("expected recipients, all classic or all post-quantum");
  }
  if (dataKey.bytes.length !== DATA_KEY_BYTES) {
    throw new Error(`expected a data key of ${DATA_KEY_BYTES} bytes, got ${dataKey.bytes.length}`);
  }
  const encrypter = new Encrypter();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  return {
    id: dataKey.id,
    generation: dataKey.generation,
    wrapped: await encrypter.encrypt(dataKey.bytes),
    recipients,
    proof: proveDataKey(verifyKey, dataKey.id, dataKey.bytes),
  };
}

/**
 * The data key's bytes, or null when no identity opens the file or it holds something else. Throws for
 * an identity that is none (see `isIdentity`).
 */
export async function unwrapDataKey(
  wrapped: Uint8Array,
  identities: readonly string[],
): Promise<Uint8Array | null> {
  const decrypter = new Decrypter();
  for (const identity of identities) decrypter.addIdentity(identity);
  try {
    const bytes = await decrypter.decrypt(wrapped);
    return bytes.length === DATA_KEY_BYTES ? bytes : null;
  } catch {
    return null;
  }
}

/**
 * Recipients are public, so an age file says nothing about who made it. This does: only a holder of
 * the token key, or of the verify key derived from it, can make it.
 */
export function proveDataKey(verifyKey: Uint8Array, id: string, dataKey: Uint8Array): Uint8Array {
  return hmac(sha256, verifyKey, concatBytes(uuidBytes(id), dataKey));
}

export function checkProof(
  verifyKey: Uint8Array,
  id: string,
  dataKey: Uint8Array,
  proof: Uint8Array,
): boolean {
  return equalBytes(proveDataKey(verifyKey, id, dataKey), proof);
}
