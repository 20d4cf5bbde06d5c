// The platform's own cryptography, for the hot paths. It makes the same bytes as the vault's
// JavaScript: a test holds the two together. A value is sealed in 3 µs instead of 30, and an HMAC
// takes 0.6 instead of 1.6.
import { createCipheriv, createDecipheriv, createHash, createHmac } from "node:crypto";
import type { Primitives } from "../../vault/primitives.ts";

const TAG_BYTES = 16;

export const native: Primitives = {
  encrypt: (key, nonce, additionalData, plaintext) => {
    const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(additionalData);
    const encrypted = cipher.update(plaintext);
    cipher.final(); // returns nothing: GCM keeps no part of a block back
    const all = new Uint8Array(encrypted.length + TAG_BYTES);
    all.set(encrypted);
    all.set(cipher.getAuthTag(), encrypted.length);
    return all;
  },
  decrypt: (key, nonce, additionalData, encrypted) => {
    const end = encrypted.length - TAG_BYTES;
    const options = { authTagLength: TAG_BYTES };
    const decipher = createDecipheriv("aes-256-gcm", key, nonce, options);
    decipher.setAAD(additionalData);
    decipher.setAuthTag(encrypted.subarray(end));
    const plaintext = decipher.update(encrypted.subarray(0, end));
    decipher.final(); // throws unless the tag holds; until here nobody has seen the plaintext
    return plaintext;
  },
  hmac: (key, data) => createHmac("sha256", key).update(data).digest(),
};

export const nativeSha256 = (data: Uint8Array): Uint8Array =>
  createHash("sha256").update(data).digest();
