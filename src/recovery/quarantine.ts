// The messages that could not become rows: listed, looked at, replayed after a fix, or given up.
import type { Subkeys } from "../../vault/keys.ts";
import { hasCode } from "../failure.ts";
import type { DataKeys } from "../keys/data-keys.ts";
import type { Opener } from "../keys/opener.ts";
import { parseMessage } from "../login/parse.ts";
import { maxSeals, protect } from "../login/protect.ts";
import { call, retryContention } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { APPROVAL_PENDING } from "../postgres/sqlstates.ts";
import { array, byteaArray, utcText } from "../postgres/values.ts";
import { readSealed, SEALED_COLUMNS } from "./reveal.ts";

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
    `select message_id::text, ${utcText("sent_at")} as sent, state, reason from etl.quarantine
     where $1::text = 'all' or state = $1::text
     order by sent_at, message_id`,
    [state],
  );
  return rows.map((row) => ({
    messageId: String(row.message_id),
    sentAt: String(row.sent),
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

/** Called where the request waits for approval: answers when it does not any more, or throws. */
export type OnWaiting = (request: string) => Promise<void>;

/** Opens bodies, on record like a reveal. Entries that do not exist, or were discarded, are left out. */
export async function openBodies(
  database: Database,
  opener: Opener,
  messageIds: readonly string[],
  purpose: "show" | "replay",
  reason: string | null,
  onWaiting?: OnWaiting,
): Promise<Bodies> {
  const [recorded] = await call(
    database,
    "select etl.request_bodies($1::text[], $2::text, $3::text) as id",
    [array(messageIds), purpose, reason],
  );
  const request = String(recorded?.id);
  const fetchBodies = () => call(database, FETCH_BODIES, [request, purpose]);
  const rows = await fetchBodies().catch(async (error: unknown) => {
    const waits = hasCode(error, APPROVAL_PENDING);
    if (!waits || onWaiting === undefined) throw error;
    await onWaiting(request);
    return await fetchBodies();
  });
  const bodies: Body[] = [];
  for (const row of rows) {
    const messageId = String(row.message_id);
    if (!messageIds.includes(messageId)) continue;
    const sealed = readSealed(row);
    const opened =
      sealed === null ? null : await opener.open(sealed, { kind: "quarantine", messageId });
    bodies.push({
      messageId,
      sentAt: String(row.sent),
      state: String(row.state),
      reason: String(row.reason),
      body: opened?.text ?? null,
      verified: opened?.verified ?? null,
    });
  }
  return { request, bodies };
}

const FETCH_BODIES = `select message_id, ${utcText("sent_at")} as sent, state, reason, data_key::text,
    ${SEALED_COLUMNS}, generation
  from etl.fetch_bodies($1::uuid, $2::text)`;

export type ReplayOutcome = {
  readonly messageId: string;
  readonly outcome: "replayed" | "still broken" | "not open" | "refused";
  readonly reason: string | null;
};

const BODIES_PER_REQUEST = 200;

export type Replayer = {
  readonly database: Database;
  readonly opener: Opener;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
  readonly onWaiting?: OnWaiting;
};

/**
 * Reads each body again with today's rules. What is a login now becomes a row, in one statement with the
 * end of its quarantine; what is not stays as it is. `onOutcome` hears of each message as it is done.
 */
export async function replay(
  replayer: Replayer,
  messageIds: readonly string[],
  reason: string | null,
  onOutcome: (outcome: ReplayOutcome) => void,
): Promise<void> {
  const { database, opener, onWaiting } = replayer;
  for (let i = 0; i < messageIds.length; i += BODIES_PER_REQUEST) {
    const chunk = messageIds.slice(i, i + BODIES_PER_REQUEST);
    const { request, bodies } = await openBodies(
      database,
      opener,
      chunk,
      "replay",
      reason,
      onWaiting,
    );
    const byId = new Map(bodies.map((body) => [body.messageId, body]));
    for (const messageId of chunk) {
      const entry = byId.get(messageId);
      onOutcome({ messageId, ...(await replayEntry(replayer, request, entry)) });
    }
  }
}

async function replayEntry(
  { database, subkeys, dataKeys }: Replayer,
  request: string,
  entry: Body | undefined,
): Promise<Omit<ReplayOutcome, "messageId">> {
  if (entry === undefined || entry.state !== "open") return { outcome: "not open", reason: null };
  if (entry.body === null) return { outcome: "refused", reason: null };
  const parsed = parseMessage(entry.body);
  if (parsed.kind === "rejected") return { outcome: "still broken", reason: parsed.reason };
  const key = await dataKeys.take(maxSeals(1));
  // Its own id and date are the entry's: the database puts them in.
  const message = { id: entry.messageId, sentAt: new Date(0), body: entry.body, parsed };
  const { rows, originals } = protect([message], subkeys, key.dataKey);
  const row = rows[0]!;
  const wrapped = originals.size > 0 ? key.wrapped : null;
  const values = [
    ...[request, entry.messageId, subkeys.generation, subkeys.check],
    ...[wrapped?.id ?? null, wrapped?.wrapped ?? null],
    ...[wrapped === null ? null : array(wrapped.recipients), wrapped?.proof ?? null],
    ...[array([...originals.keys()]), byteaArray([...originals.values()])],
    ...[row.userId, row.deviceType, row.maskedIp, row.maskedDeviceId],
    ...[row.locale, row.appVersion],
  ];
  const [answer] = await call(database, REPLAY, values);
  return { outcome: answer?.done === true ? "replayed" : "not open", reason: null };
}

const REPLAY = `select etl.replay($1::uuid, $2::text, $3::integer, $4::bytea, $5::uuid, $6::bytea,
  $7::text[], $8::bytea, $9::text[], $10::bytea[], $11::text, $12::text, $13::text, $14::text,
  $15::text, $16::integer) as done`;

/** Gives up open entries: their bodies go. Returns how many there were. */
export async function discard(
  database: Database,
  messageIds: readonly string[],
  reason: string | null,
): Promise<number> {
  let discarded = 0;
  for (let i = 0; i < messageIds.length; i += 1000) {
    const chunk = array(messageIds.slice(i, i + 1000));
    const [answer] = await retryContention(() =>
      database.query("select etl.discard($1::text[], $2::text) as discarded", [chunk, reason]),
    );
    discarded += Number(answer?.discarded);
  }
  return discarded;
}
