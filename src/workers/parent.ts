// `veil etl --workers`: processes of the same program under this one, which itself only adds up what they
// tell, deals out --max-messages, passes a stop on, and starts another one for each that has died.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { failed, misuse } from "../failure.ts";
import type { Notice } from "../line/availability.ts";
import type { Counts } from "../line/counts.ts";
import { addNews, asError, type Order, type Report, type Start } from "./channel.ts";
import { WORKER_COMMAND } from "./command.ts";
import { Notices } from "./notices.ts";
import { Shares } from "./shares.ts";

/** Beyond this many, one PostgreSQL has no time for more; who has measured otherwise gives a number. */
const MOST_AUTO_WORKERS = 8;
/** So often in a row a worker dies before that is no accident; in a row: none lived for long. */
const MOST_DEATHS = 6;
const LONG_LIFE_MS = 60_000;
const SHORTEST_PAUSE_MS = 100;
/** What a process that has ended has said is read within moments. */
const LAST_WORDS_MS = 1_000;

/** One core is left to the database's connections, the kernel, and whatever else is there. */
export const autoWorkers = (): number =>
  Math.min(Math.max(availableParallelism() - 1, 1), MOST_AUTO_WORKERS);

export type Crew = {
  readonly workers: number;
  /** Workers that were started in the place of one that had died. */
  replaced: number;
};

export type CrewOptions = {
  readonly start: Omit<Start, "kind" | "isLimited">;
  readonly maxMessages: number | null;
  /** Passed on: workers stop receiving, and finish what they hold. */
  readonly signal: AbortSignal;
  readonly onProgress: () => void;
  readonly onNotice: (notice: Notice) => void;
};

/** Runs until all workers have ended by themselves; throws the first failure. `counts` is kept current. */
export async function runWorkers(crew: Crew, options: CrewOptions, counts: Counts): Promise<void> {
  const { maxMessages, onNotice } = options;
  const shares = maxMessages === null ? null : new Shares(maxMessages, crew.workers);
  const notices = new Notices(onNotice);
  const start: Start = { kind: "start", isLimited: shares !== null, ...options.start };
  const broken = new AbortController();
  const stop = AbortSignal.any([options.signal, broken.signal]);
  let failure: { readonly error: unknown } | null = null;
  const fail = (error: unknown) => {
    failure ??= { error };
    broken.abort();
  };

  const running = new Set<ChildProcess>();
  const killAll = () => {
    for (const child of running) child.kill("SIGKILL");
  };
  // A second signal ends this process at once, and with it the workers.
  process.once("exit", killAll);
  let overdue: ReturnType<typeof setTimeout> | undefined;
  const onStop = () => {
    for (const child of running) send(child, { kind: "stop" });
    overdue = setTimeout(killAll, start.graceSeconds * 1000);
  };
  stop.addEventListener("abort", onStop, { once: true });

  const run = async (worker: number): Promise<Death | null> => {
    let received = 0;
    let isDone = false;
    const child = startWorker();
    running.add(child);
    shares?.join(worker);
    child.on("message", (report: Report) => {
      if (report.kind === "counts") {
        addNews(counts, report.counts);
        received += report.counts.received;
        options.onProgress();
      } else if (report.kind === "notice") {
        notices.pass(worker, report.notice);
      } else if (report.kind === "ask") {
        shares?.ask(worker, (messages) => send(child, { kind: "share", messages }));
      } else {
        isDone = true;
        shares?.leave(worker, report.unused);
        if (report.trouble !== null) fail(asError(report.trouble));
      }
    });
    send(child, start);
    if (stop.aborted) send(child, { kind: "stop" });
    const how = await ended(child);
    running.delete(child);
    notices.forget(worker);
    if (isDone) return null;
    const granted = shares?.writeOff(worker) ?? 0;
    return { how, pid: child.pid ?? null, missing: Math.max(0, granted - received) };
  };

  const keepRunning = async (worker: number): Promise<void> => {
    for (let deaths = 0; !stop.aborted; ) {
      const bornAt = performance.now();
      const death = await run(worker);
      if (death === null || stop.aborted) return;
      deaths = performance.now() - bornAt < LONG_LIFE_MS ? deaths + 1 : 1;
      if (deaths === MOST_DEATHS) return fail(gaveUp(worker, deaths, death));
      onNotice({ event: "warning", message: describeDeath(worker, death) });
      const pause = SHORTEST_PAUSE_MS * 2 ** (deaths - 1);
      await sleep(pause, undefined, { signal: stop }).catch(() => {});
      if (!stop.aborted) crew.replaced++;
    }
  };
  try {
    await Promise.all(Array.from({ length: crew.workers }, (_, i) => keepRunning(i + 1)));
  } finally {
    clearTimeout(overdue);
    stop.removeEventListener("abort", onStop);
    process.removeListener("exit", killAll);
  }
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
}

