// Where a run stops: because its work is done, because of a failure, or because somebody asks for it. After
// that everything ends within a time of grace, whatever the servers do.
import { LINE_WAITS, type LineWaits } from "./waits.ts";

/** State: whether the run is to stop, since when, and why. */
export class Stop {
  /** From now on nothing is received. */
  readonly asked: AbortSignal;
  /** From now on what is under way is left as it is. */
  readonly workEnds: AbortSignal;
  /** From now on nothing is handed back, either. */
  readonly handBackEnds: AbortSignal;
  /** Resolves when `workEnds` aborts. */
  readonly overdue: Promise<void>;
  readonly #failed = new AbortController();
  readonly #work = new AbortController();
  readonly #handBack = new AbortController();
  readonly #timers: ReturnType<typeof setTimeout>[] = [];
  #failure: { readonly error: unknown } | null = null;

  constructor(
    asked: AbortSignal,
    graceSeconds: number,
    { workShare, handBackShare }: Pick<LineWaits, "workShare" | "handBackShare"> = LINE_WAITS,
  ) {
    this.asked = AbortSignal.any([asked, this.#failed.signal]);
    this.workEnds = this.#work.signal;
    this.handBackEnds = this.#handBack.signal;
    this.overdue = new Promise((resolve) => {
      this.workEnds.addEventListener("abort", () => resolve(), { once: true });
    });
    const startGrace = () => {
      this.#endAfter(graceSeconds * 1000 * workShare, this.#work);
      this.#endAfter(graceSeconds * 1000 * handBackShare, this.#handBack);
    };
    if (this.asked.aborted) startGrace();
    else this.asked.addEventListener("abort", startGrace, { once: true });
  }

  /** The first failure of all, or null. */
  get failure(): { readonly error: unknown } | null {
    return this.#failure;
  }

  /** Stops the run. Bound: it may be passed on as it is. */
  readonly fail = (error: unknown): void => {
    this.#failure ??= { error };
    this.#failed.abort();
  };

  /** The work is done, or is left. */
  endWork(): void {
    this.#work.abort();
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #endAfter(milliseconds: number, part: AbortController): void {
    this.#timers.push(setTimeout(() => part.abort(), milliseconds));
  }
}
