// One value, one byte string: what is tokenized is never the text itself but these canonical bytes,
// so that every spelling of one address gives one token. The leading tag byte keeps the kinds apart:
// no text can be mistaken for an address.
import { encodeUtf8 } from "./bytes.ts";

/** The personal fields that veil knows how to tokenize. */
export type Field = "ip" | "device_id";

const TAG_TEXT = 0x30;
const TAG_IPV4 = 0x34;
const TAG_IPV6 = 0x36;

/** Throws for a lone surrogate only: every other text, an address or not, has canonical bytes. */
export function canonicalBytes(field: Field, value: string): Uint8Array {
  return field === "ip" ? canonicalIp(value) : encodeUtf8(value);
}

/** Whether it is an address in any of the spellings that give it one token. */
export const isIpAddress = (text: string): boolean => canonicalIp(text)[0] !== TAG_TEXT;

function canonicalIp(text: string): Uint8Array {
  const v4 = parseIpv4(text);
  if (v4 !== null) return tagged(TAG_IPV4, v4);
  const v6 = parseIpv6(text);
  if (v6 === null) return tagged(TAG_TEXT, encodeUtf8(text));
  return isMapped(v6) ? tagged(TAG_IPV4, v6.subarray(12)) : tagged(TAG_IPV6, v6);
}

function tagged(tag: number, bytes: Uint8Array): Uint8Array {
  const all = new Uint8Array(1 + bytes.length);
  all[0] = tag;
  all.set(bytes, 1);
  return all;
}

/**
 * Four decimal parts without leading zeros. `010.1.1.1` is 8.1.1.1 to some programs and 10.1.1.1 to
 * others: reading it as either would join two people, so it stays text.
 */
function parseIpv4(text: string): Uint8Array | null {
  if (text.length > 15) return null;
  const bytes = new Uint8Array(4);
  let parts = 0;
  let part = -1; // nothing of it read yet
  for (let i = 0; i <= text.length; i++) {
    const code = i === text.length ? DOT : text.charCodeAt(i);
    if (code === DOT) {
      if (part < 0 || parts === 4) return null;
      bytes[parts++] = part;
      part = -1;
    } else {
      if (code < ZERO || code > ZERO + 9 || part === 0) return null;
      part = Math.max(part, 0) * 10 + code - ZERO;
      if (part > 255) return null;
    }
  }
  return parts === 4 ? bytes : null;
}

const DOT = 0x2e;
const ZERO = 0x30;

/** RFC 4291 section 2.2: full, `::`-compressed, and with a dotted IPv4 tail. No zone, no brackets. */
function parseIpv6(text: string): Uint8Array | null {
  if (text.length < 2 || text.length > 45) return null;
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const head = parseGroups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : [];
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  // "::" stands for one group of zeros or more, never for none.
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
  const groups = [...head, ...Array<number>(missing).fill(0), ...tail];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

function parseGroups(text: string, mayEndInIpv4: boolean): number[] | null {
  if (text === "") return [];
  const parts = text.split(":");
  const groups: number[] = [];
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(Number.parseInt(part, 16));
      continue;
    }
    const v4 = mayEndInIpv4 && i === parts.length - 1 ? parseIpv4(part) : null;
    if (v4 === null) return null;
    groups.push((v4[0]! << 8) | v4[1]!, (v4[2]! << 8) | v4[3]!);
  }
  return groups;
}

const isMapped = (v6: Uint8Array): boolean =>
  v6.subarray(0, 10).every((byte) => byte === 0) && v6[10] === 0xff && v6[11] === 0xff;
