// How many receivers there are, and when they end: with a queue whose answers a test gives by hand.
import { expect, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { readTokenKey } from "../../src/config/keys.ts";
import { Failure } from "../../src/failure.ts";
import { DataKeys } from "../../src/keys/data-keys.ts";
import { Availability } from "../../src/line/availability.ts";
import { newCounts } from "../../src/line/counts.ts";
import { InHand } from "../../src/line/in-hand.ts";
import { runLine } from "../../src/line/line.ts";
import { Receivers } from "../../src/line/receive.ts";
import { LINE_WAITS } from "../../src/line/waits.ts";
import type { Database } from "../../src/postgres/database.ts";
import type { Message, Queue } from "../../src/sqs/queue.ts";
import { makeKeys } from "../support/keys.ts";

let ids = 0;
const messages = (count: number): Message[] =>
  Array.from({ length: count }, () => ({
    ...{ id: `m${ids++}`, body: '{"user_id":"u"}', receipt: "r", sentAt: new Date() },
  }));

const done = (all: readonly Message[]) => ({ done: all, again: [], refused: [], failure: null });

function start(follow: boolean) {
  const polls: ((messages: Message[]) => void)[] = [];
  const queue = {
    receive: () => new Promise((resolve) => polls.push(resolve)),
  } as unknown as Queue;
  const end = new AbortController();
  const patience = { milliseconds: Number.POSITIVE_INFINITY, signal: end.signal };
  const inHand = new InHand(null, 30);
  let ended = false;
  const available = new Availability("it", patience, () => {});
  const fail = (error: unknown) => {
    throw error;
  };
  const stopping = { asked: end.signal, workEnds: end.signal, fail };
  const receiving = { queue, inHand, follow, available, needs: [], waits: LINE_WAITS };
  const all = new Receivers({ ...receiving, stop: stopping }).run().finally(() => {
    ended = true;
  });
  /** Answers the open polls, all in one turn, and says how many are open after it. */
  const answer = async (...counts: number[]): Promise<number> => {
    const open = polls.splice(0, counts.length);
    expect(open).toHaveLength(counts.length);
    for (const [i, count] of counts.entries()) open[i]!(messages(count));
    await sleep(1);
    return polls.length;
  };
  const stop = async () => {
    end.abort();
    for (const poll of polls.splice(0)) poll([]);
    await all;
  };
  return { answer, stop, polls, hasEnded: () => ended };
}

test("who follows begins with one poll, has one more after each full answer, and one less after a poor one", async () => {
  const { answer, stop, polls } = start(true);
  await sleep(1);
  expect(polls).toHaveLength(1);
  expect(await answer(10)).toBe(2);
  expect(await answer(10, 10)).toBe(4);
  expect(await answer(7, 7, 7, 7)).toBe(4);
  expect(await answer(2)).toBe(3);
  expect(await answer(0, 0)).toBe(1);
  expect(await answer(0)).toBe(1);
  await stop();
});

test("poor answers to all polls in one turn leave one receiver, and a drain its four", async () => {
  const following = start(true);
  await sleep(1);
  for (let polls = 1; polls < 32; polls *= 2) await following.answer(...Array(polls).fill(10));
  expect(following.polls).toHaveLength(32);
  expect(await following.answer(...Array(32).fill(1))).toBe(1);
  expect(following.hasEnded()).toBe(false);
  await following.stop();
  const draining = start(false);
  await sleep(1);
  expect(await draining.answer(10, 10, 10, 10)).toBe(8);
  expect(await draining.answer(...Array(8).fill(1))).toBe(4);
  expect(draining.hasEnded()).toBe(false);
  await draining.stop();
});

for (const [what, code, isStopped] of [
  ["a stop while the database is away", "ECONNREFUSED", true],
  ["a failure for good", "42501", false],
] as const) {
  test(`${what}: what is held is handed back before the open poll is cut`, async () => {
    const events: string[] = [];
    let first = true;
    const queue: Queue = {
      ...{ isFifo: false, visibilitySeconds: 30, close: () => {} },
      receive: (_most, _wait, signal) =>
        new Promise((resolve, reject) => {
          if (first) {
            first = false;
            return resolve(messages(3));
          }
          signal.addEventListener("abort", () => {
            events.push("cut");
            reject(Object.assign(new Error(), { name: "AbortError" }));
          });
        }),
      acknowledge: async (all) => done(all),
      hide: async (all, seconds) => {
        events.push(`${all.length} hidden for ${seconds} s`);
        return done(all);
      },
      depth: async () => ({ waiting: 0, inFlight: 0 }),
    };
    const stop = new AbortController();
    const refuse = async () => {
      if (isStopped) setTimeout(() => stop.abort(), 100);
      throw new Failure(1, "it does not", "wait", code);
    };
    const keys = await makeKeys();
    const subkeys = readTokenKey(keys);
    const dataKeys = new DataKeys(subkeys, [keys.VEIL_RECIPIENTS]);
    const database = { host: "db", query: refuse, renew: () => {} } as unknown as Database;
    const counts = newCounts();
    const run = runLine(
      { queue, database, subkeys, dataKeys },
      {
        ...{ follow: true, maxMessages: null, signal: stop.signal, graceSeconds: 100 },
        ...{ onProgress: () => {}, onNotice: () => {} },
      },
      counts,
    );
    if (isStopped) await run;
    else await expect(run).rejects.toThrow("it does not");
    expect(events).toEqual(["3 hidden for 0 s", "cut"]);
    expect(counts.handedBack).toBe(3);
  });
}
