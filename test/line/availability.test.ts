import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import fc from "fast-check";
import { Failure } from "../../src/failure.ts";
import { Availability, type Notice } from "../../src/line/availability.ts";
import { advance, endClock, startClock, stateOf } from "../support/fake-clock.ts";

const MINUTE = 60_000;
const never = new AbortController().signal;
const failure = new Failure(1, "cannot reach it", "is it running?", "ECONNREFUSED");

beforeEach(startClock);
afterEach(endClock);

function watch({ milliseconds = Number.POSITIVE_INFINITY, signal = never } = {}) {
  const said: Notice[] = [];
  const available = new Availability("it answers", { milliseconds, signal }, (notice) =>
    said.push(notice),
  );
  return { available, said, messages: () => said.map(({ message }) => message) };
}

describe("what is said", () => {
  test("is nothing while it works", async () => {
    const { available, said } = watch();
    available.worked();
    await advance(MINUTE);
    available.worked();
    expect(said).toEqual([]);
    expect({ isAway: available.isAway, awaySeconds: available.awaySeconds }).toEqual({
      isAway: false,
      awaySeconds: 0,
    });
  });

  test("is once that it is away, however often it fails, and once that it is back", async () => {
    const { available, said } = watch();
    for (let second = 0; second < 3600; second++) {
      available.failed("cannot reach it");
      await advance(1000, 1000);
    }
    expect(available.isAway).toBe(true);
    expect(available.awaySeconds).toBe(3600);
    available.worked();
    available.worked();
    expect(said).toEqual([
      {
        event: "away",
        message: "cannot reach it; waiting for it, nothing is lost",
        about: "it answers",
      },
      { event: "back", message: "it answers again after 3600 s", about: "it answers" },
    ]);
    expect(available.isAway).toBe(false);
  });

  test("counts from when an answer was first waited for", async () => {
    const { available, messages } = watch();
    const since = performance.now();
    await advance(5000, 1000);
    available.failed("it has not answered for 5 s", since);
    await advance(2000, 1000);
    available.worked();
    expect(messages()).toEqual([
      "it has not answered for 5 s; waiting for it, nothing is lost",
      "it answers again after 7 s",
    ]);
  });

  test("of what fails and works by turns is no more than a pair a minute", async () => {
    const { available, said } = watch();
    for (let second = 0; second < 600; second++) {
      available.failed("cannot reach it");
      await advance(500, 500);
      available.worked();
      await advance(500, 500);
    }
    expect(said.length).toBeLessThanOrEqual(20);
    expect(said.filter(({ event }) => event === "away").length).toBeGreaterThanOrEqual(9);
  });

  test("never is an end without its beginning", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 90 })), { maxLength: 40 }),
        async (steps) => {
          const { available, said } = watch();
          for (const [works, seconds] of steps) {
            if (works) available.worked();
            else available.failed("cannot reach it");
            await advance(seconds * 1000, 5000);
          }
          const events = said.map(({ event }) => event);
          expect(events).toEqual(events.map((_, i) => (i % 2 === 0 ? "away" : "back")));
        },
      ),
      { numRuns: 100 },
    );
  });

  test("is also that an outage lasts, where a short one was said a moment before", async () => {
    const { available, said } = watch();
    available.failed("cannot reach it");
    await advance(1000);
    available.worked();
    await advance(10_000, 1000);
    // The next one is said late at most, not never.
    for (let second = 0; second < 3600; second++) {
      available.failed("cannot reach it");
      await advance(1000, 1000);
    }
    expect(said.map(({ event }) => event)).toEqual(["away", "back", "away"]);
    available.worked();
    expect(said.map(({ event }) => event)).toEqual(["away", "back", "away", "back"]);
  });
});

