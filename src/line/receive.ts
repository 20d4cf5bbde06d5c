// Receivers: each polls for ten messages at a time, until the queue is drained or a stop. There are as many
// as the queue keeps busy: one more after each full answer, one less after each poor one. They rest while
// nothing can be stored or deleted: a message that is received in vain loses one of the deliveries after
// which it goes to a dead-letter queue.
import { setTimeout as sleep } from "node:timers/promises";
import { isQueueOutage } from "../sqs/errors.ts";
import { MESSAGES_PER_CALL, type Message, type Queue } from "../sqs/queue.ts";
import type { Availability } from "./availability.ts";
import type { Held } from "./in-hand.ts";
import type { LineWaits } from "./waits.ts";

/** Each call costs least when many are under way: 31 µs with 32 at a time, 40 with 8, 92 with two. */
const MOST_RECEIVERS = 32;
/** An answer with fewer messages is poor: fewer receivers will do. */
const POOR = MESSAGES_PER_CALL / 2;
/** A drain ends soon after the last message, so it asks several times at once; who follows has time. */
const DRAIN_RECEIVERS = 4;
/** One empty answer proves nothing, SQS asks a sample of its servers: a drain wants two of each. */
const EMPTY_POLLS = 2;

export type Receiving = {
  readonly queue: Queue;
  readonly held: Held;
  readonly follow: boolean;
  /** Whether the queue can be received from. */
  readonly available: Availability;
  /** What has to work for receiving to be of any use. */
  readonly needs: readonly Availability[];
  readonly waits: Pick<LineWaits, "drainPollSeconds" | "followPollSeconds">;
  readonly stop: AbortSignal;
  /** When a stop has no time left to wait for anything. */
  readonly giveUp: AbortSignal;
  readonly fail: (error: unknown) => void;
};

/** Ends when every receiver has, whatever happened to some: a failure is told to `fail`, not thrown. */
export async function receiveAll(receiving: Receiving): Promise<void> {
  const { queue, held, follow, available, needs, waits, stop, giveUp, fail } = receiving;
  const waitSeconds = follow ? waits.followPollSeconds : waits.drainPollSeconds;
  const fewest = follow ? 1 : DRAIN_RECEIVERS;
  // A poll that is cut off may take messages with it, which come back only when their visibility ends. So a
  // stop lets short polls finish, and cuts long ones after a moment, but not before what will not be stored
  // is handed back: that ends polls by itself, and would fall into the hands of those that were cut off.
  const cut = new AbortController();
  const cutSoon = async () => {
    await sleep((waits.drainPollSeconds + 0.5) * 1000, undefined, { ref: false });
    while (held.unstored().length > 0 && !giveUp.aborted)
      await sleep(50, undefined, { ref: false });
    cut.abort();
  };
  stop.addEventListener("abort", cutSoon, { once: true });
  const receivers = new Set<Receiver>();
  const drained = () => !follow && [...receivers].every(isEmpty);
  let pollEnded = Promise.withResolvers<void>();
  const notePoll = () => {
    pollEnded.resolve();
    pollEnded = Promise.withResolvers<void>();
  };
  /** What a poll brought, or null if the queue is away or the poll was cut off. */
  const poll = async (room: number): Promise<readonly Message[] | null> => {
    let messages: readonly Message[] = [];
    let failure: unknown = null;
    const askedAt = performance.now();
    try {
      messages = await queue.receive(room, waitSeconds, cut.signal);
    } catch (error) {
      failure = error;
    }
    held.fill(messages, room);
    if (failure === null) {
      available.worked(askedAt);
      return messages;
    }
    if (!cut.signal.aborted) {
      if (!isQueueOutage(failure)) throw failure;
      await available.pause(failure);
    }
    return null;
  };
  const receive = async (self: Receiver) => {
    while (!stop.aborted && !drained()) {
      for (const need of needs) await need.untilBack(stop);
      if (needs.some(({ isAway }) => isAway)) continue;
      const room = await held.reserve(MESSAGES_PER_CALL);
      if (room === 0) break;
      // Waiting for room can take long, too.
      if (stop.aborted || needs.some(({ isAway }) => isAway)) {
        held.fill([], room);
        continue;
      }
      const messages = await poll(room);
      if (messages === null) continue;
      // While something is held, more may stand behind it: a FIFO queue keeps back the rest of a group.
      const foundNothing = messages.length === 0 && held.receipts.size === 0;
      self.emptyPolls = foundNothing ? self.emptyPolls + 1 : 0;
      notePoll();
      const isPoor = room === MESSAGES_PER_CALL && messages.length < POOR;
      if (messages.length === MESSAGES_PER_CALL) startOne();
      else if (isPoor && receivers.size > fewest) {
        receivers.delete(self); // at once: another one's poor answer may be looked at in the same turn
        break;
      }
      // Found it empty often enough: it polls on only if another one finds something.
      while (!follow && isEmpty(self) && !drained()) {
        if (stop.aborted || [...receivers].some(({ emptyPolls }) => emptyPolls === 0)) break;
        await pollEnded.promise;
      }
    }
  };
  const done = Promise.withResolvers<void>();
  const startOne = () => {
    if (receivers.size === MOST_RECEIVERS) return;
    const self: Receiver = { emptyPolls: 0 };
    receivers.add(self);
    receive(self)
      .catch((error) => {
        if (!stop.aborted) fail(error);
      })
      .finally(() => {
        receivers.delete(self); // nobody waits for its polls
        notePoll();
        // All of them end, also after one has failed: what the others are being handed is still taken in.
        if (receivers.size === 0) done.resolve();
      });
  };
  for (let n = 0; n < fewest; n++) startOne();
  await done.promise;
  stop.removeEventListener("abort", cutSoon);
}

type Receiver = { emptyPolls: number };

const isEmpty = ({ emptyPolls }: Receiver): boolean => emptyPolls >= EMPTY_POLLS;
