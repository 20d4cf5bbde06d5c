// The line: receive → parse → protect → load → acknowledge.
//
// What keeps promise 1: a message is acknowledged only after the load that stored it has committed and
// has answered for this very batch. Everything before that may fail or be killed at any instruction:
// the message is still in the queue, and comes back.

import { Held } from "./held.ts";
import type { LoadResult } from "./load.ts";
import type { Protected } from "./protect.ts";
import type { Queue } from "./queue.ts";
import { receiveAll } from "./receive.ts";
import { type Store, type Stored, storeBatch } from "./store.ts";

export type Line = Store & { readonly queue: Queue };

export type EtlOptions = {
  /** Keep running when the queue is empty. */
  readonly follow: boolean;
  /** Receive exactly so many at most; null for all. */
  readonly maxMessages: number | null;
  /** Stops receiving; what has been received is finished. */
  readonly signal: AbortSignal;
  readonly onProgress: (counts: Counts) => void;
};

/** Deliveries whose load committed: received = loaded + duplicates + quarantined, always. */
export type Counts = {
  received: number;
  loaded: number;
  duplicates: number;
  quarantined: number;
  acknowledged: number;
  newOriginals: number;
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
  reasons: new Map(),
  exampleToken: null,
});

/** A drain gives up on a database that stays away for longer. */
const OUTAGE_MS = 60_000;

/** Runs until the queue is drained, `signal` aborts, or a failure is thrown; `counts` is kept current. */
export async function etl(line: Line, options: EtlOptions, counts: Counts): Promise<void> {
  const held = new Held(options.maxMessages);
  const broken = new AbortController();
  const stop = AbortSignal.any([options.signal, broken.signal]);
  const acknowledging = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | null = null;
  const fail = (error: unknown) => {
    failure ??= { error };
    broken.abort();
  };

  const receiving = receiveAll(line.queue, held, options.follow, stop, fail).then(() => held.end());
  const patience = {
    milliseconds: options.follow ? Number.POSITIVE_INFINITY : OUTAGE_MS,
    signal: stop,
  };
  const acknowledge = ({ messages, batch, result }: Stored) => {
    count(counts, batch, result);
    const acknowledged = line.queue.acknowledge(messages).then((outcome) => {
      held.release(messages);
      counts.acknowledged += outcome.confirmed;
      options.onProgress(counts);
      if (outcome.failure !== null) {
        fail(outcome.failure);
        held.abandon(); // what cannot be acknowledged should not be loaded either
      }
    });
    acknowledging.add(acknowledged);
    acknowledged.finally(() => acknowledging.delete(acknowledged));
  };
  try {
    for (let messages = await held.next(); messages !== null; messages = await held.next()) {
      await storeBatch(line, messages, patience, acknowledge);
    }
  } catch (error) {
    fail(error);
  }
  held.abandon();
  await Promise.all([receiving, ...acknowledging]);
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
}

function count(counts: Counts, batch: Protected, result: LoadResult): void {
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
