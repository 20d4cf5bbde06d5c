// The token key and what is derived from it. There is one secret of 32 bytes per generation.
// Every use has a subkey of its own under a versioned label. So whoever is given one of them (the verify
// key, for recovery) is given nothing else.
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { randomBytes } from "@noble/hashes/utils.js";
import { decodeBase64, encodeBase64 } from "./bytes.ts";

const KEY_BYTES = 32;
const MAX_GENERATION = 2 ** 31 - 1; // an integer column holds it

/** A secret and the generation that it belongs to, as one line of text: `N:base64`. */
export type GenerationKey = { readonly generation: number; readonly bytes: Uint8Array };

export type Subkeys = {
  readonly generation: number;
  readonly ip: Uint8Array;
  readonly deviceId: Uint8Array;
  /** Proves who made a data key; makes no token. */
  readonly verify: Uint8Array;
  /** Eight bytes that tell two token keys of one generation apart, and are not secret. */
  readonly check: Uint8Array;
};

/** Derives every subkey (HKDF-SHA-256, RFC 5869, no salt: the token key is uniform already). */
export function deriveSubkeys(tokenKey: GenerationKey): Subkeys {
  if (tokenKey.bytes.length !== KEY_BYTES) {
    throw new Error(`expected a token key of ${KEY_BYTES} bytes, got ${tokenKey.bytes.length}`);
  }
  const derive = (label: string, length: number) =>
    hkdf(sha256, tokenKey.bytes, undefined, new TextEncoder().encode(label), length);
  return {
    generation: tokenKey.generation,
    ip: derive("veil/v1/token/ip", KEY_BYTES),
    deviceId: derive("veil/v1/token/device_id", KEY_BYTES),
    verify: derive("veil/v1/data-key", KEY_BYTES),
    check: derive("veil/v1/key-check", 8),
  };
}

/**
 * Reads `N:base64` or plain base64 (generation 1) of exactly 32 bytes; null for anything else. Null
 * and not an error that says more: what is nearly a key may not stand in a message.
 */
export function parseKey(text: string): GenerationKey | null {
  const match = /^(?:([1-9][0-9]{0,9}):)?([A-Za-z0-9+/]{43}=)$/.exec(text);
  if (match === null) return null;
  const generation = Number(match[1] ?? "1");
  const bytes = decodeBase64(match[2]!);
  if (bytes === null || generation > MAX_GENERATION) return null;
  return { generation, bytes };
}

export const formatKey = (key: GenerationKey): string =>
  `${key.generation}:${encodeBase64(key.bytes)}`;

export const generateTokenKey = (generation = 1): GenerationKey => ({
  generation,
  bytes: randomBytes(KEY_BYTES),
});
