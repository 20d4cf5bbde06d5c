// How --max-messages holds over several workers: what may be received is dealt out in shares, and a worker
// receives nothing that it has no share for. So never more than the limit is received; what a worker that
// was killed may have received counts as received, although nobody can know.

/** Large enough that asking costs nothing, small enough that little goes with a worker that is killed. */
const LARGEST_SHARE = 500;
/** What one receive can bring. */
const SMALLEST_SHARE = 10;

type Holder = {
  granted: number;
  /** Set while it waits for a share. */
  give: ((messages: number) => void) | null;
};

/** State: what is not dealt out yet, and who may still give some of it back. */
export class Shares {
  readonly #workers: number;
  readonly #holders = new Map<number, Holder>();
  #left: number;

  constructor(maxMessages: number, workers: number) {
    this.#left = maxMessages;
    this.#workers = workers;
  }

  /** From now on this worker may ask. */
  join(worker: number): void {
    this.#holders.set(worker, { granted: 0, give: null });
  }

  /**
   * A worker that has used up what it was given asks for more. `give` is called with a share once there is
   * one, or with 0 once no worker can give anything back.
   */
  ask(worker: number, give: (messages: number) => void): void {
    const holder = this.#holders.get(worker);
    if (holder === undefined) return;
    holder.give = give;
    this.#deal();
  }

  /** It has ended and knows what it has not used. */
  leave(worker: number, unused: number): void {
    if (!this.#holders.delete(worker)) return;
    this.#left += unused;
    this.#deal();
  }

  /** It has died: what it was given may all have been received. Returns how much that was. */
  writeOff(worker: number): number {
    const granted = this.#holders.get(worker)?.granted ?? 0;
    this.leave(worker, 0);
    return granted;
  }

  #deal(): void {
    const holders = [...this.#holders.values()];
    for (const holder of holders) {
      if (holder.give === null || this.#left === 0) continue;
      // Ever smaller ones, so that the workers come to the end together.
      const fair = Math.ceil(this.#left / (2 * this.#workers));
      const size = Math.max(SMALLEST_SHARE, Math.min(fair, LARGEST_SHARE));
      this.#give(holder, Math.min(size, this.#left));
    }
    if (holders.every(({ give }) => give !== null)) {
      for (const holder of holders) this.#give(holder, 0);
    }
  }

  #give(holder: Holder, messages: number): void {
    const { give } = holder;
    holder.give = null;
    holder.granted += messages;
    this.#left -= messages;
    give?.(messages);
  }
}
