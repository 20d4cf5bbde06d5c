// The line: receive → parse → protect → load → acknowledge.
//
// What keeps promise 1: a message is acknowledged only after the load that stored it has committed and
// has answered for this very batch. Everything before that may fail or be killed at any instruction:
// the message is still in the queue, and comes back.

import { isOutage } from "../postgres/errors.ts";
import type { Queue } from "../sqs/queue.ts";
import { acknowledge } from "./acknowledge.ts";
import { Availability, type Notice } from "./availability.ts";
import { type Counts, count } from "./counts.ts";
import { Ending } from "./ending.ts";
import { Held } from "./in-hand.ts";
import { receiveAll } from "./receive.ts";
import { type Refusals, type Store, type Stored, storeBatch } from "./store.ts";
import { handBack, keepHidden } from "./visibility.ts";
import { LINE_WAITS, type LineWaits } from "./waits.ts";

export type Line = Store & { readonly queue: Queue };

export type EtlOptions = {
  /** Keep running when the queue is empty. */
  readonly follow: boolean;
  /** Receive exactly so many at most; null for all. */
  readonly maxMessages: number | null;
  /** Where that comes in shares: answers with the next one, or 0 when there is none. */
  readonly askForMore?: () => Promise<number>;
  /** Stops receiving; what has been received is finished, within `graceSeconds`. */
  readonly signal: AbortSignal;
  readonly graceSeconds: number;
  /** Other than the usual ones. */
  readonly waits?: LineWaits;
  readonly onProgress: () => void;
  readonly onNotice: (notice: Notice) => void;
};

/** While one batch is on its way to the disk, the next one is protected and sent. */
export const LOADS = 3;

/** Runs until the queue is drained, `signal` aborts, or a failure is thrown; `counts` is kept current. */
export async function etl(line: Line, options: EtlOptions, counts: Counts): Promise<void> {
  const { queue } = line;
  const { follow, onNotice, waits = LINE_WAITS } = options;
  const held = new Held(options.maxMessages, queue.visibilitySeconds, options.askForMore ?? null);
  const ending = new Ending(options.signal, options.graceSeconds);
  const { stop, giveUp, leave } = ending;

  const milliseconds = follow ? Number.POSITIVE_INFINITY : waits.outageMs;
  const receiving = new Availability("the queue answers", { milliseconds, signal: stop }, onNotice);
  // Once a stop is asked for, a database that is away is not waited for: what it has not stored by then
  // is handed back. What it has stored should be deleted, so that is tried for as long as there is time.
  const storing = new Availability("the database stores", { milliseconds, signal: stop }, onNotice);
  const deleting = new Availability(
    "the queue deletes",
    { milliseconds, signal: giveUp },
    onNotice,
  );

  const acknowledging = new Set<Promise<void>>();
  const onStored = ({ messages, batch, result }: Stored) => {
    count(counts, batch, result);
    held.markStored(messages);
    // Before it is deleted: what a parent is told of now is counted, whatever becomes of this process.
    options.onProgress();
    const acknowledged = acknowledge(queue, deleting, messages, giveUp).then((outcome) => {
      held.release(messages);
      counts.acknowledged += outcome.confirmed;
      options.onProgress();
      // What is held is stored all the same: a queue that was deleted does not deliver it again.
      if (outcome.failure !== null) ending.fail(outcome.failure);
    });
    acknowledging.add(acknowledged);
    acknowledged.finally(() => acknowledging.delete(acknowledged));
  };
  const onRetry = () => {
    counts.retries++;
  };

  const needs = [storing, deleting];
  const receivers = receiveAll({
    ...{ queue, held, follow, available: receiving, needs, waits, stop, giveUp },
    fail: ending.fail,
  }).finally(() => held.end());
  stop.addEventListener("abort", () => held.end(), { once: true });
  const hidingEnds = new AbortController();
  const hidden = AbortSignal.any([giveUp, hidingEnds.signal]);
  const hiding = keepHidden(queue, held, onNotice, hidden, waits.lookMs);

  const refusals: Refusals = { sinceTaken: 0 };
  const store = async () => {
    try {
      for (let batch = await held.next(); batch !== null; batch = await held.next()) {
        await storeBatch(line, batch, { available: storing, refusals, waits, onStored, onRetry });
      }
    } catch (error) {
      if (!(options.signal.aborted && isOutage(error))) ending.fail(error);
      held.abandon();
    }
  };
  // By id, because a poll of ours may get them once more.
  const handedBack = new Set<string>();
  const handBackAll = async () => {
    const messages = held.unstored();
    if (messages.length === 0) return;
    hidingEnds.abort(); // or it would hide them again
    await hiding;
    for (const { id } of await handBack(queue, messages, leave)) handedBack.add(id);
    counts.handedBack = handedBack.size;
    held.release(messages);
  };
  const work = async () => {
    // A FIFO queue's messages become rows in their order: one batch after the other.
    await Promise.all(Array.from({ length: queue.isFifo ? 1 : LOADS }, store));
    held.abandon();
    // Long polls are under way still: one that had been cut off could take with it what is handed back.
    if (follow) await handBackAll();
    await Promise.all([receivers, ...acknowledging]);
  };
  await Promise.race([work(), ending.overdue]);
  ending.finish();
  await hiding;
  await handBackAll();
  ending.close();
  if (ending.failure !== null) throw ending.failure.error;
}
