// The messages that could not become rows: listed, looked at, replayed after a fix, or given up.
import type { Subkeys } from "../vault/keys.ts";
import type { DataKeys } from "./data-keys.ts";
import { array, byteaArray, type Database, retryContention } from "./database.ts";
import { parseMessage } from "./message.ts";
import type { Opener } from "./opener.ts";
import { maxSeals, protectLogin } from "./protect.ts";
import { fetchFlushed, readSealed } from "./reveal.ts";

export type Entry = {
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
): Promise<readonly Entry[]> {
  const rows = await database.query(
    `select message_id::text, sent_at, state, reason from etl.quarantine
     where $1::text = 'all' or state = $1::text
     order by sent_at, message_id`,
    [state],
  );
  return rows.map((row) => ({
    messageId: String(row.message_id),
    sentAt: (row.sent_at as Date).toISOString(),
    state: String(row.state),
    reason: String(row.reason),
  }));
}

export type Body = Entry & {
  /** Null: it does not open. */
  readonly body: string | null;
  readonly verified: true | null;
};

type Bodies = { readonly request: string; readonly bodies: readonly Body[] };

/** Opens bodies, on record like a reveal. Entries that do not exist, or were discarded, are left out. */
export async function openBodies(
  database: Database,
  opener: Opener,
  messageIds: readonly string[],
  purpose: "show" | "replay",
  reason: string | null,
): Promise<Bodies> {
  const [recorded] = await database.query(
    "select etl.request_bodies($1::text[], $2::text, $3::text) as id",
    [array(messageIds), purpose, reason],
  );
  const request = String(recorded?.id);
  const rows = await fetchFlushed(() =>
    database.query(
      `select message_id, sent_at, state, reason, data_key::text, sealed, wrapped, proof, generation
       from etl.fetch_bodies($1::uuid, $2::text)`,
      [request, purpose],
    ),
  );
  const bodies: Body[] = [];
  for (const row of rows) {
    const messageId = String(row.message_id);
    if (!messageIds.includes(messageId)) continue;
    const sealed = readSealed(row);
    const opened =
      sealed === null ? null : await opener.open(sealed, { kind: "quarantine", messageId });
    bodies.push({
      messageId,
      sentAt: (row.sent_at as Date).toISOString(),
      state: String(row.state),
      reason: String(row.reason),
      body: opened?.text ?? null,
      verified: opened?.verified ?? null,
    });
  }
  return { request, bodies };
}

export type ReplayOutcome = {
  readonly messageId: string;
  readonly outcome: "replayed" | "still broken" | "not open" | "refused";
  readonly reason: string | null;
};

const BODIES_PER_REQUEST = 200;

/**
 * Reads each body again with today's rules. What is a login now becomes a row, in one statement with the
 * end of its quarantine; what is not stays as it is.
 */
export async function replay(
  database: Database,
  opener: Opener,
  subkeys: Subkeys,
  dataKeys: DataKeys,
  messageIds: readonly string[],
  reason: string | null,
): Promise<readonly ReplayOutcome[]> {
  const outcomes: ReplayOutcome[] = [];
  for (let i = 0; i < messageIds.length; i += BODIES_PER_REQUEST) {
    const chunk = messageIds.slice(i, i + BODIES_PER_REQUEST);
    const { request, bodies } = await openBodies(database, opener, chunk, "replay", reason);
    const byId = new Map(bodies.map((body) => [body.messageId, body]));
    for (const messageId of chunk) {
      const entry = byId.get(messageId);
      const outcome = async (): Promise<Omit<ReplayOutcome, "messageId">> => {
        if (entry === undefined || entry.state !== "open") {
          return { outcome: "not open", reason: null };
        }
        if (entry.body === null) return { outcome: "refused", reason: null };
        const parsed = parseMessage(entry.body);
        if (parsed.kind === "rejected") return { outcome: "still broken", reason: parsed.reason };
        const key = await dataKeys.take(maxSeals(1));
        const originals = new Map<string, Uint8Array>();
        const row = protectLogin(parsed.login, subkeys, key.dataKey, originals);
        const sealsSomething = originals.size > 0;
        const [answer] = await retryContention(() =>
          database.query(
            `select etl.replay($1::uuid, $2::text, $3::integer, $4::bytea, $5::uuid, $6::bytea,
              $7::text[], $8::bytea, $9::text[], $10::bytea[], $11::text, $12::text, $13::text,
              $14::text, $15::text, $16::integer) as done`,
            [
              ...[request, messageId, subkeys.generation, subkeys.check],
              ...(sealsSomething
                ? [key.wrapped.id, key.wrapped.wrapped, array(key.wrapped.recipients)]
                : [null, null, null]),
              sealsSomething ? key.wrapped.proof : null,
              ...[array([...originals.keys()]), byteaArray([...originals.values()])],
              ...[row.userId, row.deviceType, row.maskedIp, row.maskedDeviceId],
              ...[row.locale, row.appVersion],
            ],
          ),
        );
        return { outcome: answer?.done === true ? "replayed" : "not open", reason: null };
      };
      outcomes.push({ messageId, ...(await outcome()) });
    }
  }
  return outcomes;
}

/** Gives up open entries: their bodies go. Returns how many there were. */
export async function discard(
  database: Database,
  messageIds: readonly string[],
  reason: string | null,
): Promise<number> {
  let discarded = 0;
  for (let i = 0; i < messageIds.length; i += 1000) {
    const [answer] = await database.query("select etl.discard($1::text[], $2::text) as discarded", [
      array(messageIds.slice(i, i + 1000)),
      reason,
    ]);
    discarded += Number(answer?.discarded);
  }
  return discarded;
}
