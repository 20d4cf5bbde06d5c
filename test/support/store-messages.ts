// Stores messages as the line does, parse → protect → load, without a queue.
import { Availability } from "../../src/line/availability.ts";
import { newCounts } from "../../src/line/counts.ts";
import { parse } from "../../src/line/line.ts";
import type { Store, StoredPart } from "../../src/line/protect-and-load.ts";
import { type Refusals, storeInParts } from "../../src/line/split.ts";
import { LINE_WAITS } from "../../src/line/waits.ts";
import type { Message } from "../../src/sqs/queue.ts";

type Storing = Pick<Store, "database" | "subkeys" | "dataKeys" | "knownOriginals">;

/** Each part as it commits. `patienceMs`: how long a database that is away is waited for. */
export function storeEach(
  storing: Storing,
  messages: readonly Message[],
  patienceMs: number,
  refusals: Refusals = { sinceTaken: 0 },
): AsyncGenerator<StoredPart, void> {
  const patience = { milliseconds: patienceMs, signal: new AbortController().signal };
  const available = new Availability("it", patience, () => {});
  const store: Store = { ...storing, available, waits: LINE_WAITS, counts: newCounts() };
  return storeInParts(store, refusals, parse(messages));
}

/** All parts that have committed. */
export const storeMessages = async (
  ...given: Parameters<typeof storeEach>
): Promise<StoredPart[]> => await Array.fromAsync(storeEach(...given));
