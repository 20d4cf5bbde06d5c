// Strikes at one to four veil processes, by a seeded random sequence, while messages pass: also while they
// recover from the last strike. In the end everything comes to rest.
import { setTimeout as sleep } from "node:timers/promises";
import { random } from "../bodies/hostile-random.ts";
import type { SharedQueue } from "../proxies/sqs-shared.ts";
import { depthOf, startFeeder } from "./feeder.ts";
import { meeting } from "./meeting.ts";
import { kill, type Post, type Posts, type Scene, startPosts, terminate } from "./posts.ts";
import { settle, stopAll } from "./rest.ts";
import { drawStrike } from "./strikes.ts";
import type { Target } from "./target.ts";

export type FireOptions = Scene & {
  readonly messages: number;
  readonly kills: number;
  readonly workers: number;
  /** A kind of strike that comes as often as all others together. */
  readonly focus: string | null;
  /** Loads of several workers go off together, so that they get in each other's way. */
  readonly together: boolean;
  readonly onProgress: (sent: number) => void;
};

/** At most so many wait in the queue, beside what the workers hold. */
const MOST_WAITING = 2000;
const STANDSTILL_MS = 120_000;
/** A point that was passed less often is hardly worth waiting for. */
const OFTEN = 5;

export async function runUnderFire(options: FireOptions): Promise<void> {
  const { servers, shared, oracle, tally } = options;
  let waiting = 0;
  const backlog = Math.min(MOST_WAITING, Math.ceil(options.messages / 10));
  const posts = await startPosts(
    options,
    options.workers,
    options.together ? { gate: meeting() } : {},
  );
  const feeder = startFeeder({
    queue: servers.queue,
    message: options.message,
    count: options.messages,
    // Messages last as long as kills do, so that none of them strikes an idle line.
    room: (sent) => {
      const part = (tally.totalKills() + 2 * options.workers) / options.kills;
      return Math.min(backlog - waiting, backlog + options.messages * part - sent);
    },
    onSent: (n, id) => {
      waiting++;
      oracle.sent(n, id);
    },
  });
  const depth = setInterval(() => {
    depthOf(servers.queue).then(
      (now) => {
        waiting = now.waiting;
      },
      () => {},
    );
    options.onProgress(feeder.sent());
  }, 50);

  const stalled = watch(shared, () => {
    tally.complaints.push(`nothing was acknowledged for ${STANDSTILL_MS / 1000} s`);
    feeder.stop();
  });
  try {
    await Promise.all([strikeAll(options, posts, stalled.signal), feeder.done]);
    stalled.stop();
    await settle(options, posts);
    await stopAll(options, posts);
  } finally {
    stalled.stop();
    clearInterval(depth);
    feeder.stop();
    await posts.stop();
  }
}

/** Says once that nothing moves any more. */
function watch({ deleted }: SharedQueue, onStall: () => void) {
  const stalled = new AbortController();
  let size = deleted.size;
  let moved = performance.now();
  const timer = setInterval(() => {
    if (deleted.size !== size) {
      size = deleted.size;
      moved = performance.now();
    }
    if (performance.now() - moved < STANDSTILL_MS) return;
    clearInterval(timer);
    stalled.abort();
    onStall();
  }, 1000);
  return { signal: stalled.signal, stop: () => clearInterval(timer) };
}

/** One strike after another, as fast as messages pass: `kills` of them over all of `messages`. */
async function strikeAll(options: FireOptions, posts: Posts, stalled: AbortSignal): Promise<void> {
  const { tally, kills, messages } = options;
  const running = new Set<Promise<void>>();
  let ordered = 0;
  for (let n = 0; ordered < kills && !stalled.aborted; n++) {
    const r = random(options.seed, n);
    await progress(options, (messages * ordered) / kills);
    let free = posts.list.filter((post) => !post.busy);
    for (; free.length === 0; free = posts.list.filter((post) => !post.busy)) await sleep(5);
    const post = r.pick(free);
    const strike = drawStrike(r, options.focus);
    if (strike.kills) ordered++;
    else tally.count(tally.strikes, strike.name);
    // Faults also strike while veil recovers from the last one.
    const again = r.chance(0.2) ? r.below(700) : null;
    const where = r.pick([null, null, "connect", "probed"] as const);
    const run = async () => {
      post.busy = true;
      try {
        await strike.run(targetOf(options, post, posts));
        if (again !== null && ordered < kills) {
          ordered++;
          await sleep(again);
          tally.whileRecovering++;
          await kill(post, where, tally);
        }
      } catch (error) {
        tally.complaints.push(`${strike.name} could not be done: ${String(error)}`);
      } finally {
        post.busy = false;
      }
    };
    const done = run();
    running.add(done);
    void done.finally(() => running.delete(done));
  }
  await Promise.all(running);
}

/** Waits until so many messages are through; not for ever, since a line in trouble is struck too. */
async function progress({ shared }: FireOptions, wanted: number): Promise<void> {
  for (let waited = 0; shared.deleted.size < wanted && waited < 15_000; waited += 10)
    await sleep(10);
}

const targetOf = (options: FireOptions, post: Post, posts: Posts): Target => ({
  worker: post.worker,
  servers: options.servers,
  visibilitySeconds: options.visibilitySeconds,
  kill: (at) => kill(post, at, options.tally),
  passed: (point) => posts.list.reduce((sum, { worker }) => sum + worker.passed(point), 0) >= OFTEN,
  terminate: () => terminate(post, options.tally),
});
