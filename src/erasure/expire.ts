// Erasure by age: originals that no login has had for so long, and quarantined bodies as old as
// that.
import { hasCode, Interrupted } from "../failure.ts";
import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { LOCK_NOT_AVAILABLE } from "../postgres/sqlstates.ts";
import type { PerField } from "./forget.ts";

export type Expiry = {
  readonly olderThanDays: number;
  readonly reason: string;
  readonly dryRun: boolean;
  /** Ends it after the step that is under way. */
  readonly interrupt?: AbortSignal;
};

export type Expired = {
  /** Shared by the receipts of its steps. */
  readonly run: string;
  readonly looked: number;
  readonly erased: PerField;
  /** Kept, because legal holds stand against them. */
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
 * Step by step, each a transaction of its own: what was done stays done when it is interrupted, and
 * running it again goes on. `onStep` is called with what was done so far, also before an
 * interruption throws.
 */
export async function expire(
  database: Database,
  expiry: Expiry,
  onStep: (done: Expired) => void,
): Promise<Expired> {
  const run = crypto.randomUUID();
  let done: Expired = {
    run,
    looked: 0,
    erased: { ip: 0, device_id: 0 },
    held: 0,
    bodies: { discarded: 0, held: 0 },
    entries: [],
  };
  const endIfAsked = (): void => {
    if (!expiry.interrupt?.aborted) return;
    onStep(done);
    throw new Interrupted();
  };
  const step = (next: Expired): void => {
    done = next;
    onStep(done);
    endIfAsked();
  };
  for (let after: string | null = null; ; ) {
    const originals = await expireOriginals(database, expiry, { run, after, endIfAsked });
    step(addOriginals(done, originals));
    if (originals.upto === null) break;
    after = originals.upto;
  }
  for (;;) {
    const bodies = await expireBodies(database, expiry, { run, endIfAsked });
    const discarded = done.bodies.discarded + bodies.discarded;
    const next = { ...done, bodies: { discarded, held: bodies.held } };
    if (expiry.dryRun || bodies.discarded === 0) {
      onStep(next);
      return next;
    }
    step(next);
  }
}

type OriginalsStep = {
  /** Where the next step begins; null after the last one. */
  readonly upto: string | null;
  readonly looked: number;
  readonly erased: PerField;
  readonly held: number;
  /** The entry of the audit; null in a dry run. */
  readonly entry: number | null;
};

type StepOf = { readonly run: string; readonly endIfAsked: () => void };

async function expireOriginals(
  database: Database,
  { olderThanDays, reason, dryRun }: Expiry,
  { run, after, endIfAsked }: StepOf & { readonly after: string | null },
): Promise<OriginalsStep> {
  const [row] = dryRun
    ? await database.query(PLAN_EXPIRE, [olderThanDays, after])
    : await patiently(endIfAsked, () =>
        call(database, EXPIRE, [olderThanDays, after, run, reason]),
      );
  return {
    upto: row?.upto === null ? null : String(row?.upto),
    looked: Number(row?.looked),
    erased: { ip: Number(row?.erased_ip), device_id: Number(row?.erased_device_id) },
    held: Number(row?.held),
    entry: row?.entry === null ? null : Number(row?.entry),
  };
}

const addOriginals = (done: Expired, step: OriginalsStep): Expired => ({
  ...done,
  looked: done.looked + step.looked,
  erased: {
    ip: done.erased.ip + step.erased.ip,
    device_id: done.erased.device_id + step.erased.device_id,
  },
  held: done.held + step.held,
  entries: step.entry === null ? done.entries : [...done.entries, step.entry],
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

const PLAN_EXPIRE = "select null as entry, * from pii_vault.plan_expire($1::integer, $2::text)";
const EXPIRE = `select entry::text, upto, looked, erased_ip, erased_device_id, held
  from pii_vault.expire($1::integer, $2::text, $3::uuid, $4::text)`;
const EXPIRE_BODIES = `select discarded, held
  from pii_vault.expire_bodies($1::integer, $2::uuid, $3::text, $4::boolean)`;

const GATE_ATTEMPTS = 5;

/** A run has many steps: it does not end because a load was in the way of one of them for long. */
async function patiently<T>(beforeRetry: () => void, step: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await step();
    } catch (error) {
      if (!hasCode(error, LOCK_NOT_AVAILABLE) || attempt === GATE_ATTEMPTS) throw error;
      beforeRetry();
    }
  }
}
