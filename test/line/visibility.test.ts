import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Failure } from "../../src/failure.ts";
import type { Notice } from "../../src/line/availability.ts";
import { InHand } from "../../src/line/in-hand.ts";
import { handBack, keepHidden } from "../../src/line/visibility.ts";
import type { Changed, Message, Queue } from "../../src/sqs/queue.ts";
import { advance, endClock, startClock, stateOf } from "../support/fake-clock.ts";

const HOUR = 3_600_000;
const never = new AbortController().signal;

beforeEach(startClock);
afterEach(endClock);

type Call = { readonly messages: readonly Message[]; readonly seconds: number };

const message = (n: number): Message => ({
  ...{ id: `m${n}`, body: "{}", receipt: `r${n}`, sentAt: new Date(0) },
});

/** A queue that keeps account of until when it hides what; answers with what `answer` says. */
function fakeQueue(
  visibilitySeconds: number,
  answer?: (call: Call, n: number) => Partial<Changed>,
) {
  const calls: Call[] = [];
  const hiddenUntil = new Map<Message, number>();
  const hide: Queue["hide"] = async (messages, seconds) => {
    const call = { messages, seconds };
    const nothing = { done: [], again: [], refused: [], failure: null };
    const outcome = { ...nothing, ...(answer?.(call, calls.length) ?? { done: messages }) };
    calls.push(call);
    for (const one of outcome.done) hiddenUntil.set(one, performance.now() + seconds * 1000);
    return outcome;
  };
  return { queue: { visibilitySeconds, hide } as Queue, calls, hiddenUntil };
}

function scene(visibilitySeconds: number, answer?: (call: Call, n: number) => Partial<Changed>) {
  const fake = fakeQueue(visibilitySeconds, answer);
  const inHand = new InHand(null, visibilitySeconds);
  const said: Notice[] = [];
  const end = new AbortController();
  const keeping = keepHidden(fake.queue, inHand, (notice) => said.push(notice), end.signal, 1000);
  const receive = async (count: number): Promise<Message[]> => {
    const messages = Array.from({ length: count }, (_, n) => message(n));
    await inHand.reserve(count);
    inHand.fill(messages, count);
    for (const one of messages) {
      fake.hiddenUntil.set(one, performance.now() + visibilitySeconds * 1000);
    }
    return messages;
  };
  const stop = async () => {
    end.abort();
    await keeping;
  };
  return { ...fake, inHand, said, receive, stop, keeping };
}

