// What a message has to become, worked out a second time: from DESIGN's words, with node:crypto and
// node:net, and with nothing of veil's own code. The tests hold the line against it.
import { createDecipheriv, createHmac, hkdfSync } from "node:crypto";
import { isIPv4, isIPv6 } from "node:net";
import { Decrypter } from "age-encryption";

export type ExpectedRow = {
  readonly user_id: string;
  readonly device_type: string | null;
  readonly masked_ip: string | null;
  readonly masked_device_id: string | null;
  readonly locale: string | null;
  readonly app_version: number | null;
  readonly create_date: string;
};

/** The six values of a login, wherever they stood in its message. */
export type Sent = {
  readonly user_id: string;
  readonly device_type: string | null;
  readonly ip: string | null;
  readonly locale: string | null;
  readonly device_id: string | null;
  readonly app_version: string | number | null;
};

export type Tokens = {
  readonly ip: (value: string) => string;
  readonly device_id: (value: string) => string;
};

/** From the line of a token key: `N:base64`. */
export function tokensOf(tokenKey: string): Tokens {
  const [generation = "", base64 = ""] = tokenKey.split(":");
  const key = Buffer.from(base64, "base64");
  const token = (prefix: string, label: string) => {
    const subkey = Buffer.from(hkdfSync("sha256", key, "", label, 32));
    return (bytes: Uint8Array) => {
      const mac = createHmac("sha256", subkey).update(bytes).digest();
      return `${prefix}${generation}_${base32(mac.subarray(0, 16))}`;
    };
  };
  const ip = token("ip", "veil/v1/token/ip");
  const device = token("dev", "veil/v1/token/device_id");
  return {
    ip: (value) => ip(addressBytes(value)),
    device_id: (value) => device(Buffer.from(value, "utf8")),
  };
}

/** By way of one big number, five bits a letter. */
function base32(bytes: Uint8Array): string {
  let number = BigInt(`0x${Buffer.from(bytes).toString("hex")}`) << 2n;
  let text = "";
  for (let i = 0; i < 26; i++) {
    text = "abcdefghijklmnopqrstuvwxyz234567"[Number(number & 31n)] + text;
    number >>= 5n;
  }
  return text;
}

function addressBytes(text: string): Uint8Array {
  if (isIPv4(text)) return Buffer.from([0x34, ...text.split(".").map(Number)]);
  if (!isIPv6(text) || text.includes("%")) return Buffer.from(`0${text}`, "utf8");
  // The URL parser writes every spelling of an address in one.
  const [head = "", tail] = new URL(`http://[${text}]/`).hostname.slice(1, -1).split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const zeros = Array<string>(8 - left.length - right.length).fill("0");
  const hex = [...left, ...zeros, ...right].map((group) => group.padStart(4, "0")).join("");
  const bytes = Buffer.from(hex, "hex");
  return hex.startsWith(`${"0".repeat(20)}ffff`)
    ? Buffer.from([0x34, ...bytes.subarray(12)])
    : Buffer.from([0x36, ...bytes]);
}

function versionNumber(version: string | number | null): number | null {
  if (version === null) return null;
  const [major = "0", minor = "0", patch = "0"] = String(version).split(/[-+]/)[0]!.split(".");
  return Number(major) * 1_000_000 + Number(minor) * 1000 + Number(patch);
}

export function expectedRow(sent: Sent, sentAt: number, tokens: Tokens): ExpectedRow {
  return {
    user_id: sent.user_id,
    device_type: sent.device_type,
    masked_ip: sent.ip ? tokens.ip(sent.ip) : null,
    masked_device_id: sent.device_id ? tokens.device_id(sent.device_id) : null,
    locale: sent.locale,
    app_version: versionNumber(sent.app_version),
    create_date: new Date(sentAt).toISOString().slice(0, 10),
  };
}

/** A data key as the database keeps it: an age file. */
export async function unwrap(wrapped: Uint8Array, identity: string): Promise<Uint8Array> {
  const decrypter = new Decrypter();
  decrypter.addIdentity(identity);
  return await decrypter.decrypt(wrapped);
}

/** Opens nonce ‖ ciphertext ‖ tag and takes the padding off. Throws if it does not open. */
export function openSeal(dataKey: Uint8Array, label: string, place: string, sealed: Uint8Array) {
  const decipher = createDecipheriv("aes-256-gcm", dataKey, sealed.subarray(0, 12));
  decipher.setAAD(Buffer.from(`${label}\0${place}`, "utf8"));
  decipher.setAuthTag(sealed.subarray(-16));
  const padded = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  return padded.subarray(0, padded.lastIndexOf(0x80)).toString("utf8");
}
