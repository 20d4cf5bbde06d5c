// What the audit's chain hashes: an entry as bytes, each hash over its predecessor. Written apart from the
// database's own function (sql/current/chain.sql), so that whoever verifies does not ask what he is checking.
import { sha256 as hashInJavaScript } from "@noble/hashes/sha2.js";
import { concatBytes } from "@noble/hashes/utils.js";
import { encodeUtf8, uuidBytes } from "./bytes.ts";

/** Null where the column is; the database's constraints are part of what somebody may have changed. */
export type AuditEntry = {
  readonly id: bigint;
  /** Microseconds since 2000-01-01 00:00:00 UTC, as Postgres keeps them. */
  readonly at: bigint | null;
  readonly login: string | null;
  readonly loginOid: number | null;
  readonly role: string | null;
  readonly address: string | null;
  readonly action: string | null;
  readonly request: string | null;
  readonly tokens: readonly (string | null)[] | null;
  readonly messageIds: readonly (string | null)[] | null;
  readonly items: number | null;
  readonly reason: string | null;
  /** JSON as it was written. */
  readonly details: string | null;
};

export type Sha256 = (data: Uint8Array) => Uint8Array;

/** The hash at position 0: of another database, another chain. */
export const genesisHash = (chain: string): Uint8Array =>
  hashInJavaScript(concatBytes(GENESIS, uuidBytes(chain)));

/**
 * The hash at `position` (from 1), over its predecessor and the entry. The position is in it so that a part
 * of a chain is none.
 */
export const chainHash = (
  previous: Uint8Array,
  position: bigint,
  entry: AuditEntry,
  sha256: Sha256 = hashInJavaScript,
): Uint8Array => sha256(concatBytes(LINK, previous, int8(position), entryBytes(entry)));

/** Label, then each column: 00 where it is null, else 01, its length in four bytes, itself. */
export function entryBytes(entry: AuditEntry): Uint8Array {
  const parts: Uint8Array[] = [ENTRY];
  add(parts, int8(entry.id));
  add(parts, entry.at === null ? null : int8(entry.at));
  add(parts, text(entry.login));
  add(parts, entry.loginOid === null ? null : int4(entry.loginOid));
  add(parts, text(entry.role));
  add(parts, text(entry.address));
  add(parts, text(entry.action));
  add(parts, entry.request === null ? null : uuidBytes(entry.request));
  add(parts, list(entry.tokens));
  add(parts, list(entry.messageIds));
  add(parts, entry.items === null ? null : int4(entry.items));
  add(parts, text(entry.reason));
  add(parts, text(entry.details));
  return concatBytes(...parts);
}

const ENTRY = encodeUtf8("veil/v1/audit-entry");
const LINK = encodeUtf8("veil/v1/audit-chain");
const GENESIS = encodeUtf8("veil/v1/audit-genesis");
const ABSENT = Uint8Array.of(0);
const PRESENT = Uint8Array.of(1);

function add(parts: Uint8Array[], bytes: Uint8Array | null): void {
  if (bytes === null) parts.push(ABSENT);
  else parts.push(PRESENT, int4(bytes.length), bytes);
}

const text = (value: string | null): Uint8Array | null =>
  value === null ? null : encodeUtf8(value);

/** How many, then each as a column is. */
function list(values: readonly (string | null)[] | null): Uint8Array | null {
  if (values === null) return null;
  const parts: Uint8Array[] = [int4(values.length)];
  for (const value of values) add(parts, text(value));
  return concatBytes(...parts);
}

export function int8(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, value);
  return bytes;
}

/** Also of an oid, which has no sign. */
export function int4(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value);
  return bytes;
}
