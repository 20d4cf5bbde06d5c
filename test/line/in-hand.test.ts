import { describe, expect, test } from "bun:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { Held } from "../../src/line/in-hand.ts";
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
async function receive(held: Held, count: number): Promise<Message[]> {
  const received = messages(count);
  expect(await held.reserve(count)).toBe(count);
  held.fill(received, count);
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
    const held = new Held(null, 30);
    expect(await held.reserve(10)).toBe(10);
    expect(await held.reserve(1)).toBe(1);
  });

  test("ends at 2,000 messages, reserved or received", async () => {
    const held = new Held(null, 30);
    await receive(held, MAX_HELD - 15);
    expect(await held.reserve(10)).toBe(10);
    expect(await held.reserve(10)).toBe(5);
    const waiting = held.reserve(10);
    expect(await isPending(waiting)).toBe(true);
    held.end();
    expect(await waiting).toBe(0);
  });

  test("comes back when an answer was smaller than its reservation", async () => {
    const held = new Held(null, 30);
    expect(await held.reserve(MAX_HELD)).toBe(MAX_HELD);
    const waiting = held.reserve(10);
    expect(await isPending(waiting)).toBe(true);
    held.fill(messages(MAX_HELD - 3), MAX_HELD);
    expect(await waiting).toBe(3);
  });

  test("comes back when messages are released, not when they are handed on", async () => {
    const held = new Held(null, 30);
    await receive(held, MAX_HELD);
    const waiting = held.reserve(10);
    const batch = await held.next();
    expect(batch).toHaveLength(BATCH);
    expect(await isPending(waiting)).toBe(true);
    held.release(batch ?? []);
    expect(await waiting).toBe(10);
  });

  test("is full at 32 million characters, however few the messages are", async () => {
    const held = new Held(null, 30);
    const large = messages(33).map((message) => ({ ...message, body: "x".repeat(2 ** 20) }));
    expect(await held.reserve(40)).toBe(40);
    held.fill(large, 40);
    const waiting = held.reserve(10);
    expect(await isPending(waiting)).toBe(true);
    // Batches are bounded alike, by four million; one message alone may be larger than that.
    expect(await held.next()).toHaveLength(4);
    held.release(large.slice(0, 4));
    expect(await waiting).toBe(10);
    held.fill([{ ...large[0]!, body: "x".repeat(5 * 2 ** 20) }], 10);
    held.end();
    const sizes: number[] = [];
    for (let batch = await held.next(); batch !== null; batch = await held.next()) {
      sizes.push(batch.length);
    }
    expect(sizes).toEqual([4, 4, 4, 4, 4, 4, 4, 1, 1]);
  });

  test("is given to nobody after the end or an abandonment", async () => {
    const ended = new Held(null, 30);
    ended.end();
    expect(await ended.reserve(10)).toBe(0);
    const abandoned = new Held(null, 30);
    abandoned.abandon();
    expect(await abandoned.reserve(10)).toBe(0);
  });

  test("is no longer waited for after an end or an abandonment", async () => {
    const acts = [(held: Held) => held.end(), (held: Held) => held.abandon()];
    for (const act of acts) {
      const held = new Held(null, 30);
      await receive(held, MAX_HELD);
      const waiting = [1, 2, 3].map(() => held.reserve(10));
      expect(await isPending(Promise.race(waiting))).toBe(true);
      act(held);
      expect(await Promise.all(waiting)).toEqual([0, 0, 0]);
    }
  });
});

