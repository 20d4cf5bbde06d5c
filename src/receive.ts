// Receivers: several at once, each polling for ten messages at a time, until the queue is drained or a stop.
import type { Held } from "./held.ts";
import { MESSAGES_PER_CALL, type Message, type Queue } from "./queue.ts";

const RECEIVERS = 4;
/** One empty answer proves nothing, SQS asks a sample of its servers: a drain wants two of each. */
const EMPTY_POLLS = 2;
const DRAIN_POLL_SECONDS = 1;
const FOLLOW_POLL_SECONDS = 20;

/** Ends when every receiver has, whatever happened to some: a failure is told to `fail`, not thrown. */
export async function receiveAll(
  queue: Queue,
  held: Held,
  follow: boolean,
  stop: AbortSignal,
  fail: (error: unknown) => void,
): Promise<void> {
  const waitSeconds = follow ? FOLLOW_POLL_SECONDS : DRAIN_POLL_SECONDS;
  // A poll that is cut off may have taken messages with it, which would come back only when their
  // visibility ends. So a stop lets short polls finish, and cuts long ones after a moment.
  const cut = new AbortController();
  stop.addEventListener(
    "abort",
    () => setTimeout(() => cut.abort(), (DRAIN_POLL_SECONDS + 0.5) * 1000).unref(),
    { once: true },
  );
  const emptyPolls = new Array<number>(RECEIVERS).fill(0);
  const drained = () => !follow && emptyPolls.every((polls) => polls >= EMPTY_POLLS);
  let pollEnded = Promise.withResolvers<void>();
  const endPoll = (index: number, polls: number) => {
    emptyPolls[index] = polls;
    pollEnded.resolve();
    pollEnded = Promise.withResolvers<void>();
  };
  const receiver = async (index: number) => {
    while (!stop.aborted && !drained()) {
      const room = await held.reserve(MESSAGES_PER_CALL, stop);
      if (room === 0) break;
      let messages: readonly Message[] = [];
      try {
        messages = await queue.receive(room, waitSeconds, cut.signal);
      } catch (error) {
        if (!cut.signal.aborted) throw error;
      } finally {
        held.fill(messages, room);
      }
      endPoll(index, messages.length === 0 ? emptyPolls[index]! + 1 : 0);
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
        .catch(fail)
        .finally(() => retire(index)),
    ),
  );
}
