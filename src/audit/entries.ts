// Entries of the audit, column by column. They are written out in one form whatever the settings of
// a login are, and never by a function of veil's own: that may be what was altered.
import type { AuditEntry } from "../../vault/audit.ts";
import { OVER_BUDGET, PURPOSE_REFUSED, REASON_REQUIRED } from "../postgres/sqlstates.ts";
import type { Row } from "../postgres/values.ts";

/** Columns of a relation called `a`. All are null where there is no such entry. */
export const ENTRY_COLUMNS = `
  a.id::text as id, pg_catalog.encode(pg_catalog.timestamptz_send(a.at), 'hex') as at, a.login, a.login_oid::bigint::text
    as login_oid, a.role, a.address, a.action, a.request::text as request,
  pg_catalog.array_to_json(a.tokens)::text as tokens, pg_catalog.array_to_json(a.message_ids)::text as message_ids,
  a.items::text as items, a.reason, a.details::text as details`;

/** Null where the row has no entry. */
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
  // A flat list. veil writes one dimension; the same elements in more dimensions are read alike.
  return (JSON.parse(value) as unknown[]).flat(8) as (string | null)[];
}

const EPOCH_MICROSECONDS = 946_684_800_000_000n;

/**
 * `2026-01-31T12:00:00.000000Z`. A time beyond JavaScript's dates is given as PostgreSQL counts it.
 */
export function formatTime(at: bigint | null): string | null {
  if (at === null) return null;
  const microseconds = at + EPOCH_MICROSECONDS;
  const rest = ((microseconds % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const date = new Date(Number((microseconds - rest) / 1000n));
  if (Number.isNaN(date.getTime())) return `${at} µs`;
  return date.toISOString().replace(/\.000Z$/, `.${String(rest).padStart(6, "0")}Z`);
}

const REFUSALS: Readonly<Record<string, string>> = {
  [REASON_REQUIRED]: "no reason",
  [PURPOSE_REFUSED]: "purpose",
  [OVER_BUDGET]: "over budget",
};

/**
 * The details of an entry for a table: why a request was refused, whose request a decision is on.
 * Whoever owns the database may have written them; `--json` has all of them as they are.
 */
export function detailsText(details: string | null): string {
  const json: unknown = details === null ? null : JSON.parse(details);
  if (typeof json !== "object" || json === null) return "";
  const text = (name: string): string | null => {
    const value = Object.hasOwn(json, name) ? (json as Record<string, unknown>)[name] : null;
    return typeof value === "string" || typeof value === "number" ? String(value) : null;
  };
  const refusal = text("refusal");
  const allowed = refusal === OVER_BUDGET ? "allowed" : "expected";
  const said = [
    ["refused", refusal === null ? null : (REFUSALS[refusal] ?? refusal)],
    [allowed, text("expected")],
    ["requester", text("requester")],
    ["purpose", text("purpose")],
    ["approval", text("approval")],
    ["entry", text("entry")],
  ];
  return said.flatMap(([name, value]) => (value === null ? [] : [`${name}: ${value}`])).join("; ");
}
