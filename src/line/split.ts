// Splits a batch that the database does not take as a whole. Usually all of a batch commits at once. Where
// the database refuses a row, the batch is halved until that row stands alone. Then that one message is
// quarantined: it must not take its neighbours with it.
import type { Failure } from "../failure.ts";
import { type Part, protectAndLoad, type Store, type StoredPart } from "./protect-and-load.ts";

/** A database that refuses so many rows in a row and takes none is at fault itself, not the rows. */
const MOST_REFUSED = 10;

/**
 * How many rows were refused since the database last took one. It belongs to the run and not to a batch,
 * because several batches are under way at a time.
 */
export type Refusals = { sinceTaken: number };

/** Yields each part that has committed, in the batch's order. Throws when nothing more can be stored. */
export async function* storeInParts(
  store: Store,
  refusals: Refusals,
  batch: Part,
): AsyncGenerator<StoredPart, void> {
  const waiting: Part[] = [batch];
  let hasTaken = false;
  for (let part = waiting.pop(); part !== undefined; part = waiting.pop()) {
    const outcome = await protectAndLoad(store, part);
    if (outcome.kind === "stored") {
      if (outcome.result.loaded > 0) {
        hasTaken = true;
        refusals.sinceTaken = 0;
      }
      yield outcome;
    } else if (part.length > 1) {
      const middle = part.length >> 1;
      waiting.push(part.slice(middle), part.slice(0, middle)); // the first half is next
    } else {
      // A batch of which it has taken some shows that it takes rows: many bad ones may stand side by side.
      if (!hasTaken && refusals.sinceTaken >= MOST_REFUSED) throw outcome.failure;
      refusals.sinceTaken++;
      waiting.push([quarantined(part, outcome.failure)]);
    }
  }
}

/** The one message of a part, to be stored in the quarantine. Throws if it was refused there, too. */
function quarantined([only]: Part, refusal: Failure): Part[number] {
  if (only?.parsed.kind !== "login") throw refusal;
  const reason = `the database refused the row with error ${refusal.code}`;
  return { ...only, parsed: { kind: "rejected", reason } };
}
