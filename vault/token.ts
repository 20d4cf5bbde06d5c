// Tokens: what stands in for an original wherever analysts look. Deterministic, so that equal
// originals give equal tokens; keyed, so that nobody without the key can test a guess.
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { canonicalBytes, type Field } from "./canonical.ts";
import type { Subkeys } from "./keys.ts";

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";
// 128 bits: two of 10^12 originals share a token with a chance of 10^-15. The 26th character carries
// the last three bits, so only eight letters can stand there.
const TOKEN_BYTES = 16;
const PREFIX: Record<Field, string> = { ip: "ip", device_id: "dev" };
const PATTERN = /^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$/;

export type TokenParts = { readonly field: Field; readonly generation: number };

/**
 * HMAC-SHA-256 of the canonical bytes, truncated to 16 bytes, in base32 after `ip1_` or `dev1_`.
 * Throws for a lone surrogate. An empty value has a token too: it is for the caller to give null,
 * absent and empty values none.
 */
export function makeToken(subkeys: Subkeys, field: Field, value: string): string {
  const subkey = field === "ip" ? subkeys.ip : subkeys.deviceId;
  const mac = keyed(subkey).clone().update(canonicalBytes(field, value)).digest();
  return `${PREFIX[field]}${subkeys.generation}_${base32(mac.subarray(0, TOKEN_BYTES))}`;
}

/** HMAC under a subkey, its two key blocks hashed already: half of the work for a short value. */
function keyed(subkey: Uint8Array) {
  let state = states.get(subkey);
  if (state === undefined) {
    state = hmac.create(sha256, subkey);
    states.set(subkey, state);
  }
  return state;
}

const states = new WeakMap<Uint8Array, ReturnType<typeof hmac.create>>();

/** The field and generation that a token names, or null if this is not how a token is written. */
export function parseToken(text: string): TokenParts | null {
  const match = PATTERN.exec(text);
  if (match === null) return null;
  return { field: match[1] === "ip" ? "ip" : "device_id", generation: Number(match[2]) };
}

/** RFC 4648 section 6, lower case, without padding. */
function base32(bytes: Uint8Array): string {
  let text = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += BASE32[(held >> bits) & 31];
    }
    held &= (1 << bits) - 1;
  }
  return bits > 0 ? text + BASE32[(held << (5 - bits)) & 31] : text;
}
