// The processes under test, each at its post: started again when it ends, killed, asked to stop; and what is
// thought of how it ended.
import { setTimeout as sleep } from "node:timers/promises";
import { random } from "../bodies/hostile-random.ts";
import type { SharedQueue } from "../proxies/sqs-shared.ts";
import type { Generated } from "./messages.ts";
import type { Oracle } from "./oracle.ts";
import type { Servers } from "./servers.ts";
import type { Tally } from "./tally.ts";
import { type End, type Point, startWorker, type Worker, type WorkerOptions } from "./worker.ts";

/** What everything of one run is about. */
export type Scene = {
  readonly program: readonly string[];
  readonly servers: Servers;
  readonly shared: SharedQueue;
  readonly oracle: Oracle;
  readonly tally: Tally;
  readonly message: (n: number) => Generated;
  readonly seed: number;
  readonly visibilitySeconds: number;
};

export type Post = {
  readonly worker: Worker;
  /** The present life was asked to stop. */
  stopping: boolean;
  /** The present life. */
  end: Promise<End>;
  /** Somebody is striking at it. */
  busy: boolean;
};

export type Posts = {
  readonly list: readonly Post[];
  /** What ends from now on is not started again. */
  readonly close: () => void;
  /** Ends what still runs, and the proxies. */
  readonly stop: () => Promise<void>;
};

const STOP_MS = 45_000;
/** Then it is killed where it is. */
const POINT_MS = 3000;
const LONGEST_BREAK_MS = 150;
const NOT_YET: End = { code: null, signal: null, stdout: "", stderr: "", touched: false };

export async function startPosts(
  scene: Scene,
  count: number,
  options: Omit<WorkerOptions, "program" | "servers" | "shared"> = {},
): Promise<Posts> {
  const list: Post[] = [];
  let closed = false;
  const keepAlive = async (post: Post, i: number): Promise<void> => {
    const r = random(scene.seed ^ 0x5eed, i);
    while (!closed) {
      post.stopping = false;
      post.end = post.worker.live();
      const end = await post.end;
      if (closed) return;
      judge(post, end, scene.tally);
      scene.tally.restarts++;
      await sleep(r.below(LONGEST_BREAK_MS));
    }
  };
  for (let i = 0; i < count; i++) {
    const worker = await startWorker({ ...scene, ...options });
    list.push({ worker, stopping: false, end: Promise.resolve(NOT_YET), busy: false });
  }
  const lives = list.map(keepAlive);
  const close = () => {
    closed = true;
  };
  return {
    list,
    close,
    stop: async () => {
      close();
      await Promise.all(list.map(({ worker }) => worker.stop()));
      await Promise.all(lives);
    },
  };
}

/** At a point, or where it is. */
export async function kill(post: Post, at: Point | null, tally: Tally): Promise<void> {
  // A process that has died a moment ago is one to wait for.
  for (let waited = 0; post.worker.pid() === null && waited < 5000; waited += 5) await sleep(5);
  const struck = at !== null && (await post.worker.killAt(at, POINT_MS));
  const name = struck ? `at ${at}` : "at a random moment";
  if (struck || post.worker.signal("SIGKILL")) tally.count(tally.kills, name);
}

/** `judge` says what came of it. */
export async function terminate(post: Post, tally: Tally): Promise<void> {
  const { end } = post;
  post.stopping = true;
  if (!post.worker.signal("SIGTERM")) return;
  const late = sleep(STOP_MS, null, { ref: false });
  if ((await Promise.race([end, late])) !== null) return;
  tally.complaints.push(`SIGTERM did not end a process within ${STOP_MS / 1000} s`);
  post.worker.signal("SIGKILL");
}

/** What an end is: ours, a clean stop, or a death of its own. */
export function judge(post: Post, end: End, tally: Tally): void {
  if (end.signal === "SIGKILL") return; // nobody else sends it
  if (post.stopping) {
    tally.stopped(end.stdout);
    // Before the program has installed anything, the platform's own handling applies.
    if (end.signal === "SIGTERM" && !end.touched) return;
    const complaint = unclean(end);
    if (complaint !== null) tally.complaints.push(`after SIGTERM: ${complaint}`);
    return;
  }
  tally.count(tally.deaths, nameOf(end));
}

/** What is wrong with how a process ended that was asked to stop; null for nothing. */
export function unclean(end: End): string | null {
  if (end.code !== 0) return nameOf(end);
  if (!/^\{[^\n]*\}\n$/.test(end.stdout)) return "exit code 0 without a one-line summary";
  const { received, loaded, duplicates, quarantined } = JSON.parse(end.stdout);
  if (received === loaded + duplicates + quarantined) return null;
  return `a summary that does not add up: ${end.stdout.trim()}`;
}

/** The exit code or signal, and the last error on stderr, which holds no personal data. */
function nameOf({ code, signal, stderr }: End): string {
  const lines = stderr.split("\n").filter((line) => line !== "");
  const words =
    lines.findLast((line) => /error/i.test(line)) ?? lines.at(-1) ?? "no word on stderr";
  return `${signal ?? `exit code ${code}`}: ${words.replace(/127\.0\.0\.1:\d+/g, "…").slice(0, 200)}`;
}
