// Stores messages as the line does, parse → protect → load, without a queue.
import { Availability } from "../../src/line/availability.ts";
import { newCounts } from "../../src/line/counts.ts";
import { parse } from "../../src/line/line.ts";
import type { Store, StoredPart } from "../../src/line/protect-and-load.ts";
import { storeInParts } from "../../src/line/split.ts";
import { LINE_WAITS } from "../../src/line/waits.ts";
import type { Message } from "../../src/sqs/queue.ts";

type Storing = Pick<Store, "database" | "subkeys" | "dataKeys" | "knownOriginals">;

/** `patienceMs`: how long a database that is away is waited for. */
export function storeOf(storing: Storing, patienceMs: number): Store {
  const patience = { milliseconds: patienceMs, signal: new AbortController().signal };
  const available = new Availability("it", patience, () => {});
  return { ...storing, available, waits: LINE_WAITS, counts: newCounts() };
}

/** The parts that have committed. */
export async function storeMessages(
  storing: Storing,
  messages: readonly Message[],
  patienceMs: number,
): Promise<StoredPart[]> {
  const parts = storeInParts(storeOf(storing, patienceMs), { sinceTaken: 0 }, parse(messages));
  return await Array.fromAsync(parts);
}
