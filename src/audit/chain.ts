// Chains the entries of the audit that wait for it: the database computes each hash from the one
// before. To be called when an entry has been committed. The entry is on record without it, so a
// failure here fails no command; the next call, whoever makes it, chains the entry.
import { Failure, failed } from "../failure.ts";
import type { Database } from "../postgres/database.ts";

/** The database chains this many entries at a time. */
const STEP = 10_000;
/** Somebody else may be chaining, and may have looked before our entry was there. */
const BUSY_ATTEMPTS = 10;

/** `done`: whatever had been committed before is chained. A failure is what the database said. */
export type Chaining = "done" | "busy" | Failure;

/** False where some entries may still wait. Never throws. */
export async function chainAudit(database: Database, signal?: AbortSignal): Promise<boolean> {
  return (await tryToChain(database, signal)) === "done";
}

/**
 * The same, with the reason: a standby, an outage, an altered chain, or somebody who is in the way.
 */
export async function tryToChain(database: Database, signal?: AbortSignal): Promise<Chaining> {
  try {
    let isLast = false;
    for (let busy = 0; busy < BUSY_ATTEMPTS && !signal?.aborted; ) {
      const [row] = await database.query("call pii_vault.chain_audit()");
      if (row?.chained === 0) return "done";
      if (row?.chained === null) {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * ++busy));
      } else if (Number(row?.chained) < STEP) {
        // Once more, for what chaining itself puts on record. Not until nothing waits: where many
        // write, that may never be.
        if (isLast) return "done";
        isLast = true;
      }
    }
    return "busy";
  } catch (error) {
    return error instanceof Failure ? error : failed("chaining failed without saying why");
  }
}
