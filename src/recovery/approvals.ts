// Requests that wait for a second person, and those that went without one and wait for a review.
import type { Database } from "../postgres/database.ts";
import { type Row, utcText } from "../postgres/values.ts";

export type OpenRequest = {
  readonly request: string;
  /** `review`: it was made by break-glass, and has been served. */
  readonly waitsFor: "approval" | "review";
  readonly login: string;
  readonly recordedAt: string;
  /** Null where nothing expires. */
  readonly expiresAt: string | null;
  readonly kind: "reveal" | "show" | "replay";
  readonly items: number;
  /** Tokens, or ids of messages. */
  readonly subjects: readonly string[];
  readonly purpose: string | null;
  readonly reason: string | null;
};

/** The oldest first. */
export async function openRequests(database: Database): Promise<readonly OpenRequest[]> {
  const rows = await database.query(
    `select request::text, 'approval' as waits_for, login, ${utcText("recorded_at")} as recorded,
       ${utcText("expires_at")} as expires, kind, items, purpose, reason, recorded_at,
       pg_catalog.array_to_json(subjects)::text as subjects
     from pii_vault.waiting_requests()
     union all
     select request::text, 'review', login, ${utcText("recorded_at")}, null, kind, items, purpose, reason,
       recorded_at, pg_catalog.array_to_json(subjects)::text
     from pii_vault.unreviewed_requests()
     order by recorded_at, request`,
  );
  return rows.map(readRequest);
}

const textOrNull = (value: unknown): string | null => (value === null ? null : String(value));

function readRequest(row: Row): OpenRequest {
  return {
    request: String(row.request),
    waitsFor: row.waits_for as OpenRequest["waitsFor"],
    login: String(row.login),
    recordedAt: String(row.recorded),
    expiresAt: textOrNull(row.expires),
    kind: row.kind as OpenRequest["kind"],
    items: Number(row.items),
    subjects: JSON.parse(String(row.subjects)),
    purpose: textOrNull(row.purpose),
    reason: textOrNull(row.reason),
  };
}

/** Throws if it is the caller's own, has been decided, or does not wait for this. */
export async function settle(
  database: Database,
  verdict: "approve" | "deny" | "review",
  request: string,
  reason: string | null,
): Promise<void> {
  if (verdict === "review") {
    await database.query("select pii_vault.review($1::uuid, $2::text)", [request, reason]);
  } else {
    await database.query("select pii_vault.decide($1::uuid, $2::boolean, $3::text)", [
      request,
      verdict === "approve",
      reason,
    ]);
  }
}
