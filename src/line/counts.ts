// What a run has done so far.

import type { Protected } from "../login/protect.ts";
import type { LoadResult } from "./load.ts";

/** Deliveries whose load committed: received = loaded + duplicates + quarantined, always. */
export type Counts = {
  received: number;
  loaded: number;
  duplicates: number;
  quarantined: number;
  acknowledged: number;
  newOriginals: number;
  /** Received and not stored when the run ended; SQS confirmed that others may have them at once. */
  handedBack: number;
  /** Loads sent again because another one was in their way. */
  retries: number;
  /** Why messages were quarantined, and how many for each reason. */
  readonly reasons: Map<string, number>;
  /** A token of this run, for a person to try `reveal` with. */
  exampleToken: string | null;
};

export const newCounts = (): Counts => ({
  received: 0,
  loaded: 0,
  duplicates: 0,
  quarantined: 0,
  acknowledged: 0,
  newOriginals: 0,
  handedBack: 0,
  retries: 0,
  reasons: new Map(),
  exampleToken: null,
});

export function count(counts: Counts, batch: Protected, result: LoadResult): void {
  counts.received += batch.rows.length + batch.rejected.length;
  counts.loaded += result.loaded;
  counts.duplicates += result.duplicates;
  counts.quarantined += result.quarantined;
  counts.newOriginals += result.newOriginals;
  for (const { reason } of batch.rejected) {
    counts.reasons.set(reason, (counts.reasons.get(reason) ?? 0) + 1);
  }
  counts.exampleToken ??= batch.rows.find((row) => row.maskedIp !== null)?.maskedIp ?? null;
}
