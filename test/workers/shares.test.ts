import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Shares } from "../../src/workers/shares.ts";

/** A worker as the shares see it: what it was given, and whether it was told that there is no more. */
class Asking {
  given = 0;
  isOver = false;
  isWaiting = false;

  ask(shares: Shares, worker: number): void {
    this.isWaiting = true;
    shares.ask(worker, (messages) => {
      this.isWaiting = false;
      this.given += messages;
      this.isOver = messages === 0;
    });
  }
}

function join(shares: Shares, workers: number): Asking[] {
  return Array.from({ length: workers }, (_, worker) => {
    shares.join(worker);
    return new Asking();
  });
}

describe("shares", () => {
  test("become smaller towards the end, and add up to the limit", () => {
    const shares = new Shares(1000, 2);
    const workers = join(shares, 2);
    const sizes: number[] = [];
    for (let turn = 0; workers.some(({ isOver }) => !isOver); turn++) {
      const worker = workers[turn % 2]!;
      const before = worker.given;
      worker.ask(shares, turn % 2);
      if (worker.given > before) sizes.push(worker.given - before);
    }
    expect(sizes.slice(0, 3)).toEqual([250, 188, 141]);
    expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(1000);
  });

  test("that are not used up go to whoever waits", () => {
    const shares = new Shares(10, 2);
    const [a, b] = join(shares, 2) as [Asking, Asking];
    a.ask(shares, 0);
    b.ask(shares, 1);
    expect([a.given, b.given, b.isWaiting, b.isOver]).toEqual([10, 0, true, false]);
    shares.leave(0, 4);
    expect([b.given, b.isWaiting]).toEqual([4, false]);
    b.ask(shares, 1);
    expect(b.isOver).toBe(true);
  });

  test("of a worker that died are dealt out to nobody", () => {
    const shares = new Shares(10, 2);
    const [a, b] = join(shares, 2) as [Asking, Asking];
    a.ask(shares, 0);
    b.ask(shares, 1);
    expect(shares.writeOff(0)).toBe(10);
    expect([b.given, b.isOver]).toEqual([0, true]);
    shares.leave(1, 0);
    shares.join(0);
    a.ask(shares, 0);
    expect([a.given, a.isOver]).toEqual([10, true]);
  });

  test("of one limit are never more than it, and all of it when everybody uses up what it has", () => {
    const step = fc.record({
      worker: fc.nat(3),
      kind: fc.constantFrom("ask", "ask", "ask", "leave", "die"),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(fc.nat(5000), fc.array(step, { maxLength: 60 }), (limit, steps) => {
        const shares = new Shares(limit, 4);
        let workers = join(shares, 4);
        let received = 0;
        for (const { worker, kind, part } of steps) {
          const one = workers[worker]!;
          if (kind === "ask") {
            if (!one.isWaiting && !one.isOver) one.ask(shares, worker);
            continue;
          }
          const used = kind === "die" ? one.given : Math.floor(one.given * part);
          if (kind === "die") expect(shares.writeOff(worker)).toBe(one.given);
          else shares.leave(worker, one.given - used);
          received += used;
          workers = workers.with(worker, new Asking());
          shares.join(worker);
        }
        const given = () => workers.reduce((sum, one) => sum + one.given, received);
        expect(given()).toBeLessThanOrEqual(limit);
        while (workers.some(({ isOver }) => !isOver)) {
          const before = given();
          for (const [worker, one] of workers.entries()) {
            if (!one.isWaiting && !one.isOver) one.ask(shares, worker);
          }
          const isStuck = workers.every(({ isOver, isWaiting }) => isOver || isWaiting);
          if (isStuck && given() === before && !workers.every(({ isOver }) => isOver)) {
            // Those that were told that there is no more end by themselves.
            for (const [worker, one] of workers.entries()) if (one.isOver) shares.leave(worker, 0);
          }
        }
        expect(given()).toBe(limit);
      }),
    );
  });
});
