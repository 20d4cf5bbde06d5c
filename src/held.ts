// The messages that this process holds between receiving and acknowledging them: bounded in number, and
// handed on in batches.
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "./queue.ts";

/** A load of some hundred rows costs little more than one of ten; beyond a thousand nothing is won. */
const BATCH_MESSAGES = 1000;
/** Bodies have up to a megabyte: a batch of such ones has to stay one that the database takes. */
const BATCH_CHARACTERS = 4 * 2 ** 20;
/** Far below SQS's own bound of 120,000 in flight, and little memory. */
const MAX_HELD = 4000;
const MAX_HELD_CHARACTERS = 32 * 2 ** 20;
/** How long a batch waits to become full. */
const LINGER_MS = 100;

/** State: what was received and waits to be loaded, and how much room there is for more. */
export class Held {
  #waiting: Message[] = [];
  /** Received and not yet acknowledged. */
  #received = 0;
  #receivedCharacters = 0;
  /** Room that receivers have taken and not yet filled or given back. */
  #reserved = 0;
  #budget: number;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  constructor(maxMessages: number | null) {
    this.#budget = maxMessages ?? Number.POSITIVE_INFINITY;
  }

  /**
   * Room for up to `most` messages, once there is some. 0: this receiver is not needed any more, because
   * those that still hold reservations can take all that may yet be received.
   */
  async reserve(most: number, stop: AbortSignal): Promise<number> {
    while (!stop.aborted && !this.#ended) {
      const free =
        this.#receivedCharacters < MAX_HELD_CHARACTERS
          ? MAX_HELD - this.#received - this.#reserved
          : 0;
      const room = Math.min(most, this.#budget, free);
      if (room > 0) {
        this.#reserved += room;
        this.#budget -= room;
        return room;
      }
      if (this.#budget === 0) return 0;
      await Promise.race([this.#changed.promise, sleep(250)]);
    }
    return 0;
  }

  /** Takes in what a reservation of `room` brought, and gives the rest back. */
  fill(messages: readonly Message[], room: number): void {
    this.#waiting.push(...messages);
    this.#received += messages.length;
    this.#receivedCharacters += characters(messages);
    this.#reserved -= room;
    this.#budget += room - messages.length;
    this.#change();
  }

  /** After acknowledging: the messages are gone, or will come back. */
  release(messages: readonly Message[]): void {
    this.#received -= messages.length;
    this.#receivedCharacters -= characters(messages);
    this.#change();
  }

  /** No more will be received. */
  end(): void {
    this.#ended = true;
    this.#change();
  }

  /** Nothing more will be loaded; wakes receivers that wait for room. */
  abandon(): void {
    this.#waiting = [];
    this.#budget = 0;
    this.end();
  }

  /** The next batch: full, or what there is after a short wait, or null at the end. */
  async next(): Promise<readonly Message[] | null> {
    while (this.#waiting.length === 0) {
      if (this.#ended) return null;
      await this.#changed.promise;
    }
    const deadline = Date.now() + LINGER_MS;
    while (this.#full() === null && !this.#ended && Date.now() < deadline) {
      await Promise.race([this.#changed.promise, sleep(deadline - Date.now())]);
    }
    return this.#waiting.splice(0, this.#full() ?? this.#waiting.length);
  }

  /** How many messages make a full batch, or null when there are not that many yet. */
  #full(): number | null {
    let size = 0;
    for (const [i, { body }] of this.#waiting.entries()) {
      size += body.length;
      if (size > BATCH_CHARACTERS) return Math.max(i, 1);
      if (i + 1 === BATCH_MESSAGES) return BATCH_MESSAGES;
    }
    return null;
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}

const characters = (messages: readonly Message[]): number =>
  messages.reduce((sum, { body }) => sum + body.length, 0);