describe("what is held", () => {
  test("is hidden again when half of its time is over, and not before", async () => {
    const { receive, calls, stop } = scene(30);
    const messages = await receive(3);
    await advance(14_900);
    expect(calls).toEqual([]);
    await advance(1_200);
    expect(calls).toEqual([{ messages, seconds: 60 }]);
    await stop();
  });

  test("is hidden for twice as long each time, up to ten minutes", async () => {
    const { receive, calls, stop } = scene(30);
    await receive(1);
    await advance(HOUR, 500);
    const seconds = calls.map((call) => call.seconds);
    expect(seconds.slice(0, 7)).toEqual([60, 120, 240, 480, 600, 600, 600]);
    expect(seconds.length).toBeLessThan(18);
    await stop();
  });

  test("of a queue that hides for longer than that, is hidden as long as the queue says", async () => {
    const { receive, calls, stop } = scene(3600);
    await receive(1);
    await advance(2 * HOUR, 1000);
    expect(calls.map((call) => call.seconds)).toEqual([3600, 3600, 3600]);
    await stop();
  });

  test("never shows before eleven and a half hours are over, nor is hidden for more than SQS allows", async () => {
    for (const visibilitySeconds of [1, 2, 30, 599, 3600, 20_000, 43_200]) {
      const { receive, calls, hiddenUntil, stop } = scene(visibilitySeconds);
      const [one] = await receive(1);
      const receivedAt = performance.now();
      let shown = 0;
      for (let time = 0; time < 11.4 * HOUR; time += 50_000) {
        await advance(50_000, visibilitySeconds < 8 ? 125 : 1000);
        if (hiddenUntil.get(one!)! < performance.now()) shown++;
      }
      expect({ visibilitySeconds, shown }).toEqual({ visibilitySeconds, shown: 0 });
      for (const { seconds } of calls) expect(seconds).toBeGreaterThan(0);
      if (calls.length > 0) {
        expect(hiddenUntil.get(one!)! - receivedAt).toBeLessThanOrEqual(12 * HOUR);
      }
      expect(calls.length).toBeLessThan(200);
      await stop();
    }
  });

  test("is asked for in calls of bounded size, each once", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 2000 }), async (count) => {
        const { receive, calls, stop } = scene(30);
        const messages = await receive(count);
        await advance(16_100, 500);
        expect(calls.flatMap((call) => call.messages)).toEqual(messages);
        for (const call of calls) expect(call.messages.length).toBeLessThanOrEqual(160);
        await stop();
      }),
      { numRuns: 20 },
    );
  });

  test("is left alone once it is released", async () => {
    const { inHand, receive, calls, stop } = scene(30);
    const messages = await receive(5);
    inHand.release(messages.slice(0, 3));
    await advance(16_100, 500);
    expect(calls.map((call) => call.messages)).toEqual([messages.slice(3)]);
    inHand.release(messages);
    await advance(HOUR, 1000);
    expect(calls).toHaveLength(1);
    await stop();
  });

  test("is asked for again at the next look where the queue was away", async () => {
    const away = new Failure(1, "it is away", null, "QUEUE_AWAY");
    const { receive, calls, said, hiddenUntil, stop } = scene(30, ({ messages }, n) =>
      n < 5 ? { again: messages, failure: away } : { done: messages },
    );
    const [one] = await receive(1);
    await advance(25_000, 500);
    expect(calls.length).toBe(6);
    expect(calls.every(({ seconds }) => seconds === 60)).toBe(true);
    expect(hiddenUntil.get(one!)).toBeGreaterThan(performance.now() + 30_000);
    expect(said).toEqual([]);
    await stop();
  });

  test("is asked for again where SQS failed on it alone, and not where it is no longer ours", async () => {
    const { receive, calls, stop } = scene(30, ({ messages }) => {
      const [first, second, ...others] = messages;
      return messages.length === 1
        ? { done: messages }
        : { again: [first!], refused: [second!], done: others };
    });
    const messages = await receive(4);
    await advance(18_000, 500);
    expect(calls.map((call) => call.messages)).toEqual([messages, [messages[0]!]]);
    await advance(HOUR, 500);
    const asked = calls.slice(1).flatMap((call) => call.messages);
    expect(asked).not.toContain(messages[1]!);
    await stop();
  });

  test("is given up where the right to hide it is missing, and that is said once", async () => {
    const denied = new Failure(1, "cannot change messages' visibility: SQS answered 403 (Denied)");
    const { receive, calls, said, keeping } = scene(30, ({ messages }) => ({
      again: messages,
      failure: denied,
    }));
    await receive(500);
    await advance(HOUR, 1000);
    expect(calls).toHaveLength(1);
    expect(said).toEqual([{ event: "warning", message: expect.stringContaining(denied.message) }]);
    expect(said[0]?.message).toContain("sqs:ChangeMessageVisibility");
    expect(await stateOf(keeping)).toBe("kept");
  });
});

test("it ends when it is told to, at once, with and without something held", async () => {
  for (const count of [0, 10]) {
    const { receive, stop, keeping } = scene(30);
    if (count > 0) await receive(count);
    await advance(100);
    expect(await stateOf(keeping)).toBe("open");
    void stop();
    expect(await stateOf(keeping)).toBe("kept");
  }
});

describe("handing back", () => {
  test("makes all of them visible, and counts what SQS confirmed", async () => {
    for (const count of [0, 1, 10, 159, 160, 161, 4000]) {
      const { queue, calls } = fakeQueue(30, ({ messages }) => ({
        done: messages.filter((_, i) => i % 10 !== 3),
        refused: messages.filter((_, i) => i % 10 === 3),
      }));
      const messages = Array.from({ length: count }, (_, n) => message(n));
      const confirmed = messages.filter((_, i) => i % 10 !== 3).length;
      expect(await handBack(queue, messages, never)).toHaveLength(confirmed);
      expect(calls.every(({ seconds }) => seconds === 0)).toBe(true);
      expect(calls.flatMap((call) => call.messages)).toEqual(messages);
    }
  });

  test("goes on with the others where a call fails, and ends when there is no time left", async () => {
    const end = new AbortController();
    const { queue, calls } = fakeQueue(30, ({ messages }, n) => {
      if (n === 2) end.abort();
      return n === 1
        ? { again: messages, failure: new Failure(1, "it is away", null, "QUEUE_AWAY") }
        : { done: messages };
    });
    const messages = Array.from({ length: 1000 }, (_, n) => message(n));
    expect(await handBack(queue, messages, end.signal)).toHaveLength(320);
    expect(calls).toHaveLength(3);
  });
});
