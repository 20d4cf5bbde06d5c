// Legal holds: a token, or all tokens of a user's rows, that no erasure touches until the hold is
// released.

import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { utcText } from "../postgres/values.ts";

export type HoldSubject = { readonly token: string } | { readonly user: string };

export type Hold = {
  readonly id: string;
  readonly token: string | null;
  readonly user: string | null;
  readonly reason: string;
  readonly addedBy: string;
  readonly addedAt: string;
  readonly releasedBy: string | null;
  readonly releasedAt: string | null;
  readonly releaseReason: string | null;
};

/** Answers with the hold's id. */
export async function addHold(
  database: Database,
  held: HoldSubject,
  reason: string,
): Promise<string> {
  const [row] = await call(
    database,
    "select pii_vault.add_hold($1::text, $2::text, $3::text) as id",
    ["token" in held ? held.token : null, "user" in held ? held.user : null, reason],
  );
  return String(row?.id);
}

/** Whether there is nothing yet that the hold stands for: no original, no row. */
export async function isHoldEmpty(database: Database, id: string): Promise<boolean> {
  const [row] = await database.query("select pii_vault.is_hold_empty($1::uuid) as empty", [id]);
  return row?.empty === true;
}

/** Throws if there is no such hold, or it was released before. */
export async function releaseHold(database: Database, id: string, reason: string): Promise<void> {
  await call(database, "select pii_vault.release_hold($1::uuid, $2::text)", [id, reason]);
}

/** The oldest first. */
export async function listHolds(database: Database, all: boolean): Promise<Hold[]> {
  const rows = await database.query(
    `select id::text, token, user_id, reason, added_by, ${utcText("added_at")} as added_at, released_by,
       ${utcText("released_at")} as released_at, release_reason
     from pii_vault.list_holds()
     where $1::boolean or released_at is null`,
    [all],
  );
  const text = (value: unknown) => (value === null ? null : String(value));
  return rows.map((row) => ({
    id: String(row.id),
    token: text(row.token),
    user: text(row.user_id),
    reason: String(row.reason),
    addedBy: String(row.added_by),
    addedAt: String(row.added_at),
    releasedBy: text(row.released_by),
    releasedAt: text(row.released_at),
    releaseReason: text(row.release_reason),
  }));
}
