// Whether something that the line needs works just now: the database, the queue. While it does not, the
// line waits here, with growing and jittered pauses, and a person is told once, not a thousand times.
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../failure.ts";

/** What a person or a log is told about; `message` quotes nothing of a message or a credential. */
export type Notice = {
  readonly event: "away" | "back" | "warning";
  readonly message: string;
  /** What is away or back, where several may tell of it. */
  readonly about?: string;
};

export type Patience = {
  /** How long it may stay away until the line gives up; infinite for `--follow`. */
  readonly milliseconds: number;
  /** Aborts when nobody waits any more. */
  readonly signal: AbortSignal;
};

const SHORTEST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;
/** Something that fails every other second is one trouble, not thirty. */
const QUIET_MS = 60_000;

/** State: since when it has failed, and what was said about that. */
export class Availability {
  readonly #what: string;
  readonly #patience: Patience;
  readonly #tell: (notice: Notice) => void;
  #awaySince: number | null = null;
  #toldAt = Number.NEGATIVE_INFINITY;
  #told = false;
  #back = Promise.withResolvers<void>();

  /** `what` stands in "… again after 12 s": `the database answers`. */
  constructor(what: string, patience: Patience, tell: (notice: Notice) => void) {
    this.#what = what;
    this.#patience = patience;
    this.#tell = tell;
  }

  get isAway(): boolean {
    return this.#awaySince !== null;
  }

  /** Seconds since it first failed; 0 while it works. */
  get awaySeconds(): number {
    return this.#awaySince === null ? 0 : Math.round((performance.now() - this.#awaySince) / 1000);
  }

  /**
   * It failed, or has not answered `since` then (of performance.now). Returns since when it has been away.
   */
  failed(message: string, since: number = performance.now()): number {
    const awaySince = this.#awaySince ?? since;
    this.#awaySince = awaySince;
    const now = performance.now();
    if (this.#told || now - this.#toldAt < QUIET_MS) return awaySince;
    this.#toldAt = now;
    this.#told = true;
    const text = `${message}; waiting for it, nothing is lost`;
    this.#tell({ event: "away", message: text, about: this.#what });
    return awaySince;
  }

  /** It worked when asked `since` then: an answer to what was asked before it failed says nothing. */
  worked(since: number = performance.now()): void {
    if (this.#awaySince === null || since < this.#awaySince) return;
    const message = `${this.#what} again after ${Math.max(1, this.awaySeconds)} s`;
    this.#awaySince = null;
    this.#back.resolve();
    this.#back = Promise.withResolvers();
    if (this.#told) this.#tell({ event: "back", message, about: this.#what });
    this.#told = false;
  }

  /**
   * After `failure`: resolves when it may be tried again. Throws the failure when patience is over, or
   * nobody waits any more.
   */
  async pause(failure: Failure): Promise<void> {
    if (this.#patience.signal.aborted) throw failure;
    const awaySince = this.failed(failure.message);
    const away = performance.now() - awaySince;
    const { milliseconds, signal } = this.#patience;
    if (away >= milliseconds) {
      throw new Failure(
        failure.exitCode,
        `${failure.message}; gave up after ${Math.round(away / 1000)} s`,
        failure.hint,
        failure.code,
      );
    }
    // As long again as it has been away for already: short troubles end soon, long ones cost little.
    const longest = Math.min(Math.max(away, SHORTEST_PAUSE_MS), LONGEST_PAUSE_MS);
    await sleep(longest * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {
      throw failure;
    });
  }

  /** Resolves when it works, at once if it does; also when `stop` aborts. */
  async untilBack(stop: AbortSignal): Promise<void> {
    if (this.#awaySince === null || stop.aborted) return;
    const stopped = Promise.withResolvers<void>();
    const onStop = () => stopped.resolve();
    stop.addEventListener("abort", onStop, { once: true });
    await Promise.race([this.#back.promise, stopped.promise]);
    stop.removeEventListener("abort", onStop);
  }
}
