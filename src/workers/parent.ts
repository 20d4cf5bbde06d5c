// `veil etl --workers`: one run in several processes of the same program. The parent only adds up what its
// workers tell, deals out --max-messages, passes a stop on, and starts another one for each that has died.
import type { ChildProcess } from "node:child_process";
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { misuse } from "../failure.ts";
import type { Notice } from "../line/availability.ts";
import type { Counts } from "../line/counts.ts";
import { addNews, asError, type Report, type Start } from "./channel.ts";
import { ended, send, startWorker } from "./child.ts";
import { type Death, describeDeath, gaveUp } from "./deaths.ts";
import { Notices } from "./notices.ts";
import { Shares } from "./shares.ts";

/** Beyond this many, one PostgreSQL has no time for more; who has measured otherwise gives a number. */
const MOST_AUTO_WORKERS = 8;
/** A worker that dies so often in a row, and never lives for long, does not die by accident. */
const MOST_DEATHS = 6;
const LONG_LIFE_MS = 60_000;
const SHORTEST_PAUSE_MS = 100;

/** One core is left to the database's connections, the kernel, and whatever else is there. */
export const autoWorkers = (): number =>
  Math.min(Math.max(availableParallelism() - 1, 1), MOST_AUTO_WORKERS);

/** Throws where this runtime cannot start itself once more. */
export function requireWorkers(): void {
  if (!("deno" in process.versions)) return;
  throw misuse(
    "--workers does not work with Deno, which does not hand its permissions on to another process",
    "start `etl` several times instead: they need no coordination; or use Bun or the compiled binary",
  );
}

export type Crew = {
  readonly workers: number;
  /** Workers that were started in the place of one that had died. */
  replaced: number;
};

export type CrewOptions = {
  readonly start: Omit<Start, "kind" | "isLimited">;
  readonly maxMessages: number | null;
  /** Passed on: workers stop receiving, and finish what they have in hand. */
  readonly signal: AbortSignal;
  readonly onProgress: () => void;
  readonly onNotice: (notice: Notice) => void;
};

/** Runs until all workers have ended by themselves; throws the first failure. `counts` is kept current. */
export async function runWorkers(crew: Crew, options: CrewOptions, counts: Counts): Promise<void> {
  await new Parent(crew, options, counts).run();
}

/** State: which workers run, what they have been given, and why the first of them failed. */
class Parent {
  readonly #crew: Crew;
  readonly #options: CrewOptions;
  readonly #counts: Counts;
  readonly #start: Start;
  /** Null where there is no --max-messages. */
  readonly #shares: Shares | null;
  readonly #notices: Notices;
  readonly #running = new Set<ChildProcess>();
  readonly #failed = new AbortController();
  readonly #stop: AbortSignal;
  #failure: { readonly error: unknown } | null = null;
  #grace: ReturnType<typeof setTimeout> | undefined;

  constructor(crew: Crew, options: CrewOptions, counts: Counts) {
    const { maxMessages, signal, onNotice } = options;
    this.#crew = crew;
    this.#options = options;
    this.#counts = counts;
    this.#shares = maxMessages === null ? null : new Shares(maxMessages, crew.workers);
    this.#start = { kind: "start", isLimited: maxMessages !== null, ...options.start };
    this.#notices = new Notices(onNotice);
    this.#stop = AbortSignal.any([signal, this.#failed.signal]);
  }

  async run(): Promise<void> {
    const killAll = () => this.#killAll();
    const stopAll = () => this.#stopAll();
    // A second signal ends this process at once, and with it the workers.
    process.once("exit", killAll);
    this.#stop.addEventListener("abort", stopAll, { once: true });
    const workers = Array.from({ length: this.#crew.workers }, (_, i) => i + 1);
    try {
      await Promise.all(workers.map((worker) => this.#keepRunning(worker)));
    } finally {
      clearTimeout(this.#grace);
      this.#stop.removeEventListener("abort", stopAll);
      process.removeListener("exit", killAll);
    }
    if (this.#failure !== null) throw this.#failure.error;
  }

  #killAll(): void {
    for (const child of this.#running) child.kill("SIGKILL");
  }

  #stopAll(): void {
    for (const child of this.#running) send(child, { kind: "stop" });
    this.#grace = setTimeout(() => this.#killAll(), this.#start.graceSeconds * 1000);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#failed.abort();
  }

  /** Until it has ended by itself, there is a stop, or too many have died in a row. */
  async #keepRunning(worker: number): Promise<void> {
    const { onNotice } = this.#options;
    const stop = this.#stop;
    for (let deaths = 0; !stop.aborted; ) {
      const bornAt = performance.now();
      const death = await this.#runOne(worker);
      if (death === null || stop.aborted) return;
      deaths = performance.now() - bornAt < LONG_LIFE_MS ? deaths + 1 : 1;
      if (deaths === MOST_DEATHS) return this.#fail(gaveUp(worker, deaths, death));
      onNotice({ event: "warning", message: describeDeath(worker, death) });
      const pauseMs = SHORTEST_PAUSE_MS * 2 ** (deaths - 1);
      await sleep(pauseMs, undefined, { signal: stop }).catch(() => {});
      if (!stop.aborted) this.#crew.replaced++;
    }
  }

  /** Null when it has ended by itself. */
  async #runOne(worker: number): Promise<Death | null> {
    let received = 0;
    let hasEnded = false;
    const child = startWorker();
    this.#running.add(child);
    this.#shares?.join(worker);
    child.on("message", (report: Report) => {
      if (report.kind === "counts") received += report.counts.received;
      if (report.kind === "ended") hasEnded = true;
      this.#hear(worker, child, report);
    });
    send(child, this.#start);
    if (this.#stop.aborted) send(child, { kind: "stop" });
    const how = await ended(child);
    this.#running.delete(child);
    this.#notices.forget(worker);
    if (hasEnded) return null;
    const granted = this.#shares?.writeOff(worker) ?? 0;
    return { how, pid: child.pid ?? null, missing: Math.max(0, granted - received) };
  }

  #hear(worker: number, child: ChildProcess, report: Report): void {
    if (report.kind === "counts") {
      addNews(this.#counts, report.counts);
      this.#options.onProgress();
    } else if (report.kind === "notice") {
      this.#notices.pass(worker, report.notice);
    } else if (report.kind === "ask") {
      this.#shares?.ask(worker, (messages) => send(child, { kind: "share", messages }));
    } else {
      this.#shares?.leave(worker, report.unused);
      if (report.trouble !== null) this.#fail(asError(report.trouble));
    }
  }
}
