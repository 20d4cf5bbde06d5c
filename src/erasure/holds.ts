// Legal holds: what must not be erased meanwhile, a token or everything that a user's rows have.

import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { utcText } from "../postgres/values.ts";

export type Held = { readonly token: string } | { readonly user: string };

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

/** Answers with its id. From then on no erasure touches what is held. */
export async function addHold(database: Database, held: Held, reason: string): Promise<string> {
  const [row] = await call(
    database,
    "select pii_vault.add_hold($1::text, $2::text, $3::text) as id",
    ["token" in held ? held.token : null, "user" in held ? held.user : null, reason],
  );
  return String(row?.id);
}

/** Whether there is nothing yet that it stands for: no original, no row. */
export async function isHoldEmpty(database: Database, id: string): Promise<boolean> {
  const [row] = await database.query("select pii_vault.is_hold_empty($1::uuid) as empty", [id]);
  return row?.empty === true;
}

/** Throws if there is none, or none any more. */
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
