// `bun run torture hot`: workers that load the same few tokens and the same redelivered messages at the same
// moments. Sorted as they are, their inserts may wait for each other; they may not deadlock, and no error may
// surface.
import { setTimeout as sleep } from "node:timers/promises";
import { depthOf, startFeeder } from "./feeder.ts";
import { meeting } from "./meeting.ts";
import { type Scene, startPosts } from "./posts.ts";
import { settle, stopAll } from "./rest.ts";
import { prepare, type Result, resultOf } from "./run.ts";
import { startServers } from "./servers.ts";
import { Tally } from "./tally.ts";

export type HotOptions = {
  readonly program: readonly string[];
  readonly minutes: number;
  readonly workers: number;
  readonly seed: number;
  readonly visibilitySeconds: number;
  readonly onLine: (line: string) => void;
};

const HOT_VALUES = 5;
const MOST_WAITING = 3000;
const REPORT_MS = 10_000;

export async function hot(options: HotOptions): Promise<Result> {
  const servers = await startServers(options);
  const tally = new Tally();
  const sharing = { ...options, hot: HOT_VALUES, redeliver: 0.5, redeliverWithinMs: 50 };
  const scene: Scene = { ...options, ...prepare(servers, sharing), servers, tally };
  let said = 0;
  const posts = await startPosts(scene, options.workers, {
    gate: meeting(),
    onLine: (line) => {
      if (!isComplaint(line)) return;
      if (++said <= 5) tally.complaints.push(`stderr: ${line.slice(0, 200)}`);
    },
  });
  const startedAt = performance.now();
  let waiting = 0;
  const feeder = startFeeder({
    queue: servers.queue,
    message: scene.message,
    count: Number.POSITIVE_INFINITY,
    room: () => MOST_WAITING - waiting,
    onSent: (n, id) => {
      waiting++;
      scene.oracle.sent(n, id);
    },
  });
  const depth = setInterval(() => {
    depthOf(servers.queue).then(
      (now) => {
        waiting = now.waiting;
      },
      () => {},
    );
  }, 50);
  const reporting = setInterval(() => {
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    options.onLine(`${seconds} s: ${scene.shared.deleted.size} acknowledged`);
  }, REPORT_MS);
  try {
    await sleep(options.minutes * 60_000);
    feeder.stop();
    await feeder.done;
    await settle(scene, posts);
    await stopAll(scene, posts);
    if (tally.restarts > 0) tally.complaints.push("a process ended by itself");
    return await resultOf(scene, startedAt);
  } finally {
    clearInterval(depth);
    clearInterval(reporting);
    feeder.stop();
    await posts.stop();
    servers.stop();
  }
}

/** Neither a report of counts nor a notice that all is well. */
function isComplaint(line: string): boolean {
  if (line === "") return false;
  try {
    return JSON.parse(line).level !== "info";
  } catch {
    return true;
  }
}
