// Chains what waits of the audit. To be called when an entry has been committed; the entry stays on record
// without it, so what goes wrong here fails no command: the next call chains it, whoever makes it.
import type { Database } from "./database.ts";

/** As many as the database chains at a time. */
const STEP = 10_000;
/** Somebody else is at it, and may have looked before our entry was there. */
const BUSY_ATTEMPTS = 10;

/** False: some entries may still wait. Never throws. */
export async function chainAudit(database: Database, signal?: AbortSignal): Promise<boolean> {
  try {
    let isLast = false;
    for (let busy = 0; busy < BUSY_ATTEMPTS && !signal?.aborted; ) {
      const [row] = await database.query("call pii_vault.chain_audit()");
      if (row?.chained === 0) return true;
      if (row?.chained === null) {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * ++busy));
      } else if (Number(row?.chained) < STEP) {
        // Once more, for what chaining itself puts on record; and not until nothing waits, which may be
        // never where many write.
        if (isLast) return true;
        isLast = true;
      }
    }
  } catch {
    // A standby, an outage, an altered chain: `veil audit verify` says what is wrong.
  }
  return false;
}
