// The few byte conversions that the formats need, on Web-standard APIs only.
import { hexToBytes } from "@noble/hashes/utils.js";

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Label ‖ 00 ‖ text: 00 cannot stand in a label, so no two pairs give the same bytes. */
export function labelled(label: string, text: string): Uint8Array {
  return encodeUtf8(`${label}\0${text}`);
}

/**
 * UTF-8 of a well-formed string. Throws for a lone surrogate: the platform would encode each of them
 * as U+FFFD, and two different originals would share one token.
 */
export function encodeUtf8(text: string): Uint8Array {
  if (!text.isWellFormed()) throw new Error("expected well-formed text, got a lone surrogate");
  return encoder.encode(text);
}

/** The text of valid UTF-8, a byte order mark kept. Throws otherwise. */
export function decodeUtf8(bytes: Uint8Array): string {
  return strictDecoder.decode(bytes);
}

/** Strict RFC 4648 base64 with padding; null for anything else, non-canonical trailing bits included. */
export function decodeBase64(text: string): Uint8Array | null {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return null;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return encodeBase64(bytes) === text ? bytes : null;
}

export function encodeBase64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

/** The sixteen bytes of a UUID in its canonical lower-case spelling. Throws for anything else. */
export function uuidBytes(uuid: string): Uint8Array {
  if (!/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid)) {
    throw new Error(`expected a lower-case UUID, got ${uuid.length} characters`);
  }
  return hexToBytes(uuid.replaceAll("-", ""));
}

/** Compares without a data-dependent exit, so that its duration says nothing about a secret. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}
