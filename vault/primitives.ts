// The primitives of the hot paths. In JavaScript by default, which runs everywhere and needs no trust in
// a platform; a program may give its platform's instead, which make the same bytes in less time.
import { gcm } from "@noble/ciphers/aes.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";

export type Primitives = {
  /** AES-256-GCM: ciphertext ‖ tag. */
  readonly encrypt: (
    key: Uint8Array,
    nonce: Uint8Array,
    additionalData: Uint8Array,
    plaintext: Uint8Array,
  ) => Uint8Array;
  /** The plaintext of ciphertext ‖ tag. Throws, with nothing of it, where the tag does not hold. */
  readonly decrypt: (
    key: Uint8Array,
    nonce: Uint8Array,
    additionalData: Uint8Array,
    encrypted: Uint8Array,
  ) => Uint8Array;
  /** HMAC-SHA-256. */
  readonly hmac: (key: Uint8Array, data: Uint8Array) => Uint8Array;
};

export const javaScript: Primitives = {
  encrypt: (key, nonce, additionalData, plaintext) =>
    gcm(key, nonce, additionalData).encrypt(plaintext),
  decrypt: (key, nonce, additionalData, encrypted) =>
    gcm(key, nonce, additionalData).decrypt(encrypted),
  hmac: (key, data) => keyed(key).clone().update(data).digest(),
};

/** HMAC under a key, its two key blocks hashed already: half of the work for a short value. */
function keyed(key: Uint8Array): Keyed {
  let state = states.get(key);
  if (state === undefined) {
    state = hmac.create(sha256, key);
    states.set(key, state);
  }
  return state;
}

type Keyed = ReturnType<typeof hmac.create>;
const states = new WeakMap<Uint8Array, Keyed>();