/** Throws where this runtime cannot start itself once more. */
export function requireWorkers(): void {
  if (!("deno" in process.versions)) return;
  throw misuse(
    "--workers does not work with Deno, which does not hand its permissions on to another process",
    "start `etl` several times instead: they need no coordination; or use Bun or the compiled binary",
  );
}

/** No secret among the arguments: whoever may list processes sees them. */
function startWorker(): ChildProcess {
  const script = fileURLToPath(new URL("../cli.ts", import.meta.url));
  // A compiled binary has no source files beside it, and is the whole program itself.
  const source = existsSync(script) ? [...process.execArgv, "--no-env-file", script] : [];
  return spawn(process.execPath, [...source, WORKER_COMMAND], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
}

/** One that has died hears nothing any more, and needs to hear nothing. */
function send(child: ChildProcess, order: Order): void {
  if (child.connected) child.send(order, () => {});
}

type How =
  | { readonly signal: string }
  | { readonly exitCode: number }
  | { readonly cannotStart: string };

type Death = {
  readonly how: How;
  readonly pid: number | null;
  /** Of its share of --max-messages, what nobody knows of. */
  readonly missing: number;
};

/** Resolves when it is gone, and all that it has said was read. */
async function ended(child: ChildProcess): Promise<How> {
  const silent = new Promise<void>((resolve) => child.once("disconnect", resolve));
  const how = await new Promise<How>((resolve) => {
    child.once("exit", (code, signal) =>
      resolve(signal === null ? { exitCode: code ?? 1 } : { signal }),
    );
    child.on("error", (error) => {
      if (child.pid === undefined) {
        resolve({ cannotStart: "code" in error ? String(error.code) : error.name });
      }
    });
  });
  if ("cannotStart" in how) return how;
  const lastWords = new AbortController();
  const { signal } = lastWords;
  await Promise.race([silent, sleep(LAST_WORDS_MS, undefined, { signal }).catch(() => {})]);
  lastWords.abort();
  return how;
}

const describe = (how: How): string =>
  "signal" in how
    ? `was killed by ${how.signal}`
    : "exitCode" in how
      ? `ended unasked with exit code ${how.exitCode}`
      : `cannot be started (${how.cannotStart})`;

function describeDeath(worker: number, { how, pid, missing }: Death): string {
  const who = `worker ${worker}${pid === null ? "" : ` (process ${pid})`}`;
  const limit =
    missing === 0
      ? ""
      : `; up to ${missing} messages of --max-messages may have gone with it and are not dealt out again`;
  return `${who} ${describe(how)}; another one takes its place, nothing is lost${limit}`;
}

function gaveUp(worker: number, deaths: number, { how }: Death) {
  const hint =
    "signal" in how && how.signal === "SIGKILL"
      ? "SIGKILL is what the kernel sends when memory runs out: take fewer workers, or give more memory"
      : "cannotStart" in how
        ? "see the limits on processes and memory (ulimit, TasksMax), and whether the program is still there"
        : "what it wrote before it ended says why; please report it with the version of veil";
  return failed(
    `worker ${worker} died ${deaths} times in a row; the last one ${describe(how)}`,
    `${hint}. Nothing is lost: what was not stored comes again`,
  );
}
