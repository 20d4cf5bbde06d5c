// Receivers: each polls for ten messages at a time, until the queue is drained or a stop. There are as many
// as the queue keeps busy: one more after each full answer, one less after each poor one. They rest while
// nothing can be stored or deleted: each delivery in vain brings a message nearer to the dead-letter queue.
import { setTimeout as sleep } from "node:timers/promises";
import { isQueueOutage } from "../sqs/errors.ts";
import { MESSAGES_PER_CALL, type Message, type Queue } from "../sqs/queue.ts";
import type { Availability } from "./availability.ts";
import type { InHand } from "./in-hand.ts";
import type { Stop } from "./stop.ts";
import type { LineWaits } from "./waits.ts";

/** Each call costs least when many are under way: 31 µs with 32 at a time, 40 with 8, 92 with two. */
export const MOST_RECEIVERS = 32;
/** An answer with fewer messages is poor: fewer receivers will do. */
const POOR = MESSAGES_PER_CALL / 2;
/** A drain ends soon after the last message, so it asks several times at once; who follows has time. */
const DRAIN_RECEIVERS = 4;
/** One empty answer proves nothing, SQS asks a sample of its servers: a drain wants two of each. */
const EMPTY_POLLS = 2;
/** A stop waits for polls of a drain's length, and for so much more. */
const ANSWER_SECONDS = 0.5;

export type Receiving = {
  readonly queue: Queue;
  readonly inHand: InHand;
  readonly follow: boolean;
  /** Whether the queue can be received from. */
  readonly available: Availability;
  /** What has to work for receiving to be of any use. */
  readonly needs: readonly Availability[];
  readonly waits: Pick<LineWaits, "drainPollSeconds" | "followPollSeconds">;
  readonly stop: Pick<Stop, "asked" | "workEnds" | "fail">;
};

type Receiver = { emptyPolls: number };

/** State: who receives, and what their last polls found. */
export class Receivers {
  readonly #receiving: Receiving;
  readonly #waitSeconds: number;
  readonly #fewest: number;
  readonly #receivers = new Set<Receiver>();
  readonly #cut = new AbortController();
  readonly #allEnded = Promise.withResolvers<void>();
  #pollEnded = Promise.withResolvers<void>();

  constructor(receiving: Receiving) {
    const { follow, waits } = receiving;
    this.#receiving = receiving;
    this.#waitSeconds = follow ? waits.followPollSeconds : waits.drainPollSeconds;
    this.#fewest = follow ? 1 : DRAIN_RECEIVERS;
  }

  /** Resolves when every receiver has ended, whatever happened to some: a failure stops the run instead. */
  async run(): Promise<void> {
    const { stop } = this.#receiving;
    const cutPolls = () => void this.#cutPolls();
    stop.asked.addEventListener("abort", cutPolls, { once: true });
    for (let n = 0; n < this.#fewest; n++) this.#startOne();
    await this.#allEnded.promise;
    stop.asked.removeEventListener("abort", cutPolls);
  }

  /**
   * A poll that is cut off may take messages with it, which come back only when their visibility ends. So a
   * stop lets short polls finish, and cuts long ones after a moment. What will not be stored is handed back
   * first: a poll that was cut off before that could take those messages with it, too.
   */
  async #cutPolls(): Promise<void> {
    const { inHand, stop, waits } = this.#receiving;
    await pause((waits.drainPollSeconds + ANSWER_SECONDS) * 1000);
    while (inHand.unstored().length > 0 && !stop.workEnds.aborted) await pause(50);
    this.#cut.abort();
  }

  #startOne(): void {
    if (this.#receivers.size === MOST_RECEIVERS) return;
    const { stop } = this.#receiving;
    const receiver: Receiver = { emptyPolls: 0 };
    this.#receivers.add(receiver);
    this.#receive(receiver)
      .catch((error) => {
        if (!stop.asked.aborted) stop.fail(error);
      })
      .finally(() => {
        this.#receivers.delete(receiver); // nobody waits for its polls
        this.#notePollEnded();
        // All of them end, also after one has failed: what the others are being handed is still taken in.
        if (this.#receivers.size === 0) this.#allEnded.resolve();
      });
  }

  async #receive(receiver: Receiver): Promise<void> {
    const { stop } = this.#receiving;
    while (!stop.asked.aborted && !this.#isDrained()) {
      const room = await this.#reserveRoom();
      if (room === null) continue;
      if (room === 0) return;
      const messages = await this.#poll(room);
      if (messages === null) continue;
      this.#noteFound(receiver, messages.length);
      const isPoor = room === MESSAGES_PER_CALL && messages.length < POOR;
      if (messages.length === MESSAGES_PER_CALL) this.#startOne();
      else if (isPoor && this.#receivers.size > this.#fewest) {
        this.#receivers.delete(receiver); // at once: another poor answer may be looked at in the same turn
        return;
      }
      await this.#restWhileEmpty(receiver);
    }
  }

  /** Room for what a poll brings, once it can be stored and deleted. 0: not needed any more. Null: look again. */
  async #reserveRoom(): Promise<number | null> {
    const { inHand, needs, stop } = this.#receiving;
    const isAnyAway = () => needs.some(({ isAway }) => isAway);
    for (const need of needs) await need.untilBack(stop.asked);
    if (isAnyAway()) return null;
    const room = await inHand.reserve(MESSAGES_PER_CALL);
    // Waiting for room can take long, too.
    if (room === 0 || !(stop.asked.aborted || isAnyAway())) return room;
    inHand.fill([], room);
    return null;
  }

  /** What a poll brought, or null if the queue is away or the poll was cut off. */
  async #poll(room: number): Promise<readonly Message[] | null> {
    const { queue, inHand, available } = this.#receiving;
    const askedAt = performance.now();
    let messages: readonly Message[] = [];
    try {
      messages = await queue.receive(room, this.#waitSeconds, this.#cut.signal);
    } catch (failure) {
      inHand.fill([], room);
      if (this.#cut.signal.aborted) return null;
      if (!isQueueOutage(failure)) throw failure;
      await available.pause(failure);
      return null;
    }
    inHand.fill(messages, room);
    available.worked(askedAt);
    return messages;
  }

  #noteFound(receiver: Receiver, messages: number): void {
    const { inHand } = this.#receiving;
    // While something is in hand, more may stand behind it: a FIFO queue keeps back the rest of a group.
    const foundNothing = messages === 0 && inHand.deliveries.size === 0;
    receiver.emptyPolls = foundNothing ? receiver.emptyPolls + 1 : 0;
    this.#notePollEnded();
  }

  #notePollEnded(): void {
    this.#pollEnded.resolve();
    this.#pollEnded = Promise.withResolvers<void>();
  }

  /** Of a drain, who found the queue empty often enough polls on only if another one finds something. */
  async #restWhileEmpty(receiver: Receiver): Promise<void> {
    const { follow, stop } = this.#receiving;
    while (!follow && isEmpty(receiver) && !this.#isDrained()) {
      if (stop.asked.aborted) return;
      if ([...this.#receivers].some(({ emptyPolls }) => emptyPolls === 0)) return;
      await this.#pollEnded.promise;
    }
  }

  #isDrained(): boolean {
    return !this.#receiving.follow && [...this.#receivers].every(isEmpty);
  }
}

const isEmpty = ({ emptyPolls }: Receiver): boolean => emptyPolls >= EMPTY_POLLS;

/** Keeps no process alive. */
const pause = (milliseconds: number): Promise<void> =>
  sleep(milliseconds, undefined, { ref: false });
