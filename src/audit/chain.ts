// Chains what waits of the audit. To be called when an entry has been committed; the entry stays on record
// without it, so what goes wrong here fails no command: the next call chains it, whoever makes it.

import { Failure, failed } from "../failure.ts";
import type { Database } from "../postgres/database.ts";

/** As many as the database chains at a time. */
const STEP = 10_000;
/** Somebody else is at it, and may have looked before our entry was there. */
const BUSY_ATTEMPTS = 10;

/** Done: what had been committed before is chained. A failure is what the database said. */
export type Chaining = "done" | "busy" | Failure;

/** False: some entries may still wait. Never throws. */
export async function chainAudit(database: Database, signal?: AbortSignal): Promise<boolean> {
  return (await tryToChain(database, signal)) === "done";
}

/** The same for who has to know why. A standby, an outage, an altered chain, somebody who is in the way. */
export async function tryToChain(database: Database, signal?: AbortSignal): Promise<Chaining> {
  try {
    let isLast = false;
    for (let busy = 0; busy < BUSY_ATTEMPTS && !signal?.aborted; ) {
      const [row] = await database.query("call pii_vault.chain_audit()");
      if (row?.chained === 0) return "done";
      if (row?.chained === null) {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * ++busy));
      } else if (Number(row?.chained) < STEP) {
        // Once more, for what chaining itself puts on record; and not until nothing waits, which may be
        // never where many write.
        if (isLast) return "done";
        isLast = true;
      }
    }
    return "busy";
  } catch (error) {
    return error instanceof Failure ? error : failed("chaining failed without saying why");
  }
}
