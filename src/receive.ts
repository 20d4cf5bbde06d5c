// Receivers: several at once, each polling for ten messages at a time, until the queue is drained or a stop.
// They rest while nothing can be stored or deleted: a message that is received in vain loses one of the
// deliveries after which it goes to a dead-letter queue.
import type { Availability } from "./availability.ts";
import type { Held } from "./held.ts";
import { MESSAGES_PER_CALL, type Message, type Queue } from "./queue.ts";
import { isQueueOutage } from "./queue-errors.ts";

const RECEIVERS = 4;
/** One empty answer proves nothing, SQS asks a sample of its servers: a drain wants two of each. */
const EMPTY_POLLS = 2;
const DRAIN_POLL_SECONDS = 1;
const FOLLOW_POLL_SECONDS = 20;

export type Receiving = {
  readonly queue: Queue;
  readonly held: Held;
  readonly follow: boolean;
  /** Whether the queue can be received from. */
  readonly available: Availability;
  /** What has to work for receiving to be of any use. */
  readonly needs: readonly Availability[];
  readonly stop: AbortSignal;
  readonly fail: (error: unknown) => void;
};

/** Ends when every receiver has, whatever happened to some: a failure is told to `fail`, not thrown. */
export async function receiveAll(receiving: Receiving): Promise<void> {
  const { queue, held, follow, available, needs, stop, fail } = receiving;
  const waitSeconds = follow ? FOLLOW_POLL_SECONDS : DRAIN_POLL_SECONDS;
  // A poll that is cut off may have taken messages with it, which would come back only when their
  // visibility ends. So a stop lets short polls finish, and cuts long ones after a moment.
  const cut = new AbortController();
  const cutSoon = () => setTimeout(() => cut.abort(), (DRAIN_POLL_SECONDS + 0.5) * 1000).unref();
  stop.addEventListener("abort", cutSoon, { once: true });
  const emptyPolls = new Array<number>(RECEIVERS).fill(0);
  const drained = () => !follow && emptyPolls.every((polls) => polls >= EMPTY_POLLS);
  let pollEnded = Promise.withResolvers<void>();
  const endPoll = (index: number, polls: number) => {
    emptyPolls[index] = polls;
    pollEnded.resolve();
    pollEnded = Promise.withResolvers<void>();
  };
  /** What a poll brought, or null if the queue is away or the poll was cut off. */
  const poll = async (room: number): Promise<readonly Message[] | null> => {
    let messages: readonly Message[] = [];
    let failure: unknown = null;
    try {
      messages = await queue.receive(room, waitSeconds, cut.signal);
    } catch (error) {
      failure = error;
    }
    held.fill(messages, room);
    if (failure === null) {
      available.worked();
      return messages;
    }
    if (!cut.signal.aborted) {
      if (!isQueueOutage(failure)) throw failure;
      await available.pause(failure);
    }
    return null;
  };
  const receiver = async (index: number) => {
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
      const isEmpty = messages.length === 0 && held.receipts.size === 0;
      endPoll(index, isEmpty ? emptyPolls[index]! + 1 : 0);
      // Found it empty often enough: it polls on only if another one finds something.
      while (!follow && emptyPolls[index]! >= EMPTY_POLLS && !drained()) {
        if (stop.aborted || emptyPolls.includes(0)) break;
        await pollEnded.promise;
      }
    }
  };
  const retire = (index: number) => endPoll(index, Number.POSITIVE_INFINITY); // nobody waits for its polls
  // All of them end, also after one has failed: what the others are being handed is still taken in.
  await Promise.all(
    emptyPolls.map((_, index) =>
      receiver(index)
        .catch((error) => {
          if (!stop.aborted) fail(error);
        })
        .finally(() => retire(index)),
    ),
  );
  stop.removeEventListener("abort", cutSoon);
}
