// Stores a protected batch: the one statement of the line.
import type { Subkeys } from "../../vault/keys.ts";
import { Failure, failed, hasCode } from "../failure.ts";
import type { SealingKey } from "../keys/data-keys.ts";
import type { Protected } from "../login/protect.ts";
import type { Database } from "../postgres/database.ts";
import { MIXED_ANSWERS } from "../postgres/errors.ts";
import { WRONG_ISOLATION } from "../postgres/sqlstates.ts";
import { array, byteaArray, type Value } from "../postgres/values.ts";
import { LINE_WAITS } from "./waits.ts";

export type LoadResult = {
  readonly loaded: number;
  readonly duplicates: number;
  readonly quarantined: number;
  readonly newOriginals: number;
};

const STATEMENT = `select batch_id::text, loaded, duplicates, quarantined, new_originals
  from etl.load($1::uuid, $2::integer, $3::bytea, $4::uuid, $5::bytea, $6::text[], $7::bytea,
    $8::text[], $9::bytea[], $10::text[], $11::timestamptz[], $12::text[], $13::text[], $14::text[],
    $15::text[], $16::text[], $17::integer[], $18::text[], $19::timestamptz[], $20::text[],
    $21::bytea[])`;

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
  const { rows, rejected } = batch;
  // Arrays, one a column. Of 1,000 rows with two new originals each, this process and a backend that only
  // reads them need (µs a row, the driver's 2 to 3 not counted) 0.9 + 4.5; with JSON objects 1.1 + 9, with one
  // JSON array a column 1.0 + 13, with columns joined by a separator 1.1 + 4.5. Tokens by their position
  // instead of twice, or all seals as one bytea, save nothing.
  const values: Value[] = [
    id,
    subkeys.generation,
    subkeys.check,
    key?.wrapped.id ?? null,
    key?.wrapped.wrapped ?? null,
    key === null ? null : array(key.wrapped.recipients),
    key?.wrapped.proof ?? null,
    array([...batch.originals.keys()]),
    byteaArray([...batch.originals.values()]),
    array(rows.map((row) => row.messageId)),
    array(rows.map((row) => row.sentAt.toISOString())),
    array(rows.map((row) => row.userId)),
    array(rows.map((row) => row.deviceType)),
    array(rows.map((row) => row.maskedIp)),
    array(rows.map((row) => row.maskedDeviceId)),
    array(rows.map((row) => row.locale)),
    array(rows.map((row) => row.appVersion)),
    array(rejected.map((message) => message.messageId)),
    array(rejected.map((message) => message.sentAt.toISOString())),
    array(rejected.map((message) => message.reason)),
    byteaArray(rejected.map((message) => message.sealed)),
  ];
  const [answer] = await execute(database, values, answerMs);
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
  };
  if (result.loaded + result.duplicates + result.quarantined !== rows.length + rejected.length) {
    throw failed("the database's counts do not add up to the batch", "nothing was acknowledged");
  }
  return result;
}

/**
 * One statement is its own transaction: no connection that dies can leave one open, with its locks. The
 * function refuses any isolation level but READ COMMITTED; where the server's default is another, the
 * level is set by a transaction around it.
 */
async function execute(database: Database, values: readonly Value[], answerMs: number) {
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

/** An empty load: throws if this database knows another token key, before a message is received. */
export async function requireTokenKey(database: Database, subkeys: Subkeys): Promise<void> {
  await load(database, subkeys, null, { rows: [], originals: new Map(), rejected: [] });
}
