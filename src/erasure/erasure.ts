// Originals that are erased, by token, by user or by age: what would be done, what was, and its receipt. The
// rules are the database's (sql/current/erasure.sql, forget.sql, expire.sql); nothing of what is erased comes here.

import { Failure, Interrupted } from "../failure.ts";
import { array, type Database, type Row, type Value } from "../postgres/database.ts";
import { isBroken } from "../postgres/errors.ts";
import { readCommitted } from "../postgres/read-committed.ts";

/** Tokens, or whatever stands in a user's rows. */
export type Subject = { readonly tokens: readonly string[] } | { readonly user: string };

/**
 * `replace`: a value that is no token. `forgotten`: it was before. `keep`: others have it.
 */
export type Outcome = "erase" | "keep" | "replace" | "forgotten" | "held" | "unknown";

export type Planned = {
  /** Null: what stands there is no token. */
  readonly token: string | null;
  readonly field: string;
  readonly outcome: Outcome;
  /** Of this user, or with this token; counted to 10,000. */
  readonly logins: number;
  /** Besides the user, or the first one; looked for in 10,000 logins. */
  readonly others: number;
};

/** Changes nothing; that it was asked for is on record, because it tells whose tokens are whose. */
export async function planForget(database: Database, subject: Subject): Promise<Planned[]> {
  const rows = await database.query(
    `select token, field, logins::integer, others::integer, outcome
     from ${"user" in subject ? "pii_vault.plan_forget_user($1::text)" : "pii_vault.plan_forget_tokens($1::text[])"}`,
    ["user" in subject ? subject.user : array(subject.tokens)],
  );
  return rows.map((row) => ({
    token: row.token === null ? null : String(row.token),
    field: String(row.field),
    outcome: row.outcome as Outcome,
    logins: Number(row.logins),
    others: Number(row.others),
  }));
}

/** As the audit has it, and nothing in it is of what was erased. */
export type Receipt = {
  readonly erasure: string;
  readonly kind: "user" | "tokens" | "expiry";
  readonly at: string;
  /** SHA-256 of the user id. */
  readonly subject?: string;
  /** Of an expiry: the id that its steps share, and the day since which no login had what was erased. */
  readonly run?: string;
  readonly before?: string;
  readonly erased: PerField;
  /** Because others have them. */
  readonly kept?: PerField;
  /** Of an erasure of tokens: what was erased before it, and what the vault does not hold. */
  readonly forgotten?: number;
  readonly unknown?: number;
  readonly held?: number;
  /** Values that were no tokens, and are replaced. */
  readonly plain?: number;
  /** How many of the erased had one. */
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
  readonly receipt: Receipt;
  readonly outcomes: readonly Omit<Planned, "logins" | "others">[];
};

/**
 * All of it or nothing: throws, and has erased nothing, where a legal hold stands against any of it. Only where
 * the answer was lost nobody here can tell: see `isUnanswered`.
 */
export async function forget(
  database: Database,
  subject: Subject,
  reason: string,
): Promise<Forgotten> {
  let row: Row | undefined;
  try {
    [row] = await readCommitted(
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

/** Refused by the server, or never sent to it. */
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

export type Place = { readonly position: number; readonly hash: string };

/** Where an entry of this login stands in the audit's chain; null while it waits to be chained. */
export async function placeOf(database: Database, entry: number): Promise<Place | null> {
  const [row] = await database.query(
    `select "position"::text, hash from pii_vault.place_of($1::bigint)`,
    [entry],
  );
  return row === undefined ? null : { position: Number(row.position), hash: String(row.hash) };
}

export type Expiry = {
  readonly olderThanDays: number;
  readonly reason: string;
  readonly dryRun: boolean;
  /** Ends it after the step that it is at. */
  readonly interrupt?: AbortSignal;
};

export type Expired = {
  /** Shared by the receipts of its steps. */
  readonly run: string;
  readonly looked: number;
  readonly erased: PerField;
  /** Legal holds stand against them. */
  readonly held: number;
  readonly bodies: { readonly discarded: number; readonly held: number };
  /** The ids of the audit's entries. */
  readonly entries: readonly number[];
};

/** About how many originals there are, as the server last counted. */
export async function roughCount(database: Database): Promise<number> {
  const [row] = await database.query(
    `select greatest(reltuples, 0)::bigint::text as n from pg_catalog.pg_class
     where oid = 'pii_vault.originals'::regclass::oid`,
  );
  return Number(row?.n);
}

/**
 * Step by step, each a transaction of its own: what was done stays done when it is interrupted, and running it
 * again goes on. `onStep` is called with what was done so far, before an interruption throws.
 */
export async function expire(
  database: Database,
  { olderThanDays, reason, dryRun, interrupt }: Expiry,
  onStep: (done: Expired) => void,
): Promise<Expired> {
  const run = crypto.randomUUID();
  let done: Expired = {
    ...{ run, looked: 0, erased: { ip: 0, device_id: 0 }, held: 0, entries: [] },
    bodies: { discarded: 0, held: 0 },
  };
  const endIfAsked = (): void => {
    if (!interrupt?.aborted) return;
    onStep(done);
    throw new Interrupted();
  };
  const step = (next: Expired): void => {
    done = next;
    onStep(done);
    endIfAsked();
  };
  let after: string | null = null;
  do {
    const [row]: readonly Row[] = dryRun
      ? await database.query(
          "select null as entry, * from pii_vault.plan_expire($1::integer, $2::text)",
          [olderThanDays, after],
        )
      : await patiently(database, endIfAsked, EXPIRE, [olderThanDays, after, run, reason]);
    after = row?.upto === null ? null : String(row?.upto);
    step({
      ...done,
      looked: done.looked + Number(row?.looked),
      erased: {
        ip: done.erased.ip + Number(row?.erased_ip),
        device_id: done.erased.device_id + Number(row?.erased_device_id),
      },
      held: done.held + Number(row?.held),
      entries: row?.entry === null ? done.entries : [...done.entries, Number(row?.entry)],
    });
  } while (after !== null);
  let discarded = 0;
  for (;;) {
    const values = [olderThanDays, run, reason, dryRun];
    const [row] = await patiently(database, endIfAsked, EXPIRE_BODIES, values);
    discarded += Number(row?.discarded);
    const next = { ...done, bodies: { discarded, held: Number(row?.held) } };
    if (dryRun || Number(row?.discarded) === 0) {
      onStep(next);
      return next;
    }
    step(next);
  }
}

const EXPIRE = `select entry::text, upto, looked, erased_ip, erased_device_id, held
  from pii_vault.expire($1::integer, $2::text, $3::uuid, $4::text)`;
const EXPIRE_BODIES = `select discarded, held
  from pii_vault.expire_bodies($1::integer, $2::uuid, $3::text, $4::boolean)`;

const GATE_ATTEMPTS = 5;

/** A run has many steps: one that finds a load in its way for long does not end it. */
async function patiently(
  database: Database,
  beforeRetry: () => void,
  text: string,
  values: readonly Value[],
) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await readCommitted(database, text, values);
    } catch (error) {
      if (!(error instanceof Failure && error.code === "55P03") || attempt === GATE_ATTEMPTS) {
        throw error;
      }
      beforeRetry();
    }
  }
}
