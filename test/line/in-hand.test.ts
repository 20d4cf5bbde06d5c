import { describe, expect, test } from "bun:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { InHand } from "../../src/line/in-hand.ts";
import type { Message } from "../../src/sqs/queue.ts";

const MAX_HELD = 2000;
const BATCH = 500;

let ids = 0;
const messages = (count: number): Message[] =>
  Array.from({ length: count }, () => ({
    id: `m${ids++}`,
    body: "{}",
    sentAt: new Date(0),
    receipt: "r",
  }));

/** Reserves room for all of them, then fills it: as receivers do, with answers of any size. */
async function receive(inHand: InHand, count: number): Promise<Message[]> {
  const received = messages(count);
  expect(await inHand.reserve(count)).toBe(count);
  inHand.fill(received, count);
  return received;
}

/** Whether a promise is still open after everything that could run without waiting has run. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol();
  for (let i = 0; i < 10; i++) await setImmediate();
  return (await Promise.race([promise, Promise.resolve(pending)])) === pending;
}

describe("room", () => {
  test("is given as asked while there is some", async () => {
    const inHand = new InHand(null, 30);
    expect(await inHand.reserve(10)).toBe(10);
    expect(await inHand.reserve(1)).toBe(1);
  });

  test("ends at 2,000 messages, reserved or received", async () => {
    const inHand = new InHand(null, 30);
    await receive(inHand, MAX_HELD - 15);
    expect(await inHand.reserve(10)).toBe(10);
    expect(await inHand.reserve(10)).toBe(5);
    const waiting = inHand.reserve(10);
    expect(await isPending(waiting)).toBe(true);
    inHand.end();
    expect(await waiting).toBe(0);
  });

  test("comes back when an answer was smaller than its reservation", async () => {
    const inHand = new InHand(null, 30);
    expect(await inHand.reserve(MAX_HELD)).toBe(MAX_HELD);
    const waiting = inHand.reserve(10);
    expect(await isPending(waiting)).toBe(true);
    inHand.fill(messages(MAX_HELD - 3), MAX_HELD);
    expect(await waiting).toBe(3);
  });

  test("comes back when messages are released, not when they are handed on", async () => {
    const inHand = new InHand(null, 30);
    await receive(inHand, MAX_HELD);
    const waiting = inHand.reserve(10);
    const batch = await inHand.nextBatch();
    expect(batch).toHaveLength(BATCH);
    expect(await isPending(waiting)).toBe(true);
    inHand.release(batch ?? []);
    expect(await waiting).toBe(10);
  });

  test("is full at 32 million characters, however few the messages are", async () => {
    const inHand = new InHand(null, 30);
    const large = messages(33).map((message) => ({ ...message, body: "x".repeat(2 ** 20) }));
    expect(await inHand.reserve(40)).toBe(40);
    inHand.fill(large, 40);
    const waiting = inHand.reserve(10);
    expect(await isPending(waiting)).toBe(true);
    // Batches are bounded alike, by four million; one message alone may be larger than that.
    expect(await inHand.nextBatch()).toHaveLength(4);
    inHand.release(large.slice(0, 4));
    expect(await waiting).toBe(10);
    inHand.fill([{ ...large[0]!, body: "x".repeat(5 * 2 ** 20) }], 10);
    inHand.end();
    const sizes: number[] = [];
    for (let batch = await inHand.nextBatch(); batch !== null; batch = await inHand.nextBatch()) {
      sizes.push(batch.length);
    }
    expect(sizes).toEqual([4, 4, 4, 4, 4, 4, 4, 1, 1]);
  });

  test("is given to nobody after the end or an abandonment", async () => {
    const ended = new InHand(null, 30);
    ended.end();
    expect(await ended.reserve(10)).toBe(0);
    const abandoned = new InHand(null, 30);
    abandoned.abandon();
    expect(await abandoned.reserve(10)).toBe(0);
  });

  test("is no longer waited for after an end or an abandonment", async () => {
    const acts = [(inHand: InHand) => inHand.end(), (inHand: InHand) => inHand.abandon()];
    for (const act of acts) {
      const inHand = new InHand(null, 30);
      await receive(inHand, MAX_HELD);
      const waiting = [1, 2, 3].map(() => inHand.reserve(10));
      expect(await isPending(Promise.race(waiting))).toBe(true);
      act(inHand);
      expect(await Promise.all(waiting)).toEqual([0, 0, 0]);
    }
  });
});

describe("a budget", () => {
  test("is given out once and exactly", async () => {
    const inHand = new InHand(25, 30);
    expect(await inHand.reserve(10)).toBe(10);
    expect(await inHand.reserve(10)).toBe(10);
    expect(await inHand.reserve(10)).toBe(5);
    inHand.fill(messages(10), 10);
    inHand.fill(messages(10), 10);
    inHand.fill(messages(5), 5);
    expect(await inHand.reserve(10)).toBe(0);
  });

  test("that others have reserved sends a receiver away, since they can take all that is left", async () => {
    const inHand = new InHand(15, 30);
    expect(await inHand.reserve(10)).toBe(10);
    expect(await inHand.reserve(10)).toBe(5);
    expect(await inHand.reserve(10)).toBe(0);
    inHand.fill(messages(6), 10);
    expect(await inHand.reserve(10)).toBe(4);
    inHand.fill(messages(4), 4);
    expect(await inHand.reserve(10)).toBe(0);
  });

  test("is not refilled by what is released", async () => {
    const inHand = new InHand(5, 30);
    await receive(inHand, 5);
    inHand.release((await inHand.nextBatch()) ?? []);
    expect(await inHand.reserve(10)).toBe(0);
  });

  test("is met exactly by several receivers, however much each poll brings", async () => {
    const scenario = fc.record({
      budget: fc.integer({ min: 1, max: 60 }),
      receivers: fc.integer({ min: 1, max: 6 }),
      polls: fc.infiniteStream(fc.nat(10)),
      delays: fc.infiniteStream(fc.nat(3)),
    });
    await fc.assert(
      fc.asyncProperty(scenario, async ({ budget, receivers, polls, delays }) => {
        const inHand = new InHand(budget, 30);
        let received = 0;
        const receiver = async () => {
          for (;;) {
            const room = await inHand.reserve(10);
            if (room === 0) return;
            for (let i = delays.next().value ?? 0; i > 0; i--) await setImmediate();
            const count = Math.min(room, polls.next().value ?? 0);
            received += count;
            inHand.fill(messages(count), room);
            expect(received).toBeLessThanOrEqual(budget);
          }
        };
        await Promise.all(Array.from({ length: receivers }, receiver));
        expect(received).toBe(budget);
      }),
      { numRuns: 50 },
    );
  });
});

describe("batches", () => {
  test("hold five hundred messages at most, in the order of receiving", async () => {
    const inHand = new InHand(null, 30);
    const received = await receive(inHand, 2.5 * BATCH);
    inHand.end();
    expect(await inHand.nextBatch()).toEqual(received.slice(0, BATCH));
    expect(await inHand.nextBatch()).toEqual(received.slice(BATCH, 2 * BATCH));
    expect(await inHand.nextBatch()).toEqual(received.slice(2 * BATCH));
    expect(await inHand.nextBatch()).toBeNull();
    expect(await inHand.nextBatch()).toBeNull();
  });

  test("that are full do not wait for more", async () => {
    const inHand = new InHand(null, 30);
    await receive(inHand, BATCH);
    const next = inHand.nextBatch();
    expect(await isPending(next)).toBe(false);
    expect(await next).toHaveLength(BATCH);
  });

  test("that are not full go on after a while, although nothing ends", async () => {
    const inHand = new InHand(null, 30);
    const received = await receive(inHand, 3);
    expect(await inHand.nextBatch()).toEqual(received);
  });

  test("gather what several receivers bring", async () => {
    const inHand = new InHand(null, 30);
    let isHandedOn = false;
    const next = inHand.nextBatch().finally(() => {
      isHandedOn = true;
    });
    const all: Message[] = [];
    // Nothing here waits for more than promises: no timer can run out in between.
    for (let i = 0; i < BATCH / 10; i++) {
      expect(isHandedOn).toBe(false);
      all.push(...(await receive(inHand, 10)));
    }
    expect(await next).toEqual(all);
  });

  test("do not wait for more once receiving has ended", async () => {
    const inHand = new InHand(null, 30);
    const received = await receive(inHand, 3);
    inHand.end();
    const next = inHand.nextBatch();
    expect(await isPending(next)).toBe(false);
    expect(await next).toEqual(received);
  });

  test("are none after the end: whoever waits for one is told so", async () => {
    for (const act of ["end", "abandon"] as const) {
      const inHand = new InHand(null, 30);
      const waiting = inHand.nextBatch();
      expect(await isPending(waiting)).toBe(true);
      inHand[act]();
      expect(await waiting).toBeNull();
    }
  });

  test("are none after an abandonment, although messages wait", async () => {
    const inHand = new InHand(null, 30);
    await receive(inHand, 10);
    inHand.abandon();
    expect(await inHand.nextBatch()).toBeNull();
  });

  test("still come after the end, from an answer that was under way", async () => {
    const inHand = new InHand(null, 30);
    expect(await inHand.reserve(10)).toBe(10);
    const late = messages(2);
    inHand.fill(late, 10);
    inHand.end();
    expect(await inHand.nextBatch()).toEqual(late);
    expect(await inHand.nextBatch()).toBeNull();
  });

  test("hand on every message once, whatever the interleaving", async () => {
    const polls = fc.array(fc.nat(10), { maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(polls, polls, async (one, other) => {
        const inHand = new InHand(null, 30);
        const sent: Message[] = [];
        const receiver = async (counts: readonly number[]) => {
          for (const count of counts) {
            const room = await inHand.reserve(10);
            await setImmediate();
            const received = messages(count);
            sent.push(...received);
            inHand.fill(received, room);
          }
        };
        const receiving = Promise.all([receiver(one), receiver(other)]).then(() => inHand.end());
        const handed: Message[] = [];
        for (
          let batch = await inHand.nextBatch();
          batch !== null;
          batch = await inHand.nextBatch()
        ) {
          handed.push(...batch);
          inHand.release(batch);
        }
        await receiving;
        expect(handed).toEqual(sent);
      }),
      { numRuns: 30 },
    );
  });
});

test("once abandoned, nothing is handed on, although a receiver may still bring something", async () => {
  const inHand = new InHand(null, 30);
  expect(await inHand.reserve(20)).toBe(20);
  const next = inHand.nextBatch();
  inHand.abandon();
  expect(await next).toBeNull();
  inHand.fill(messages(5), 20);
  expect(await inHand.nextBatch()).toBeNull();
  expect(inHand.unstored()).toHaveLength(5);
});

test("room for large messages counts what is asked for as large as what is here", async () => {
  const inHand = new InHand(null, 30);
  const large = messages(10).map((message) => ({ ...message, body: "x".repeat(2 ** 20) }));
  expect(await inHand.reserve(10)).toBe(10);
  inHand.fill(large, 10);
  // 10 MiB are here, 32 are allowed: three more answers of this size are the most.
  for (let polls = 0; polls < 3; polls++) expect(await inHand.reserve(10)).toBe(10);
  const more = inHand.reserve(10);
  expect(await isPending(more)).toBe(true);
  inHand.release(large);
  expect(await more).toBe(10);
});
