// How a run ends: by itself, by a failure, or because somebody asks for it; then within a time of grace,
// whatever the servers do.

import { LINE_WAITS, type LineWaits } from "./waits.ts";

/** State: whether the run is to end, since when, and why. */
export class Ending {
  /** No more is received. */
  readonly stop: AbortSignal;
  /** What is under way is left as it is. */
  readonly giveUp: AbortSignal;
  /** Not even handed back any more. */
  readonly leave: AbortSignal;
  /** Resolves when `giveUp` aborts. */
  readonly overdue: Promise<void>;
  readonly #broken = new AbortController();
  readonly #givenUp = new AbortController();
  readonly #left = new AbortController();
  readonly #timers: ReturnType<typeof setTimeout>[] = [];
  #failure: { readonly error: unknown } | null = null;

  constructor(
    asked: AbortSignal,
    graceSeconds: number,
    { workPart, leavePart }: Pick<LineWaits, "workPart" | "leavePart"> = LINE_WAITS,
  ) {
    this.stop = AbortSignal.any([asked, this.#broken.signal]);
    this.giveUp = this.#givenUp.signal;
    this.leave = this.#left.signal;
    this.overdue = new Promise((resolve) => {
      this.giveUp.addEventListener("abort", () => resolve(), { once: true });
    });
    const start = () => {
      const after = (part: number, controller: AbortController) =>
        this.#timers.push(setTimeout(() => controller.abort(), graceSeconds * 1000 * part));
      after(workPart, this.#givenUp);
      after(leavePart, this.#left);
    };
    if (this.stop.aborted) start();
    else this.stop.addEventListener("abort", start, { once: true });
  }

  /** The first failure of all, or null. */
  get failure(): { readonly error: unknown } | null {
    return this.#failure;
  }

  /** To be passed on as it is. */
  readonly fail = (error: unknown): void => {
    this.#failure ??= { error };
    this.#broken.abort();
  };

  /** The work is done, or is left. */
  finish(): void {
    this.#givenUp.abort();
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}
