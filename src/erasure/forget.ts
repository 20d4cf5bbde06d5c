// Erasure by token or by user: what would be erased, the erasure itself, and its receipt. The
// database decides what goes; none of it comes here. A tombstone stays for each erased token, and
// loads honour it.
import { Failure } from "../failure.ts";
import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { isBroken } from "../postgres/errors.ts";
import { array, type Row } from "../postgres/values.ts";

/** Tokens, or whatever stands in a user's rows. */
export type Subject = { readonly tokens: readonly string[] } | { readonly user: string };

/**
 * `keep`: other users have it. `replace`: it is no token, as a table from before veil may hold.
 * `forgotten`: it was erased before. `held`: a legal hold stands against it. `unknown`: the vault
 * does not hold it.
 */
export type ErasureOutcome = "erase" | "keep" | "replace" | "forgotten" | "held" | "unknown";

export type PlannedErasure = {
  /** Null where a value stands that is no token. */
  readonly token: string | null;
  readonly field: string;
  readonly outcome: ErasureOutcome;
  /** Logins of this user, or with this token; counted to 10,000. */
  readonly logins: number;
  /** Users besides this one (by token: besides the first), looked for in 10,000 logins. */
  readonly others: number;
};

/** Changes nothing. It is on record all the same, because it tells whose tokens are whose. */
export async function planForget(database: Database, subject: Subject): Promise<PlannedErasure[]> {
  const rows = await database.query(
    `select token, field, logins::integer, others::integer, outcome
     from ${"user" in subject ? "pii_vault.plan_forget_user($1::text)" : "pii_vault.plan_forget_tokens($1::text[])"}`,
    ["user" in subject ? subject.user : array(subject.tokens)],
  );
  return rows.map((row) => ({
    token: row.token === null ? null : String(row.token),
    field: String(row.field),
    outcome: row.outcome as ErasureOutcome,
    logins: Number(row.logins),
    others: Number(row.others),
  }));
}

/** As the audit has it. Nothing in it tells what was erased. */
export type ErasureReceipt = {
  readonly erasure: string;
  readonly kind: "user" | "tokens" | "expiry";
  readonly at: string;
  /** SHA-256 of the user id. */
  readonly subject?: string;
  /** Of an expiry: the id that its steps share. */
  readonly run?: string;
  /** Of an expiry: no login since this day had what was erased. */
  readonly before?: string;
  readonly erased: PerField;
  /** Kept, because other users have them. */
  readonly kept?: PerField;
  /** Of an erasure by token: erased before it. */
  readonly forgotten?: number;
  /** Of an erasure by token: not held by the vault. */
  readonly unknown?: number;
  readonly held?: number;
  /** Values that were no tokens, and are replaced. */
  readonly plain?: number;
  /** How many of the erased tokens had an original. */
  readonly originals: number;
  /** How many rows have fresh tokens now. */
  readonly rows?: number;
  /** SHA-256 of the erased tokens, sorted, a line each without the last line end. */
  readonly digest: string;
};

export type PerField = { readonly ip: number; readonly device_id: number };

export type Forgotten = {
  /** The id of the audit's entry. */
  readonly entry: number;
  readonly receipt: ErasureReceipt;
  readonly outcomes: readonly Omit<PlannedErasure, "logins" | "others">[];
};

/**
 * Erases all of it or nothing. Throws, and has erased nothing, where a legal hold stands against
 * any of it. Where the answer was lost it may have been done: see `isUnanswered`.
 */
export async function forget(
  database: Database,
  subject: Subject,
  reason: string,
): Promise<Forgotten> {
  let row: Row | undefined;
  try {
    [row] = await call(
      database,
      `select entry::text, receipt::text, outcomes::text
       from ${"user" in subject ? "pii_vault.forget_user($1::text, $2::text)" : "pii_vault.forget_tokens($1::text[], $2::text)"}`,
      ["user" in subject ? subject.user : array(subject.tokens), reason],
    );
  } catch (error) {
    throw isSurelyUndone(error) ? error : unanswered(error);
  }
  return {
    entry: Number(row?.entry),
    receipt: JSON.parse(String(row?.receipt)),
    outcomes: JSON.parse(String(row?.outcomes)),
  };
}

/** The server refused it, or never got it. */
const isSurelyUndone = (error: unknown): boolean =>
  error instanceof Failure &&
  error.code !== null &&
  (!isBroken(error) || /^(ECONNREFUSED|ENOTFOUND|CONNECT_TIMEOUT)$/.test(error.code));

const UNANSWERED = "UNANSWERED";

const unanswered = (error: unknown): Failure =>
  new Failure(
    1,
    `the erasure was sent, but no answer came (${(error as { code?: string }).code ?? "unknown"}); it may have been done`,
    WHETHER_IT_WAS_DONE,
    UNANSWERED,
  );

/** It may have been done, or not. */
export const isUnanswered = (error: unknown): boolean =>
  error instanceof Failure && error.code === UNANSWERED;

export const WHETHER_IT_WAS_DONE =
  "an auditor's `veil audit list --action erasure.forget --json` says whether it was done, with the receipt";

export type ChainPlace = { readonly position: number; readonly hash: string };

/** Where an entry of this login stands in the audit's chain; null while it waits to be chained. */
export async function placeOf(database: Database, entry: number): Promise<ChainPlace | null> {
  const [row] = await database.query(
    `select "position"::text, hash from pii_vault.place_of($1::bigint)`,
    [entry],
  );
  return row === undefined ? null : { position: Number(row.position), hash: String(row.hash) };
}

/**
 * Erased values may be stored again from then on, if they come. Answers with how many tombstones
 * went.
 */
export async function liftTombstones(
  database: Database,
  tokens: readonly string[],
  reason: string,
): Promise<number> {
  const [row] = await call(
    database,
    "select pii_vault.lift_tombstones($1::text[], $2::text) as lifted",
    [array([...new Set(tokens)]), reason],
  );
  return Number(row?.lifted);
}
