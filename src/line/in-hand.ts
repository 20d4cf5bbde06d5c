// The messages that this process has in hand, between receiving and acknowledging them. Their number is
// bounded, they are handed on in batches, and none is forgotten until it is acknowledged or handed back.
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../sqs/queue.ts";

/** A load of some hundred rows costs little more than one of ten; beyond that, only memory is spent. */
const BATCH_MESSAGES = 500;
/** Bodies have up to a megabyte: a batch of such ones has to stay one that the database takes. */
const BATCH_CHARACTERS = 4 * 2 ** 20;
/**
 * Little memory, and far below the 120,000 messages that SQS lets be in flight. Beyond those a standard
 * queue answers long polls with nothing, and reports no error.
 */
const MOST_IN_HAND = 2000;
const MOST_CHARACTERS = 32 * 2 ** 20;
/** How long a batch waits to become full. */
const LINGER_MS = 10;

/** What is known of a message in hand. Times are those of performance.now. */
export type Delivery = {
  readonly receivedAt: number;
  /** Until when SQS hides it from other consumers. */
  hiddenUntil: number;
  /** How long it was hidden for the last time. */
  hiddenSeconds: number;
  /** What is stored waits to be deleted; nobody else needs to have it. */
  isStored: boolean;
};

/** State: what was received, what of it waits to be loaded, and how much room there is for more. */
export class InHand {
  readonly #visibilitySeconds: number;
  readonly #deliveries = new Map<Message, Delivery>();
  #waiting: Message[] = [];
  #waitingCharacters = 0;
  #characters = 0;
  /** Room that receivers have taken and not yet filled or given back. */
  #reserved = 0;
  /** How many messages may still be received. */
  #mayReceive: number;
  /** Where that comes in shares: answers with the next one, or 0. */
  #askForMore: (() => Promise<number>) | null;
  #isAsking = false;
  #ended = false;
  #abandoned = false;
  #changed = Promise.withResolvers<void>();

  constructor(
    maxMessages: number | null,
    visibilitySeconds: number,
    askForMore: (() => Promise<number>) | null = null,
  ) {
    this.#mayReceive = maxMessages ?? Number.POSITIVE_INFINITY;
    this.#visibilitySeconds = visibilitySeconds;
    this.#askForMore = askForMore;
  }

  /** Received, and neither acknowledged nor given up yet. */
  get deliveries(): ReadonlyMap<Message, Delivery> {
    return this.#deliveries;
  }

  /**
   * Room for up to `most` messages, once there is some. 0: this receiver is no longer needed. Either nothing
   * more is to be received, or the other receivers have reserved all that may be.
   */
  async reserve(most: number): Promise<number> {
    while (!this.#ended) {
      // What is asked for may be as large as what is here.
      const mean = this.#deliveries.size === 0 ? 0 : this.#characters / this.#deliveries.size;
      const characters = this.#characters + mean * this.#reserved;
      const free =
        characters < MOST_CHARACTERS ? MOST_IN_HAND - this.#deliveries.size - this.#reserved : 0;
      const room = Math.min(most, this.#mayReceive, free);
      if (room > 0) {
        this.#reserved += room;
        this.#mayReceive -= room;
        return room;
      }
      if (this.#mayReceive === 0 && this.#askForMore === null) return 0;
      if (this.#mayReceive === 0 && this.#reserved === 0 && !this.#isAsking) void this.#extend();
      await this.#changed.promise;
    }
    return 0;
  }

  async #extend(): Promise<void> {
    this.#isAsking = true;
    const more = (await this.#askForMore?.()) ?? 0;
    this.#isAsking = false;
    this.#mayReceive += more;
    if (more === 0) this.#askForMore = null;
    this.#change();
  }

  /** Takes in what a reservation of `room` brought, and gives the rest back. */
  fill(messages: readonly Message[], room: number): void {
    const now = performance.now();
    for (const message of messages) {
      this.#deliveries.set(message, {
        receivedAt: now,
        hiddenUntil: now + this.#visibilitySeconds * 1000,
        hiddenSeconds: this.#visibilitySeconds,
        isStored: false,
      });
      this.#characters += message.body.length;
      this.#waitingCharacters += message.body.length;
      this.#waiting.push(message);
    }
    this.#reserved -= room;
    this.#mayReceive += room - messages.length;
    this.#change();
  }

  markStored(messages: readonly Message[]): void {
    for (const message of messages) {
      const delivery = this.#deliveries.get(message);
      if (delivery !== undefined) delivery.isStored = true;
    }
  }

  /** What nobody has stored. */
  unstored(): readonly Message[] {
    return [...this.#deliveries]
      .filter(([, { isStored }]) => !isStored)
      .map(([message]) => message);
  }

  /** They are gone from the queue, or will come back. */
  release(messages: readonly Message[]): void {
    for (const message of messages) {
      if (this.#deliveries.delete(message)) this.#characters -= message.body.length;
    }
    this.#change();
  }

  /** No more will be received; what is in hand is still handed on. Wakes receivers that wait for room. */
  end(): void {
    this.#ended = true;
    this.#change();
  }

  /** Nothing more will be handed on, either. */
  abandon(): void {
    this.#abandoned = true;
    this.#waiting = [];
    this.#waitingCharacters = 0;
    this.end();
  }

  /** The next batch: full, or what there is after a short wait, or null at the end. */
  async nextBatch(): Promise<readonly Message[] | null> {
    for (;;) {
      if (this.#abandoned) return null;
      // While a receiver has a reservation, it may still bring something.
      if (this.#waiting.length === 0) {
        if (this.#ended && this.#reserved === 0) return null;
        await this.#changed.promise;
        continue;
      }
      if (!this.#isFull() && !this.#ended) await this.#linger();
      // Somebody else may have been faster.
      if (this.#waiting.length > 0) return this.#takeBatch();
    }
  }

  /** Until a batch is full, or nothing more comes, or a short while has passed. */
  async #linger(): Promise<void> {
    const over = new AbortController();
    let isOver = false;
    const linger = sleep(LINGER_MS, undefined, { signal: over.signal })
      .catch(() => {})
      .then(() => {
        isOver = true;
      });
    while (!this.#isFull() && !this.#ended && !isOver) {
      await Promise.race([this.#changed.promise, linger]);
    }
    over.abort();
  }

  #isFull(): boolean {
    return this.#waiting.length >= BATCH_MESSAGES || this.#waitingCharacters > BATCH_CHARACTERS;
  }

  /** As many as make one batch, at most. */
  #takeBatch(): readonly Message[] {
    let characters = 0;
    let count = 0;
    for (const { body } of this.#waiting) {
      if (count === BATCH_MESSAGES) break;
      if (count > 0 && characters + body.length > BATCH_CHARACTERS) break;
      characters += body.length;
      count++;
    }
    this.#waitingCharacters -= characters;
    return this.#waiting.splice(0, count);
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
