// The messages that could not become rows: listed, opened on record, or given up. replay.ts reads
// them again.
import type { OpeningKeys } from "../keys/open.ts";
import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { array, type Row, utcText } from "../postgres/values.ts";
import { readSealed, SEALED_COLUMNS, whenApproved } from "./fetch.ts";

export type QuarantineEntry = {
  readonly messageId: string;
  readonly sentAt: string;
  readonly state: string;
  readonly reason: string;
};

export type QuarantineState = "open" | "replayed" | "discarded";

/** The oldest first; no body is opened, so nothing is put on record. */
export async function listEntries(
  database: Database,
  state: QuarantineState | "all",
): Promise<readonly QuarantineEntry[]> {
  const rows = await database.query(
    `select message_id::text, ${utcText("sent_at")} as sent, state, reason from etl.quarantine
     where $1::text = 'all' or state = $1::text
     order by sent_at, message_id`,
    [state],
  );
  return rows.map(readEntry);
}

const readEntry = (row: Row): QuarantineEntry => ({
  messageId: String(row.message_id),
  sentAt: String(row.sent),
  state: String(row.state),
  reason: String(row.reason),
});

export type QuarantinedBody = QuarantineEntry & {
  /** Null where it does not open. */
  readonly body: string | null;
  readonly verified: true | null;
};

/** What bodies are opened with. */
export type BodyRecovery = {
  readonly database: Database;
  readonly keys: OpeningKeys;
  readonly reason: string | null;
  /**
   * Called where the request waits for approval. Answers when it does not wait any more, or throws.
   */
  readonly onWaiting?: (request: string) => Promise<void>;
};

/**
 * Opens bodies, on record like a reveal. Entries that do not exist, or were discarded, are left
 * out.
 */
export async function openBodies(
  { database, keys, reason, onWaiting }: BodyRecovery,
  messageIds: readonly string[],
  purpose: "show" | "replay",
): Promise<{ readonly request: string; readonly bodies: readonly QuarantinedBody[] }> {
  const [recorded] = await call(
    database,
    "select etl.request_bodies($1::text[], $2::text, $3::text) as id",
    [array(messageIds), purpose, reason],
  );
  const request = String(recorded?.id);
  const rows = await whenApproved(
    () => call(database, FETCH_BODIES, [request, purpose]),
    onWaiting && (() => onWaiting(request)),
  );
  const bodies: QuarantinedBody[] = [];
  for (const row of rows) {
    const messageId = String(row.message_id);
    if (!messageIds.includes(messageId)) continue;
    const sealed = readSealed(row);
    const opened = sealed && (await keys.open(sealed, { kind: "quarantine", messageId }));
    bodies.push({
      ...readEntry(row),
      body: opened?.text ?? null,
      verified: opened?.verified ?? null,
    });
  }
  return { request, bodies };
}

const FETCH_BODIES = `select message_id, ${utcText("sent_at")} as sent, state, reason,
    ${SEALED_COLUMNS}
  from etl.fetch_bodies($1::uuid, $2::text)`;

/** Gives up open entries: their bodies go. Returns how many there were. */
export async function discard(
  database: Database,
  messageIds: readonly string[],
  reason: string | null,
): Promise<number> {
  let discarded = 0;
  for (let i = 0; i < messageIds.length; i += 1000) {
    const chunk = array(messageIds.slice(i, i + 1000));
    const [answer] = await call(database, "select etl.discard($1::text[], $2::text) as discarded", [
      chunk,
      reason,
    ]);
    discarded += Number(answer?.discarded);
  }
  return discarded;
}
