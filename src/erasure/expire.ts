// Erasure by age: whole periods whose last day is so long ago, and quarantined bodies as old as
// that.
import { hasCode, Interrupted } from "../failure.ts";
import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { LOCK_NOT_AVAILABLE } from "../postgres/sqlstates.ts";

export type Expiry = {
  /** At least 15. */
  readonly olderThanDays: number;
  /** Whether rows of `user_logins` go as well as originals. */
  readonly withRows: boolean;
  readonly reason: string;
  readonly dryRun: boolean;
  /** Ends it after the period that is under way. */
  readonly interrupt?: AbortSignal;
};

/** Of originals, and of rows. */
export type PerTable = { readonly originals: number; readonly rows: number };

export type ExpiredPeriod = PerTable & {
  /** Its first day, and the day after its last one. */
  readonly first: string;
  readonly until: string;
  /** Kept, because legal holds stand against it, or it belongs to canaries. */
  readonly held: PerTable;
  /** What it took on disk; 0 where it goes row by row. */
  readonly bytes: number;
  /** The ids of the audit's entries: one, or several where it goes row by row. */
  readonly entries: readonly number[];
};

export type Expired = PerTable & {
  /** Shared by all of its entries in the audit. */
  readonly run: string;
  /** Those that anything went of, or is held in. The oldest first. */
  readonly periods: readonly ExpiredPeriod[];
  readonly held: PerTable;
  /** Of the periods that anything went of. */
  readonly bytes: number;
  readonly bodies: { readonly discarded: number; readonly held: number };
};

export type OnStep = (done: Expired, looked: number, of: number) => void;

/**
 * Period by period, each a transaction of its own: what was done stays done when it is interrupted,
 * and running it again goes on. `onStep` is called with what was done so far, also before an
 * interruption throws.
 */
export async function expire(
  database: Database,
  expiry: Expiry,
  onStep: OnStep = () => {},
): Promise<Expired> {
  const { olderThanDays, withRows, interrupt } = expiry;
  const run = crypto.randomUUID();
  const none = { originals: 0, rows: 0 };
  let done: Expired = {
    ...{ run, ...none, periods: [], held: none, bytes: 0 },
    bodies: { discarded: 0, held: 0 },
  };
  const found = await database.query(PLAN, [olderThanDays, withRows]);
  let looked = 0;
  const step = (next: Expired): void => {
    done = next;
    onStep(done, looked, found.length);
    endIfAsked();
  };
  const endIfAsked = (): void => {
    if (!interrupt?.aborted) return;
    onStep(done, looked, found.length);
    throw new Interrupted();
  };
  for (const { first, until, bytes } of found) {
    let period: ExpiredPeriod = {
      ...{ first: String(first), until: String(until), bytes: Number(bytes) },
      ...{ ...none, held: none, entries: [] },
    };
    const before = done;
    looked++;
    for (let isOver = false; !isOver; ) {
      const part = await expirePart(database, expiry, { run, first: period.first, endIfAsked });
      period = addPart(period, part);
      isOver = part.isOver;
      step(addPeriod(before, period));
    }
  }
  for (;;) {
    const bodies = await expireBodies(database, expiry, { run, endIfAsked });
    const discarded = done.bodies.discarded + bodies.discarded;
    const next = { ...done, bodies: { discarded, held: bodies.held } };
    if (expiry.dryRun || bodies.discarded === 0) {
      onStep(next, looked, found.length);
      return next;
    }
    step(next);
  }
}

type Part = PerTable & {
  readonly held: PerTable;
  readonly entry: number | null;
  /** Whether nothing of the period is left to expire. */
  readonly isOver: boolean;
};

type StepOf = { readonly run: string; readonly endIfAsked: () => void };

async function expirePart(
  database: Database,
  { withRows, reason, dryRun }: Expiry,
  { run, first, endIfAsked }: StepOf & { readonly first: string },
): Promise<Part> {
  const [row] = dryRun
    ? await database.query(PLAN_PERIOD, [first, withRows])
    : await patiently(endIfAsked, () => call(database, EXPIRE, [first, withRows, run, reason]));
  return {
    originals: Number(row?.originals),
    rows: Number(row?.rows),
    held: { originals: Number(row?.held_originals), rows: Number(row?.held_rows) },
    entry: row?.entry === null ? null : Number(row?.entry),
    isOver: row?.is_over === true,
  };
}

/** What is held is counted by each part anew. */
const addPart = (period: ExpiredPeriod, part: Part): ExpiredPeriod => ({
  ...period,
  ...addCounts(period, part),
  held: part.held,
  entries: part.entry === null ? period.entries : [...period.entries, part.entry],
});

function addPeriod(done: Expired, period: ExpiredPeriod): Expired {
  const { originals, rows, held } = period;
  const isTouched = originals + rows + period.entries.length > 0;
  if (!isTouched && held.originals + held.rows === 0) return done;
  return {
    ...done,
    ...addCounts(done, period),
    periods: [...done.periods, period],
    held: addCounts(done.held, held),
    bytes: done.bytes + (isTouched ? period.bytes : 0),
  };
}

const addCounts = (one: PerTable, other: PerTable): PerTable => ({
  originals: one.originals + other.originals,
  rows: one.rows + other.rows,
});

async function expireBodies(
  database: Database,
  { olderThanDays, reason, dryRun }: Expiry,
  { run, endIfAsked }: StepOf,
): Promise<Expired["bodies"]> {
  const [row] = await patiently(endIfAsked, () =>
    call(database, EXPIRE_BODIES, [olderThanDays, run, reason, dryRun]),
  );
  return { discarded: Number(row?.discarded), held: Number(row?.held) };
}

const PLAN = `select first, until, bytes::text
  from pii_vault.plan_expire($1::integer, $2::boolean)`;
const PLAN_PERIOD = `select null as entry, originals::text, "rows"::text, held_originals::text,
    held_rows::text, true as is_over
  from pii_vault.plan_expire_period($1::date, $2::boolean)`;
const EXPIRE = `select entry::text, originals::text, "rows"::text, held_originals::text,
    held_rows::text, is_over
  from pii_vault.expire_period($1::date, $2::boolean, $3::uuid, $4::text)`;
const EXPIRE_BODIES = `select discarded, held
  from pii_vault.expire_bodies($1::integer, $2::uuid, $3::text, $4::boolean)`;

const LOCK_ATTEMPTS = 5;

/** It does not end because one session was in the way of one period for some seconds. */
async function patiently<T>(beforeRetry: () => void, step: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await step();
    } catch (error) {
      if (!hasCode(error, LOCK_NOT_AVAILABLE) || attempt === LOCK_ATTEMPTS) throw error;
      beforeRetry();
    }
  }
}