describe("a budget", () => {
  test("is given out once and exactly", async () => {
    const held = new Held(25, 30);
    expect(await held.reserve(10)).toBe(10);
    expect(await held.reserve(10)).toBe(10);
    expect(await held.reserve(10)).toBe(5);
    held.fill(messages(10), 10);
    held.fill(messages(10), 10);
    held.fill(messages(5), 5);
    expect(await held.reserve(10)).toBe(0);
  });

  test("that others have reserved sends a receiver away, since they can take all that is left", async () => {
    const held = new Held(15, 30);
    expect(await held.reserve(10)).toBe(10);
    expect(await held.reserve(10)).toBe(5);
    expect(await held.reserve(10)).toBe(0);
    held.fill(messages(6), 10);
    expect(await held.reserve(10)).toBe(4);
    held.fill(messages(4), 4);
    expect(await held.reserve(10)).toBe(0);
  });

  test("is not refilled by what is released", async () => {
    const held = new Held(5, 30);
    await receive(held, 5);
    held.release((await held.next()) ?? []);
    expect(await held.reserve(10)).toBe(0);
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
        const held = new Held(budget, 30);
        let received = 0;
        const receiver = async () => {
          for (;;) {
            const room = await held.reserve(10);
            if (room === 0) return;
            for (let i = delays.next().value ?? 0; i > 0; i--) await setImmediate();
            const count = Math.min(room, polls.next().value ?? 0);
            received += count;
            held.fill(messages(count), room);
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
    const held = new Held(null, 30);
    const received = await receive(held, 2.5 * BATCH);
    held.end();
    expect(await held.next()).toEqual(received.slice(0, BATCH));
    expect(await held.next()).toEqual(received.slice(BATCH, 2 * BATCH));
    expect(await held.next()).toEqual(received.slice(2 * BATCH));
    expect(await held.next()).toBeNull();
    expect(await held.next()).toBeNull();
  });

  test("that are full do not wait for more", async () => {
    const held = new Held(null, 30);
    await receive(held, BATCH);
    const next = held.next();
    expect(await isPending(next)).toBe(false);
    expect(await next).toHaveLength(BATCH);
  });

  test("that are not full go on after a while, although nothing ends", async () => {
    const held = new Held(null, 30);
    const received = await receive(held, 3);
    expect(await held.next()).toEqual(received);
  });

  test("gather what several receivers bring", async () => {
    const held = new Held(null, 30);
    let isHandedOn = false;
    const next = held.next().finally(() => {
      isHandedOn = true;
    });
    const all: Message[] = [];
    // Nothing here waits for more than promises: no timer can run out in between.
    for (let i = 0; i < BATCH / 10; i++) {
      expect(isHandedOn).toBe(false);
      all.push(...(await receive(held, 10)));
    }
    expect(await next).toEqual(all);
  });

  test("do not wait for more once receiving has ended", async () => {
    const held = new Held(null, 30);
    const received = await receive(held, 3);
    held.end();
    const next = held.next();
    expect(await isPending(next)).toBe(false);
    expect(await next).toEqual(received);
  });

  test("are none after the end: whoever waits for one is told so", async () => {
    for (const act of ["end", "abandon"] as const) {
      const held = new Held(null, 30);
      const waiting = held.next();
      expect(await isPending(waiting)).toBe(true);
      held[act]();
      expect(await waiting).toBeNull();
    }
  });

  test("are none after an abandonment, although messages wait", async () => {
    const held = new Held(null, 30);
    await receive(held, 10);
    held.abandon();
    expect(await held.next()).toBeNull();
  });

  test("still come after the end, from an answer that was under way", async () => {
    const held = new Held(null, 30);
    expect(await held.reserve(10)).toBe(10);
    const late = messages(2);
    held.fill(late, 10);
    held.end();
    expect(await held.next()).toEqual(late);
    expect(await held.next()).toBeNull();
  });

  test("hand on every message once, whatever the interleaving", async () => {
    const polls = fc.array(fc.nat(10), { maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(polls, polls, async (one, other) => {
        const held = new Held(null, 30);
        const sent: Message[] = [];
        const receiver = async (counts: readonly number[]) => {
          for (const count of counts) {
            const room = await held.reserve(10);
            await setImmediate();
            const received = messages(count);
            sent.push(...received);
            held.fill(received, room);
          }
        };
        const receiving = Promise.all([receiver(one), receiver(other)]).then(() => held.end());
        const handed: Message[] = [];
        for (let batch = await held.next(); batch !== null; batch = await held.next()) {
          handed.push(...batch);
          held.release(batch);
        }
        await receiving;
        expect(handed).toEqual(sent);
      }),
      { numRuns: 30 },
    );
  });
});

test("once abandoned, nothing is handed on, although a receiver may still bring something", async () => {
  const held = new Held(null, 30);
  expect(await held.reserve(20)).toBe(20);
  const next = held.next();
  held.abandon();
  expect(await next).toBeNull();
  held.fill(messages(5), 20);
  expect(await held.next()).toBeNull();
  expect(held.unstored()).toHaveLength(5);
});

test("room for large messages counts what is asked for as large as what is here", async () => {
  const held = new Held(null, 30);
  const large = messages(10).map((message) => ({ ...message, body: "x".repeat(2 ** 20) }));
  expect(await held.reserve(10)).toBe(10);
  held.fill(large, 10);
  // 10 MiB are here, 32 are allowed: three more answers of this size are the most.
  for (let polls = 0; polls < 3; polls++) expect(await held.reserve(10)).toBe(10);
  const more = held.reserve(10);
  expect(await isPending(more)).toBe(true);
  held.release(large);
  expect(await more).toBe(10);
});
