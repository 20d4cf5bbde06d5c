// Entries of the audit as the database holds them, column by column: written out in one form, whatever the
// settings of a login are, and never through a function of veil's own, which may be what was altered.
import type { AuditEntry } from "../../vault/audit.ts";
import type { Row } from "../postgres/values.ts";

/** Of a relation called `a`. Null in all of them where there is no such entry. */
export const ENTRY_COLUMNS = `
  a.id::text as id, pg_catalog.encode(pg_catalog.timestamptz_send(a.at), 'hex') as at, a.login, a.login_oid::bigint::text
    as login_oid, a.role, a.address, a.action, a.request::text as request,
  pg_catalog.array_to_json(a.tokens)::text as tokens, pg_catalog.array_to_json(a.message_ids)::text as message_ids,
  a.items::text as items, a.reason, a.details::text as details`;

/** Null: the row has no entry. */
export function readEntry(row: Row): AuditEntry | null {
  if (typeof row.id !== "string") return null;
  const { at } = row;
  return {
    id: BigInt(row.id),
    at: typeof at === "string" ? BigInt.asIntN(64, BigInt(`0x${at}`)) : null,
    login: text(row.login),
    loginOid: number(row.login_oid),
    role: text(row.role),
    address: text(row.address),
    action: text(row.action),
    request: text(row.request),
    tokens: list(row.tokens),
    messageIds: list(row.message_ids),
    items: number(row.items),
    reason: text(row.reason),
    details: text(row.details),
  };
}

const text = (value: unknown): string | null => (typeof value === "string" ? value : null);

const number = (value: unknown): number | null =>
  typeof value === "string" ? Number(value) : null;

function list(value: unknown): readonly (string | null)[] | null {
  if (typeof value !== "string") return null;
  // A flat list: what has more dimensions than veil writes has the same elements.
  return (JSON.parse(value) as unknown[]).flat(8) as (string | null)[];
}

const EPOCH_MICROSECONDS = 946_684_800_000_000n;

/** `2026-01-31T12:00:00.000000Z`; a time that JavaScript does not know is said as Postgres counts it. */
export function formatTime(at: bigint | null): string | null {
  if (at === null) return null;
  const microseconds = at + EPOCH_MICROSECONDS;
  const rest = ((microseconds % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const date = new Date(Number((microseconds - rest) / 1000n));
  if (Number.isNaN(date.getTime())) return `${at} µs`;
  return date.toISOString().replace(/\.000Z$/, `.${String(rest).padStart(6, "0")}Z`);
}
