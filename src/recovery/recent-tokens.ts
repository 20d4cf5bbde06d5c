// The tokens that were met last, up to a limit: how a join of any length remembers which ones it
// has asked for. It forgets only when told to. So two runs over the same tokens that forget at the
// same places forget the same.
export class RecentTokens<V> {
  readonly #limit: number;
  readonly #values = new Map<string, V>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether the token is known. From now on it is the one that was met last. */
  touch(token: string): boolean {
    const value = this.#values.get(token);
    if (value === undefined) return false;
    this.#values.delete(token);
    this.#values.set(token, value);
    return true;
  }

  get(token: string): V | undefined {
    return this.#values.get(token);
  }

  /** Changes the value of a known token, and not when it was met. */
  set(token: string, value: V): void {
    this.#values.set(token, value);
  }

  /** Forgets the tokens that were met longest ago, down to the limit. */
  trim(): void {
    for (const token of this.#values.keys()) {
      if (this.#values.size <= this.#limit) return;
      this.#values.delete(token);
    }
  }
}
