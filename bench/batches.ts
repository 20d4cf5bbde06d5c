// Batches as the line makes them, of made-up logins: tokens and seals of the usual form and size, without the
// work of making real ones.
import { randomBytes } from "node:crypto";
import type { LoginRow, Protected } from "../src/login/protect.ts";

/** As those of most addresses and devices are. */
export const SEAL_BYTES = 44;

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";
/** What the last letter of a token can be. */
const LAST = "aeimquy4";
const LETTERS = 26;

export type Prefix = "ip" | "dev";

export type MadeUpLogin = {
  readonly userId: string;
  readonly ip: string;
  readonly device: string;
};

/** As evenly spread as a real one: the first bits of a digest. The same number gives the same token. */
export function madeUpToken(prefix: Prefix, n: number): string {
  return textOf(prefix, new Bun.CryptoHasher("sha256").update(`${prefix}${n}`).digest(), 0);
}

/** Tokens that nobody has had before. */
export function newTokens(prefix: Prefix, count: number): string[] {
  const bytes = randomBytes(count * LETTERS);
  return Array.from({ length: count }, (_, i) => textOf(prefix, bytes, i * LETTERS));
}

function textOf(prefix: Prefix, bytes: Uint8Array, from: number): string {
  let letters = "";
  for (let i = from; i < from + LETTERS - 1; i++) letters += BASE32[bytes[i]! & 31];
  return `${prefix}1_${letters}${LAST[bytes[from + LETTERS - 1]! & 7]}`;
}

/** Users, addresses and devices that nobody has had before, in no order. */
export function newLogins(count: number): MadeUpLogin[] {
  const [ips, devices] = [newTokens("ip", count), newTokens("dev", count)];
  return ips.map((ip, i) => ({ userId: crypto.randomUUID(), ip, device: devices[i]! }));
}

let serial = 0;

/** `sent`: the tokens whose originals go with the batch. */
export function makeBatch(
  logins: readonly MadeUpLogin[],
  sent: Iterable<string>,
  sentAt = new Date(),
): Protected {
  const rows = logins.map(({ userId, ip, device }): LoginRow => {
    const n = serial++;
    return {
      messageId: crypto.randomUUID(),
      sentAt,
      userId,
      deviceType: n % 2 === 0 ? "android" : "ios",
      maskedIp: ip,
      maskedDeviceId: device,
      locale: n % 5 === 0 ? null : "en_US",
      appVersion: 2_003_000,
    };
  });
  const originals = new Map<string, Uint8Array>();
  for (const token of sent) originals.set(token, EMPTY);
  const seals = randomBytes(originals.size * SEAL_BYTES);
  let at = 0;
  for (const token of originals.keys()) {
    originals.set(token, seals.subarray(at, at + SEAL_BYTES));
    at += SEAL_BYTES;
  }
  return { rows, originals, rejected: [] };
}
const EMPTY = new Uint8Array(0);

export const tokensOf = (logins: readonly MadeUpLogin[]): string[] =>
  logins.flatMap(({ ip, device }) => [ip, device]);
