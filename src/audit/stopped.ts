// Whether what waits to be chained waits in passing, or because somebody has stopped the chain: what waits is in
// no hash, so for as long as it does it can be changed and taken out like any other row.

import { Failure } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";
import { type Chaining, tryToChain } from "./chain.ts";
import type { Offences } from "./offences.ts";
import type { Waiting } from "./verify.ts";

/** So that a slow step of somebody else's backlog has time to end. */
const ATTEMPTS = 3;

/** What verifying has read in its snapshot. */
export type Read = {
  readonly waiting: Waiting;
  /** Where the chain ended. */
  readonly position: bigint;
};

export const STOPPED_HINT =
  "ask the database who holds pii_vault.audit_head (docs/audit.md has the query), and read the server's log: " +
  "what waits can still be changed unnoticed";

/**
 * `before`: what came of chaining before the snapshot was taken. Adds an offence, and answers whether, if what waited
 * in the snapshot waits too long or cannot be chained: it is tried once more, because an entry may have been
 * committed between the two, long after it was written.
 */
export async function findStopped(
  database: Database,
  before: Chaining,
  { waiting, position }: Read,
  offences: Offences,
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
  offences.add("not-chained", null, first, `${what} (${why})`);
  return true;
}

export const waitingText = ({ entries, since }: Waiting): string =>
  `${entries} ${entries === 1 ? "entry waits" : "entries wait"} to be chained since ${since}`;

/** Not an outage, nor another's lock, which pass. */
const isRefusal = (chaining: Chaining): boolean =>
  chaining instanceof Failure && !isOutage(chaining);

async function stillWaits(
  database: Database,
  chaining: Chaining,
  { first }: Waiting,
  position: bigint,
): Promise<boolean> {
  const [row] = await database.query(
    `select
       exists (select from pii_vault.audit_waiting w where w.entry = $1::bigint) as waits,
       (select h.position::text from pii_vault.audit_head h limit 1) as position`,
    [first === null ? null : String(first)],
  );
  // Somebody works off a backlog where the head moves on.
  return row?.waits === true && (chaining !== "busy" || row?.position === String(position));
}
