// veil's formats on node:crypto, written for speed: what the same bytes cost there. `vault.ts` makes sure that
// they are the same before it times them.
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from "node:crypto";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { wordsOf } from "../test/vectors/bech32.ts";
import { canonicalBytes, type Field } from "../vault/canonical.ts";
import type { DataKey } from "../vault/data-key.ts";
import type { Subkeys } from "../vault/keys.ts";

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

export function makeToken(subkeys: Subkeys, field: Field, value: string): string {
  const subkey = field === "ip" ? subkeys.ip : subkeys.deviceId;
  const mac = createHmac("sha256", subkey).update(canonicalBytes(field, value)).digest();
  return `${field === "ip" ? "ip" : "dev"}${subkeys.generation}_${base32(mac.subarray(0, 16))}`;
}

function base32(bytes: Uint8Array): string {
  let text = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    for (bits += 8; bits >= 5; bits -= 5) text += BASE32[(held >> (bits - 5)) & 31];
    held &= 31;
  }
  return text + BASE32[(held << (5 - bits)) & 31];
}

const additionalData = (token: string): Buffer =>
  Buffer.concat([Buffer.from("veil/v1/original"), Buffer.alloc(1), Buffer.from(token)]);

export function seal(key: Uint8Array, token: string, text: string): Buffer {
  const bytes = Buffer.from(text);
  const padded = Buffer.alloc((Math.floor(bytes.length / 16) + 1) * 16);
  bytes.copy(padded);
  padded[bytes.length] = 0x80;
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(additionalData(token));
  return Buffer.concat([nonce, cipher.update(padded), cipher.final(), cipher.getAuthTag()]);
}

export function open(key: Uint8Array, token: string, sealed: Uint8Array): string {
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, 12))
    .setAAD(additionalData(token))
    .setAuthTag(sealed.subarray(-16));
  const padded = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  return padded.subarray(0, padded.lastIndexOf(0x80)).toString();
}

/** The public key that a classic age recipient spells. */
export function readRecipient(recipient: string): { raw: Buffer; key: KeyObject } {
  const words = wordsOf(recipient.slice("age1".length)).slice(0, -6);
  const bits = words.map((word) => word.toString(2).padStart(5, "0")).join("");
  const raw = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  const x = raw.toString("base64url");
  return { raw, key: createPublicKey({ key: { kty: "OKP", crv: "X25519", x }, format: "jwk" }) };
}

/** An age file to one X25519 recipient (age-encryption.org/v1), and the proof that goes with it. */
export function wrap(
  dataKey: DataKey,
  recipient: ReturnType<typeof readRecipient>,
  verifyKey: Uint8Array,
): { wrapped: Buffer; proof: Buffer } {
  const fileKey = randomBytes(16);
  const ephemeral = generateKeyPairSync("x25519");
  const share = Buffer.from(ephemeral.publicKey.export({ format: "jwk" }).x!, "base64url");
  const secret = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: recipient.key });
  const salt = Buffer.concat([share, recipient.raw]);
  const wrapKey = hkdfSync("sha256", secret, salt, "age-encryption.org/v1/X25519", 32);
  const body = chacha(wrapKey, Buffer.alloc(12), fileKey);
  const header = `age-encryption.org/v1\n-> X25519 ${base64(share)}\n${base64(body)}\n---`;
  const macKey = Buffer.from(hkdfSync("sha256", fileKey, "", "header", 32));
  const mac = createHmac("sha256", macKey).update(header).digest();
  const nonce = randomBytes(16);
  const last = Buffer.alloc(12);
  last[11] = 1;
  const payload = chacha(hkdfSync("sha256", fileKey, nonce, "payload", 32), last, dataKey.bytes);
  const id = Buffer.from(dataKey.id.replaceAll("-", ""), "hex");
  return {
    wrapped: Buffer.concat([Buffer.from(`${header} ${base64(mac)}\n`), nonce, payload]),
    proof: createHmac("sha256", verifyKey).update(id).update(dataKey.bytes).digest(),
  };
}

/** By noble: Bun's node:crypto has no ChaCha20-Poly1305. Of a wrap's time it is a small part. */
const chacha = (key: ArrayBuffer, nonce: Uint8Array, text: Uint8Array): Uint8Array =>
  chacha20poly1305(new Uint8Array(key), nonce).encrypt(text);

const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes).toString("base64").replace(/=+$/, "");
