// Tokens: what stands in for an original wherever analysts look. Deterministic, so that equal
// originals give equal tokens; keyed, so that nobody without the key can test a guess.
import { canonicalBytes, type Field } from "./canonical.ts";
import type { Subkeys } from "./keys.ts";
import { javaScript, type Primitives } from "./primitives.ts";

const BASE32 = new TextEncoder().encode("abcdefghijklmnopqrstuvwxyz234567");
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
export function makeToken(
  subkeys: Subkeys,
  field: Field,
  value: string,
  { hmac }: Pick<Primitives, "hmac"> = javaScript,
): string {
  const subkey = field === "ip" ? subkeys.ip : subkeys.deviceId;
  const mac = hmac(subkey, canonicalBytes(field, value));
  return `${PREFIX[field]}${subkeys.generation}_${base32(mac, TOKEN_BYTES)}`;
}

/** The field and generation that a token names, or null if this is not how a token is written. */
export function parseToken(text: string): TokenParts | null {
  const match = PATTERN.exec(text);
  if (match === null) return null;
  return { field: match[1] === "ip" ? "ip" : "device_id", generation: Number(match[2]) };
}

/** The first `length` bytes: RFC 4648 section 6, lower case, without padding. */
function base32(bytes: Uint8Array, length: number): string {
  const letters = new Uint8Array(Math.ceil((length * 8) / 5));
  let written = 0;
  let bits = 0;
  let held = 0;
  for (let i = 0; i < length; i++) {
    held = (held << 8) | bytes[i]!;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      letters[written++] = BASE32[(held >> bits) & 31]!;
    }
    held &= (1 << bits) - 1;
  }
  if (bits > 0) letters[written] = BASE32[(held << (5 - bits)) & 31]!;
  return decoder.decode(letters);
}

const decoder = new TextDecoder();
