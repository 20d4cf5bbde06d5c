import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Ending } from "../../src/line/ending.ts";
import { advance, endClock, startClock, stateOf } from "../support/fake-clock.ts";

beforeEach(startClock);
afterEach(endClock);

const aborted = ({ stop, giveUp, leave }: Ending) => ({
  stop: stop.aborted,
  giveUp: giveUp.aborted,
  leave: leave.aborted,
});

test("nothing ends by itself, however long it runs", async () => {
  const ending = new Ending(new AbortController().signal, 1);
  await advance(86_400_000, 3_600_000);
  expect(aborted(ending)).toEqual({ stop: false, giveUp: false, leave: false });
  expect(await stateOf(ending.overdue)).toBe("open");
  expect(ending.failure).toBeNull();
});

test("a stop is at once; what is under way has most of the grace, handing back the rest", async () => {
  const asked = new AbortController();
  const ending = new Ending(asked.signal, 10);
  await advance(60_000, 1000);
  asked.abort();
  expect(aborted(ending)).toEqual({ stop: true, giveUp: false, leave: false });
  await advance(6_950);
  expect(aborted(ending)).toEqual({ stop: true, giveUp: false, leave: false });
  expect(await stateOf(ending.overdue)).toBe("open");
  await advance(100);
  expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: false });
  expect(await stateOf(ending.overdue)).toBe("kept");
  await advance(1_900);
  expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: false });
  await advance(100);
  expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: true });
  expect(ending.failure).toBeNull();
});

test("a stop that was asked for before it began counts from the beginning", async () => {
  const ending = new Ending(AbortSignal.abort(), 10);
  expect(aborted(ending)).toEqual({ stop: true, giveUp: false, leave: false });
  await advance(10_000);
  expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: true });
});

test("within any grace the steps come in their order, and all of them within it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 300 }), async (graceSeconds) => {
      const asked = new AbortController();
      const ending = new Ending(asked.signal, graceSeconds);
      const order: string[] = [];
      ending.giveUp.addEventListener("abort", () => order.push("give up"));
      ending.leave.addEventListener("abort", () => order.push("leave"));
      asked.abort();
      await advance(graceSeconds * 1000, graceSeconds * 10);
      expect(order).toEqual(["give up", "leave"]);
    }),
    { numRuns: 30 },
  );
});

describe("a failure", () => {
  test("is a stop, and has the same grace", async () => {
    const ending = new Ending(new AbortController().signal, 10);
    ending.fail(new Error("one"));
    expect(aborted(ending)).toEqual({ stop: true, giveUp: false, leave: false });
    await advance(7_100);
    expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: false });
  });

  test("is the first one, whatever follows from it", () => {
    const ending = new Ending(new AbortController().signal, 10);
    ending.fail("first");
    ending.fail("second");
    expect(ending.failure).toEqual({ error: "first" });
  });

  test("is one also where nothing was thrown that says anything", () => {
    const ending = new Ending(new AbortController().signal, 10);
    ending.fail(undefined);
    expect(ending.failure).not.toBeNull();
  });

  test("does not begin the grace anew where a stop was asked for before, nor the other way round", async () => {
    for (const first of ["asked", "failed"]) {
      const asked = new AbortController();
      const ending = new Ending(asked.signal, 10);
      const ask = () => asked.abort();
      const fail = () => ending.fail(new Error("it failed"));
      const [now, later] = first === "asked" ? [ask, fail] : [fail, ask];
      now();
      await advance(5000);
      later();
      await advance(2100);
      expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: false });
      await advance(2000);
      expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: true });
      expect(ending.failure).not.toBeNull();
    }
  });
});

test("work that is done leaves the time to hand back", async () => {
  const asked = new AbortController();
  const ending = new Ending(asked.signal, 10);
  asked.abort();
  await advance(1000);
  ending.finish();
  expect(aborted(ending)).toEqual({ stop: true, giveUp: true, leave: false });
  expect(await stateOf(ending.overdue)).toBe("kept");
});

test("after the end no timer is left", async () => {
  const asked = new AbortController();
  const ending = new Ending(asked.signal, 10);
  asked.abort();
  ending.close();
  await advance(60_000, 1000);
  expect(aborted(ending)).toEqual({ stop: true, giveUp: false, leave: false });
});
