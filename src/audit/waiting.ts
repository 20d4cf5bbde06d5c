// Entries that wait to be chained: in passing, or because somebody has stopped the chaining. No
// hash covers an entry that waits, so until it is chained it can be changed or removed like any
// other row.
import { Failure } from "../failure.ts";
import type { Database, Query } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";
import { type Chaining, tryToChain } from "./chain.ts";
import { formatTime } from "./entries.ts";
import { AuditProblems } from "./problems.ts";

/** Entries that are not chained yet. */
export type WaitingEntries = {
  readonly entries: number;
  /** When the first of them was written, and its id. Null where none waits. */
  readonly since: string | null;
  readonly first: bigint | null;
  /**
   * By the database's clock, too long: chaining comes right after an entry is committed, and every
   * hour.
   */
  readonly isOld: boolean;
};

const OLD_MINUTES = 10;

/** Of the snapshot of `query`. Adds a problem for each entry that waits and is gone. */
export async function readWaiting(query: Query, problems: AuditProblems): Promise<WaitingEntries> {
  const [row] = await query(
    `select a.id::text as first, pg_catalog.count(*) over ()::text as entries,
       pg_catalog.encode(pg_catalog.timestamptz_send(a.at), 'hex') as since,
       a.at < pg_catalog.now() - interval '${OLD_MINUTES} minutes' as is_old
     from pii_vault.audit_waiting w join pii_vault.audit a on a.id = w.entry
     where not exists (select from pii_vault.audit_chain c where c.entry = w.entry)
     order by a.at, a.id limit 1`,
  );
  const gone = await query(
    `select w.entry::text as id, pg_catalog.count(*) over ()::text as total from pii_vault.audit_waiting w
     where not exists (select from pii_vault.audit a where a.id = w.entry)
       and not exists (select from pii_vault.audit_chain c where c.entry = w.entry)
     order by w.entry limit $1`,
    [AuditProblems.MOST_NAMED],
  );
  for (const { id } of gone) {
    problems.add(
      "entry-missing",
      null,
      BigInt(String(id)),
      `entry ${id} is missing: it was deleted before it was chained`,
    );
  }
  problems.addUnnamed(Number(gone[0]?.total ?? 0) - gone.length);
  const since = row?.since;
  return {
    entries: Number(row?.entries ?? 0),
    since: typeof since === "string" ? formatTime(BigInt.asIntN(64, BigInt(`0x${since}`))) : null,
    first: row === undefined ? null : BigInt(String(row.first)),
    isOld: row?.is_old === true,
  };
}

/** Somebody else's chaining has this many tries' time to end a slow step. */
const ATTEMPTS = 3;

/** What verifying has read in its snapshot. */
export type ReadInSnapshot = {
  readonly waiting: WaitingEntries;
  /** Where the chain ended. */
  readonly position: bigint;
};

export const STOPPED_HINT =
  "ask the database who holds pii_vault.audit_head (docs/audit.md has the query), and read the server's log: " +
  "what waits can still be changed unnoticed";

/**
 * Whether entries that waited in the snapshot wait too long, or cannot be chained; then a problem
 * is added. `before`: what came of chaining before the snapshot. Chaining is tried again first,
 * because an entry may have been committed between the two, long after it was written.
 */
export async function isChainingStopped(
  database: Database,
  before: Chaining,
  { waiting, position }: ReadInSnapshot,
  problems: AuditProblems,
): Promise<boolean> {
  if (!waiting.isOld && !isRefusal(before)) return false;
  let chaining: Chaining = "busy";
  for (let attempt = 0; attempt < ATTEMPTS && chaining === "busy"; attempt++) {
    chaining = await tryToChain(database);
    if (isRefusal(chaining)) break;
    if (!(await stillWaits(database, chaining, waiting, position))) return false;
  }
  const { first } = waiting;
  const what =
    first === null
      ? "the audit cannot be chained"
      : `${waitingText(waiting)} and cannot be: entry ${first} is the first of them`;
  const why =
    chaining instanceof Failure
      ? chaining.message
      : chaining === "busy"
        ? "somebody holds the head of the chain"
        : "the database says that nothing waits";
  problems.add("not-chained", null, first, `${what} (${why})`);
  return true;
}

export const waitingText = ({ entries, since }: WaitingEntries): string =>
  `${entries} ${entries === 1 ? "entry waits" : "entries wait"} to be chained since ${since}`;

/** An outage and somebody else's lock are none: they pass. */
const isRefusal = (chaining: Chaining): boolean =>
  chaining instanceof Failure && !isOutage(chaining);

async function stillWaits(
  database: Database,
  chaining: Chaining,
  { first }: WaitingEntries,
  position: bigint,
): Promise<boolean> {
  const [row] = await database.query(
    `select
       exists (select from pii_vault.audit_waiting w where w.entry = $1::bigint) as waits,
       (select h.position::text from pii_vault.audit_head h limit 1) as position`,
    [first === null ? null : String(first)],
  );
  // Where the head moves on, somebody is chaining a backlog.
  return row?.waits === true && (chaining !== "busy" || row?.position === String(position));
}
