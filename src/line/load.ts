// Stores a protected batch: the one statement of the line.
import type { Subkeys } from "../../vault/keys.ts";
import { Failure, failed, hasCode } from "../failure.ts";
import type { SealingKey } from "../keys/data-keys.ts";
import type { Protected } from "../login/protect.ts";
import type { Database } from "../postgres/database.ts";
import { MIXED_ANSWERS } from "../postgres/errors.ts";
import { WRONG_ISOLATION } from "../postgres/sqlstates.ts";
import { array, byteaArray, type Row, type Value } from "../postgres/values.ts";
import { dayOf, type Period } from "./known-originals.ts";
import { LINE_WAITS } from "./waits.ts";

export type LoadResult = {
  readonly loaded: number;
  readonly duplicates: number;
  readonly quarantined: number;
  readonly newOriginals: number;
  /** Those of the rows, but for periods that keep no originals any more. */
  readonly periods: readonly Period[];
  /** By the database's clock, in days since 1970. */
  readonly today: number;
};

/**
 * The parameters of `etl.load` and their types. By name, so that none can stand in another's place.
 *
 * Arrays, one a column. These are µs a row, of 1,000 rows with two new originals each: first this process (without
 * the driver's 2 to 3), then a backend that only reads them.
 *
 *     arrays                         0.9 + 4.5
 *     columns joined by a separator  1.1 + 4.5
 *     JSON objects                   1.1 + 9
 *     one JSON array a column        1.0 + 13
 *
 * Tokens by their position instead of twice, or all seals as one bytea, save nothing.
 *
 * One parameter of a composite type was tried instead of named ones. Made by the server out of the same arrays, it
 * costs the same (3.4 against 3.4 in the backend). But a type cannot be replaced, so each new column would take a
 * step. Written by this process as one literal, it costs 1.4 more in the backend and 1.7 here.
 */
const PARAMETERS = {
  batch: "uuid",
  generation: "integer",
  key_check: "bytea",
  data_key: "uuid",
  wrapped: "bytea",
  recipients: "text[]",
  proof: "bytea",
  tokens: "text[]",
  sealed: "bytea[]",
  message_ids: "text[]",
  sent_ats: "timestamptz[]",
  user_ids: "text[]",
  device_types: "text[]",
  masked_ips: "text[]",
  masked_device_ids: "text[]",
  locales: "text[]",
  app_versions: "integer[]",
  rejected_ids: "text[]",
  rejected_sent_ats: "timestamptz[]",
  rejected_reasons: "text[]",
  rejected_bodies: "bytea[]",
} as const;
type Parameter = keyof typeof PARAMETERS;
const NAMES = Object.keys(PARAMETERS) as readonly Parameter[];

const ARGUMENTS = NAMES.map((name, i) => `${name} => $${i + 1}::${PARAMETERS[name]}`).join(", ");
// As JSON, because no DateStyle of a session's changes how that writes a day.
const STATEMENT = `select batch_id::text, loaded, duplicates, quarantined, new_originals,
    pg_catalog.to_json(period_firsts)::text as period_firsts,
    pg_catalog.to_json(period_untils)::text as period_untils, pg_catalog.to_json(today)::text as today
  from etl.load(${ARGUMENTS})`;

/** Databases whose default is another isolation level than the one that a load needs. */
const otherIsolation = new WeakSet<Database>();

/**
 * When this returns, the batch is committed. When it throws, that is unknown, and loading it again is
 * right: the ledger makes it harmless.
 */
export async function load(
  database: Database,
  subkeys: Subkeys,
  key: SealingKey | null,
  batch: Protected,
  answerMs = LINE_WAITS.loadMs,
): Promise<LoadResult> {
  const id = crypto.randomUUID();
  const [answer] = await execute(database, argumentsOf(id, subkeys, key, batch), answerMs);
  // Drivers have mixed up two queries' answers: acknowledge on no other batch's word.
  if (answer?.batch_id !== id) {
    database.renew();
    throw new Failure(
      1,
      "the database's answer names another batch than the one that was sent",
      "nothing of it was acknowledged; report this with the versions in use",
      MIXED_ANSWERS,
    );
  }
  const result = {
    loaded: Number(answer.loaded),
    duplicates: Number(answer.duplicates),
    quarantined: Number(answer.quarantined),
    newOriginals: Number(answer.new_originals),
    periods: readPeriods(answer),
    today: readDay(JSON.parse(String(answer.today))),
  };
  if (
    result.loaded + result.duplicates + result.quarantined !==
    batch.rows.length + batch.rejected.length
  ) {
    throw failed("the database's counts do not add up to the batch", "nothing was acknowledged");
  }
  return result;
}

function readPeriods({ period_firsts, period_untils }: Row): Period[] {
  const firsts: string[] = JSON.parse(String(period_firsts));
  const untils: string[] = JSON.parse(String(period_untils));
  return firsts.map((first, i) => ({ first: readDay(first), until: readDay(untils[i]!) }));
}

const readDay = (text: string): number => dayOf(new Date(`${text}T00:00:00Z`));

/** What `etl.load` is called with, by name. */
export function argumentsOf(
  id: string,
  subkeys: Subkeys,
  key: SealingKey | null,
  { rows, originals, rejected }: Protected,
): Record<Parameter, Value> {
  return {
    batch: id,
    generation: subkeys.generation,
    key_check: subkeys.check,
    data_key: key?.wrapped.id ?? null,
    wrapped: key?.wrapped.wrapped ?? null,
    recipients: key === null ? null : array(key.wrapped.recipients),
    proof: key?.wrapped.proof ?? null,
    tokens: array([...originals.keys()]),
    sealed: byteaArray([...originals.values()]),
    message_ids: array(rows.map((row) => row.messageId)),
    sent_ats: array(rows.map((row) => row.sentAt.toISOString())),
    user_ids: array(rows.map((row) => row.userId)),
    device_types: array(rows.map((row) => row.deviceType)),
    masked_ips: array(rows.map((row) => row.maskedIp)),
    masked_device_ids: array(rows.map((row) => row.maskedDeviceId)),
    locales: array(rows.map((row) => row.locale)),
    app_versions: array(rows.map((row) => row.appVersion)),
    rejected_ids: array(rejected.map((message) => message.messageId)),
    rejected_sent_ats: array(rejected.map((message) => message.sentAt.toISOString())),
    rejected_reasons: array(rejected.map((message) => message.reason)),
    rejected_bodies: byteaArray(rejected.map((message) => message.sealed)),
  };
}

/**
 * One statement is its own transaction: no connection that dies can leave one open, with its locks. The
 * function refuses any isolation level but READ COMMITTED; where the server's default is another, the
 * level is set by a transaction around it.
 */
async function execute(database: Database, given: Record<Parameter, Value>, answerMs: number) {
  const values = NAMES.map((name) => given[name]);
  if (!otherIsolation.has(database)) {
    try {
      return await database.query(STATEMENT, values, answerMs);
    } catch (error) {
      if (!hasCode(error, WRONG_ISOLATION)) throw error;
      otherIsolation.add(database);
    }
  }
  return await database.transaction((query) => query(STATEMENT, values), answerMs);
}

const NOTHING: Protected = { rows: [], originals: new Map(), rejected: [] };

/** Throws if this database knows another token key. */
export const loadNothing = (
  database: Database,
  subkeys: Subkeys,
  answerMs?: number,
): Promise<LoadResult> => load(database, subkeys, null, NOTHING, answerMs);

/** Throws if it is not this one, before a message is received. */
export async function requireTokenKey(database: Database, subkeys: Subkeys): Promise<void> {
  await loadNothing(database, subkeys);
}
