// Time as a test turns it: timers, Date and performance.now, so that hours pass in a moment and no verdict
// depends on how fast a machine is.
import { jest } from "bun:test";

/** Of everything that is ready to go on, in turns: no timer is involved. */
async function settle(): Promise<void> {
  for (let i = 0; i < 30; i++) await Promise.resolve();
}

/** Lets so much time pass, in steps in which everything that was waited for goes on. */
export async function advance(milliseconds: number, step = 50): Promise<void> {
  await settle();
  for (let left = milliseconds; left > 0; left -= step) {
    jest.advanceTimersByTime(Math.min(step, left));
    await settle();
  }
}

export const startClock = (): void => void jest.useFakeTimers();
export const endClock = (): void => void jest.useRealTimers();

/** What has become of a promise, as of now. */
export async function stateOf(promise: Promise<unknown>): Promise<"open" | "kept" | "broken"> {
  let state: "open" | "kept" | "broken" = "open";
  promise.then(
    () => {
      state = "kept";
    },
    () => {
      state = "broken";
    },
  );
  await settle();
  return state;
}
