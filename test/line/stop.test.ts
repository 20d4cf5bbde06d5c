import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Stop } from "../../src/line/stop.ts";
import { advance, endClock, startClock, stateOf } from "../support/fake-clock.ts";

beforeEach(startClock);
afterEach(endClock);

const aborted = ({ asked, workEnds, handBackEnds }: Stop) => ({
  stop: asked.aborted,
  giveUp: workEnds.aborted,
  leave: handBackEnds.aborted,
});

test("nothing ends by itself, however long it runs", async () => {
  const stop = new Stop(new AbortController().signal, 1);
  await advance(86_400_000, 3_600_000);
  expect(aborted(stop)).toEqual({ stop: false, giveUp: false, leave: false });
  expect(await stateOf(stop.overdue)).toBe("open");
  expect(stop.failure).toBeNull();
});

test("a stop is at once; what is under way has most of the grace, handing back the rest", async () => {
  const asked = new AbortController();
  const stop = new Stop(asked.signal, 10);
  await advance(60_000, 1000);
  asked.abort();
  expect(aborted(stop)).toEqual({ stop: true, giveUp: false, leave: false });
  await advance(6_950);
  expect(aborted(stop)).toEqual({ stop: true, giveUp: false, leave: false });
  expect(await stateOf(stop.overdue)).toBe("open");
  await advance(100);
  expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: false });
  expect(await stateOf(stop.overdue)).toBe("kept");
  await advance(1_900);
  expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: false });
  await advance(100);
  expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: true });
  expect(stop.failure).toBeNull();
});

test("a stop that was asked for before it began counts from the beginning", async () => {
  const stop = new Stop(AbortSignal.abort(), 10);
  expect(aborted(stop)).toEqual({ stop: true, giveUp: false, leave: false });
  await advance(10_000);
  expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: true });
});

test("within any grace the steps come in their order, and all of them within it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 300 }), async (graceSeconds) => {
      const asked = new AbortController();
      const stop = new Stop(asked.signal, graceSeconds);
      const order: string[] = [];
      stop.workEnds.addEventListener("abort", () => order.push("give up"));
      stop.handBackEnds.addEventListener("abort", () => order.push("leave"));
      asked.abort();
      await advance(graceSeconds * 1000, graceSeconds * 10);
      expect(order).toEqual(["give up", "leave"]);
    }),
    { numRuns: 30 },
  );
});

describe("a failure", () => {
  test("is a stop, and has the same grace", async () => {
    const stop = new Stop(new AbortController().signal, 10);
    stop.fail(new Error("one"));
    expect(aborted(stop)).toEqual({ stop: true, giveUp: false, leave: false });
    await advance(7_100);
    expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: false });
  });

  test("is the first one, whatever follows from it", () => {
    const stop = new Stop(new AbortController().signal, 10);
    stop.fail("first");
    stop.fail("second");
    expect(stop.failure).toEqual({ error: "first" });
  });

  test("is one also where nothing was thrown that says anything", () => {
    const stop = new Stop(new AbortController().signal, 10);
    stop.fail(undefined);
    expect(stop.failure).not.toBeNull();
  });

  test("does not begin the grace anew where a stop was asked for before, nor the other way round", async () => {
    for (const first of ["asked", "failed"]) {
      const asked = new AbortController();
      const stop = new Stop(asked.signal, 10);
      const ask = () => asked.abort();
      const fail = () => stop.fail(new Error("it failed"));
      const [now, later] = first === "asked" ? [ask, fail] : [fail, ask];
      now();
      await advance(5000);
      later();
      await advance(2100);
      expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: false });
      await advance(2000);
      expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: true });
      expect(stop.failure).not.toBeNull();
    }
  });
});

test("work that is done leaves the time to hand back", async () => {
  const asked = new AbortController();
  const stop = new Stop(asked.signal, 10);
  asked.abort();
  await advance(1000);
  stop.endWork();
  expect(aborted(stop)).toEqual({ stop: true, giveUp: true, leave: false });
  expect(await stateOf(stop.overdue)).toBe("kept");
});

test("after the end no timer is left", async () => {
  const asked = new AbortController();
  const stop = new Stop(asked.signal, 10);
  asked.abort();
  stop.close();
  await advance(60_000, 1000);
  expect(aborted(stop)).toEqual({ stop: true, giveUp: false, leave: false });
});
