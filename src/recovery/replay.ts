// Quarantined messages after a fix: read again, and stored as rows where they are logins now.
import type { Subkeys } from "../../vault/keys.ts";
import type { DataKeys } from "../keys/data-keys.ts";
import { parseMessage } from "../login/parse.ts";
import { maxSeals, protect } from "../login/protect.ts";
import { call } from "../postgres/call.ts";
import { array, byteaArray } from "../postgres/values.ts";
import { type BodyRecovery, openBodies, type QuarantinedBody } from "./quarantine.ts";

export type ReplayOutcome = {
  readonly messageId: string;
  readonly outcome: "replayed" | "still broken" | "not open" | "refused";
  readonly reason: string | null;
};

const BODIES_PER_REQUEST = 200;

export type Replaying = BodyRecovery & {
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
};

/**
 * Reads each body again with today's rules. A body that is a login now becomes a row, in the
 * statement that closes its entry; any other stays as it is. `onOutcome` hears of each message as
 * it is done.
 */
export async function replay(
  replaying: Replaying,
  messageIds: readonly string[],
  onOutcome: (outcome: ReplayOutcome) => void,
): Promise<void> {
  for (let i = 0; i < messageIds.length; i += BODIES_PER_REQUEST) {
    const chunk = messageIds.slice(i, i + BODIES_PER_REQUEST);
    const { request, bodies } = await openBodies(replaying, chunk, "replay");
    const byId = new Map(bodies.map((body) => [body.messageId, body]));
    for (const messageId of chunk) {
      const outcome = await replayBody(replaying, request, byId.get(messageId));
      onOutcome({ messageId, ...outcome });
    }
  }
}

async function replayBody(
  { database, subkeys, dataKeys }: Replaying,
  request: string,
  entry: QuarantinedBody | undefined,
): Promise<Omit<ReplayOutcome, "messageId">> {
  if (entry === undefined || entry.state !== "open") return { outcome: "not open", reason: null };
  if (entry.body === null) return { outcome: "refused", reason: null };
  const parsed = parseMessage(entry.body);
  if (parsed.kind === "rejected") return { outcome: "still broken", reason: parsed.reason };
  const key = await dataKeys.take(maxSeals(1));
  // The database puts in the id and the date: they are the entry's own.
  const message = { id: entry.messageId, sentAt: new Date(0), body: entry.body, parsed };
  const { rows, originals } = protect([message], subkeys, key.dataKey);
  const row = rows[0]!;
  const wrapped = originals.size > 0 ? key.wrapped : null;
  const values = [
    request,
    entry.messageId,
    subkeys.generation,
    subkeys.check,
    wrapped?.id ?? null,
    wrapped?.wrapped ?? null,
    wrapped === null ? null : array(wrapped.recipients),
    wrapped?.proof ?? null,
    array([...originals.keys()]),
    byteaArray([...originals.values()]),
    row.userId,
    row.deviceType,
    row.maskedIp,
    row.maskedDeviceId,
    row.locale,
    row.appVersion,
  ];
  const [answer] = await call(database, REPLAY, values);
  return { outcome: answer?.done === true ? "replayed" : "not open", reason: null };
}

const REPLAY = `select etl.replay($1::uuid, $2::text, $3::integer, $4::bytea, $5::uuid, $6::bytea,
  $7::text[], $8::bytea, $9::text[], $10::bytea[], $11::text, $12::text, $13::text, $14::text,
  $15::text, $16::integer) as done`;
