// Deletes what is stored, and only that. Where SQS does not confirm a message, it is asked again; a message
// that it never confirms comes back, and changes nothing.
import { setTimeout as sleep } from "node:timers/promises";
import { isQueueOutage } from "../sqs/errors.ts";
import type { Message, Queue } from "../sqs/queue.ts";
import type { Availability } from "./availability.ts";

/** How often SQS is asked to delete an entry that fails while the others succeed. */
const ATTEMPTS = 6;

/** Twice as long after each attempt, and jittered. */
const pauseMs = (attempts: number): number => 25 * 2 ** attempts * (0.5 + Math.random());

export type Acknowledged = {
  /** How many deliveries SQS confirmed as deleted. */
  readonly confirmed: number;
  readonly failure: unknown;
};

/**
 * Never throws: what was confirmed counts although the rest failed. No failure either when `signal` aborts:
 * nothing is lost by leaving the rest.
 */
export async function acknowledge(
  queue: Queue,
  deleting: Availability,
  messages: readonly Message[],
  signal: AbortSignal,
): Promise<Acknowledged> {
  let pending = messages;
  let confirmed = 0;
  // Only those that SQS answered: while it is away, nothing was attempted.
  let attempts = 0;
  for (;;) {
    const askedAt = performance.now();
    const { done, again, failure } = await queue.acknowledge(pending, signal);
    confirmed += done.length;
    pending = again;
    if (signal.aborted) return { confirmed, failure: null };
    if (isQueueOutage(failure)) {
      try {
        await deleting.pause(failure);
      } catch (error) {
        return { confirmed, failure: signal.aborted ? null : error };
      }
      continue;
    }
    if (failure !== null) return { confirmed, failure };
    deleting.worked(askedAt);
    attempts++;
    if (pending.length === 0 || attempts === ATTEMPTS) return { confirmed, failure: null };
    await sleep(pauseMs(attempts), undefined, { signal }).catch(() => {});
  }
}
