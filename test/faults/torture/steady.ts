// `bun run torture steady`: one `etl --follow` at a steady rate with a fault a minute, for as long as one
// likes. It may not end, and what it takes of memory, files, connections and timers may not grow.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { PgError } from "../proxies/pg-wire.ts";
import type { SqsFault } from "../proxies/sqs-faults.ts";
import { lockingLedger, terminating } from "./database-strikes.ts";
import { startFeeder } from "./feeder.ts";
import { formatGauges, type Gauges, readGauges } from "./gauges.ts";
import { type Post, type Scene, startPosts } from "./posts.ts";
import { settle, stopAll } from "./rest.ts";
import { prepare, type Result, resultOf } from "./run.ts";
import { startServers } from "./servers.ts";
import { Tally } from "./tally.ts";

export type SteadyOptions = {
  readonly program: readonly string[];
  readonly minutes: number;
  /** Messages a second. */
  readonly rate: number;
  readonly seed: number;
  readonly redeliver: number;
  readonly visibilitySeconds: number;
  readonly onLine: (line: string) => void;
};

const READ_MS = 10_000;
const FAULT_MS = 60_000;
/** The first comes early, so that a short run has one too. */
const FIRST_FAULT_MS = 20_000;

type Fault = readonly [
  name: string,
  run: (scene: Scene, post: Post, lastsMs: number) => Promise<void>,
];

const answered = (name: string, error: PgError, to: "load" | "connect" = "load"): Fault => [
  `database: ${name}`,
  async (_, { worker }, lastsMs) => {
    worker.pg.answerNext({ ...error, to }, Number.POSITIVE_INFINITY);
    if (to === "connect") worker.pg.dropAll();
    await sleep(lastsMs);
    worker.pg.disarm();
  },
];
const failing = (fault: SqsFault): Fault => [
  `queue: ${fault}`,
  async (_, { worker }, lastsMs) => {
    worker.sqs.failNext(fault, "any", Number.POSITIVE_INFINITY);
    await sleep(lastsMs);
    worker.sqs.disarm();
  },
];
const error = (sqlstate: string, message: string): PgError => ({
  ...{ severity: "ERROR", sqlstate, message },
});

/** In turn, each for longer than the visibility time-out. */
const FAULTS: readonly Fault[] = [
  [
    "database: refused",
    async (_, { worker }, lastsMs) => {
      await worker.pg.set({ kind: "refuse", how: "closed" });
      worker.pg.dropAll();
      await sleep(lastsMs);
      await worker.pg.set({ kind: "pass" });
    },
  ],
  failing("throttled"),
  answered("disk full", error("53100", "could not extend file: No space left on device")),
  [
    "queue: held",
    async (_, { worker }, lastsMs) => {
      await worker.sqs.set({ kind: "hold" });
      await sleep(lastsMs);
      await worker.sqs.set({ kind: "pass" });
    },
  ],
  ["database: server restarted", ({ servers }) => servers.restartDatabase()],
  failing("unavailable"),
  answered("read-only", error("25006", "cannot execute INSERT in a read-only transaction")),
  failing("expired-token"),
  [
    "database: held",
    async (_, { worker }, lastsMs) => {
      await worker.pg.set({ kind: "hold" });
      await sleep(lastsMs);
      await worker.pg.set({ kind: "pass" });
    },
  ],
  failing("truncated"),
  answered(
    "too many connections",
    { severity: "FATAL", sqlstate: "53300", message: "sorry, too many clients already" },
    "connect",
  ),
  failing("reset-half"),
  [
    "SIGSTOP and SIGCONT",
    async (_, { worker }, lastsMs) => {
      worker.signal("SIGSTOP");
      await sleep(lastsMs);
      worker.signal("SIGCONT");
    },
  ],
  failing("partial"),
  [
    "database: every backend terminated",
    ({ servers }) => servers.strike(terminating(servers.etlLogin)),
  ],
  failing("lose"),
  answered("statement time-out", error("57014", "canceling statement due to statement timeout")),
  failing("internal-error"),
  [
    "database: the ledger locked",
    ({ servers }, _, lastsMs) => servers.strike(lockingLedger(lastsMs / 1000)),
  ],
  failing("reset-before"),
];

export async function steady(options: SteadyOptions): Promise<Result> {
  const servers = await startServers(options);
  const timersFile = join(servers.folder, "timers");
  const tally = new Tally();
  const scene: Scene = { ...options, ...prepare(servers, options), servers, tally };
  const posts = await startPosts(scene, 1, {
    preload: fileURLToPath(new URL("./count-timers.ts", import.meta.url)),
    env: { VEIL_TIMERS_FILE: timersFile },
  });
  const [post] = posts.list;
  const startedAt = performance.now();
  const elapsed = () => performance.now() - startedAt;
  const totalMs = options.minutes * 60_000;
  const feeder = startFeeder({
    queue: servers.queue,
    message: scene.message,
    count: Math.floor(options.minutes * 60 * options.rate),
    room: (sent) => (elapsed() / 1000) * options.rate - sent,
    onSent: (n, id) => scene.oracle.sent(n, id),
  });
  const readings: Gauges[] = [];
  const reading = setInterval(async () => {
    const pid = post?.worker.pid() ?? null;
    const gauges =
      pid === null ? null : await readGauges(servers, pid, elapsed() / 1000, timersFile);
    if (gauges === null) return;
    readings.push(gauges);
    options.onLine(`${formatGauges(gauges)}  acknowledged ${scene.shared.deleted.size}`);
  }, READ_MS);
  try {
    const lastsMs = options.visibilitySeconds * 1000 * 1.6;
    for (let i = 0; FIRST_FAULT_MS + i * FAULT_MS + lastsMs < totalMs; i++) {
      await sleep(Math.max(0, FIRST_FAULT_MS + i * FAULT_MS - elapsed()));
      const [name, run] = FAULTS[i % FAULTS.length]!;
      options.onLine(`${String(Math.round(elapsed() / 1000)).padStart(5)} s  ${name}`);
      tally.count(tally.strikes, name);
      await run(scene, post!, lastsMs);
    }
    await feeder.done;
    clearInterval(reading);
    await settle(scene, posts);
    await stopAll(scene, posts);
    if (tally.restarts > 0) tally.complaints.push("the process ended by itself");
    const result = await resultOf(scene, startedAt);
    const marks = [2, 10, 20].map((minute) => {
      const at = readings.findLast(({ seconds }) => seconds <= minute * 60 + 1);
      const isThen = at !== undefined && at.seconds > minute * 60 - 1.5 * (READ_MS / 1000);
      return !isThen ? "" : `at ${minute} minutes: ${formatGauges(at).trim()}\n`;
    });
    return { ...result, report: `${marks.join("")}${result.report}` };
  } finally {
    clearInterval(reading);
    feeder.stop();
    await posts.stop();
    rmSync(timersFile, { force: true });
    servers.stop();
  }
}