describe("a pause", () => {
  test("is as long as the trouble has been, jittered, from a tenth of a second to five", async () => {
    const random = spyOn(Math, "random");
    try {
      for (const [awaySeconds, most] of [
        [0, 100],
        [0.2, 200],
        [1, 1000],
        [4, 4000],
        [5, 5000],
        [600, 5000],
        [86_400, 5000],
      ] as const) {
        for (const [chance, part] of [
          [0, 0.5],
          [0.5, 0.75],
          [0.999, 0.9995],
        ] as const) {
          random.mockReturnValue(chance);
          const { available } = watch();
          available.failed("cannot reach it");
          await advance(awaySeconds * 1000, 1000_000);
          const pause = available.pause(failure);
          await advance(Math.floor(most * part) - 2);
          expect(await stateOf(pause)).toBe("open");
          await advance(4);
          expect(await stateOf(pause)).toBe("kept");
        }
      }
    } finally {
      random.mockRestore();
    }
  });

  test("counts as a failure, and says so", async () => {
    const { available, messages } = watch();
    const pause = available.pause(failure);
    expect(available.isAway).toBe(true);
    expect(messages()).toEqual(["cannot reach it; waiting for it, nothing is lost"]);
    await advance(100);
    await pause;
  });

  test("throws what failed when patience is over, with how long that was", async () => {
    const { available } = watch({ milliseconds: MINUTE });
    let pauses = 0;
    let thrown: unknown = null;
    const trying = (async () => {
      for (;;) {
        await available.pause(failure);
        pauses++;
      }
    })().catch((error) => {
      thrown = error;
    });
    await advance(MINUTE - 1);
    expect(thrown).toBeNull();
    await advance(6000);
    await trying;
    expect(thrown).toBeInstanceOf(Failure);
    expect(thrown).toMatchObject({
      message: expect.stringMatching(/^cannot reach it; gave up after 6[0-5] s$/),
      ...{ exitCode: 1, hint: "is it running?", code: "ECONNREFUSED" },
    });
    // Neither a loop nor a sleep through the end.
    expect(pauses).toBeGreaterThan(12);
    expect(pauses).toBeLessThan(60);
  });

  test("has the whole of its patience again after it has worked", async () => {
    const { available } = watch({ milliseconds: MINUTE });
    for (let time = 0; time < 10; time++) {
      available.failed("cannot reach it");
      await advance(MINUTE - 10_000, 10_000);
      const pause = available.pause(failure);
      await advance(5000);
      expect(await stateOf(pause)).toBe("kept");
      available.worked();
    }
  });

  test("throws what failed at once when nobody waits any more", async () => {
    const asked = new AbortController();
    const { available } = watch({ signal: asked.signal });
    available.failed("cannot reach it");
    await advance(MINUTE, 1000);
    const pauses = [1, 2, 3].map(() => available.pause(failure));
    expect(await stateOf(Promise.race(pauses))).toBe("open");
    asked.abort();
    for (const pause of [...pauses, available.pause(failure)]) {
      expect(await stateOf(pause)).toBe("broken");
      expect(await pause.catch((error) => error)).toBe(failure);
    }
  });
});

describe("waiting until it is back", () => {
  test("takes no time while it works", async () => {
    const { available } = watch();
    expect(await stateOf(available.untilBack(never))).toBe("kept");
  });

  test("ends for everybody when it works again, and for the next outage begins anew", async () => {
    const { available } = watch();
    for (let time = 0; time < 3; time++) {
      available.failed("cannot reach it");
      const waiting = [1, 2, 3].map(() => available.untilBack(never));
      await advance(MINUTE, 1000);
      expect(await stateOf(Promise.race(waiting))).toBe("open");
      available.worked();
      expect(await stateOf(Promise.all(waiting))).toBe("kept");
    }
  });

  test("ends at a stop, and leaves nothing behind on its signal", async () => {
    const asked = new AbortController();
    const added = spyOn(asked.signal, "addEventListener");
    const removed = spyOn(asked.signal, "removeEventListener");
    const { available } = watch();
    available.failed("cannot reach it");
    const waiting = available.untilBack(asked.signal);
    expect(await stateOf(waiting)).toBe("open");
    asked.abort();
    expect(await stateOf(waiting)).toBe("kept");
    expect(removed).toHaveBeenCalledTimes(added.mock.calls.length);
    expect(await stateOf(available.untilBack(asked.signal))).toBe("kept");
    expect(available.isAway).toBe(true);
  });
});
