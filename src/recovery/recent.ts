// What was used last, up to a limit: how a join of any length remembers which tokens it has asked for. It forgets
// only when told, so that two runs over the same keys, forgetting at the same places, forget the same.
export class Recent<V> {
  readonly #limit: number;
  readonly #values = new Map<string, V>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether the key is known; from now on it is the one used last. */
  touch(key: string): boolean {
    const value = this.#values.get(key);
    if (value === undefined) return false;
    this.#values.delete(key);
    this.#values.set(key, value);
    return true;
  }

  get(key: string): V | undefined {
    return this.#values.get(key);
  }

  /** Of a known key, it changes the value and not when it was used. */
  set(key: string, value: V): void {
    this.#values.set(key, value);
  }

  /** Forgets what was used longest ago, down to the limit. */
  trim(): void {
    for (const key of this.#values.keys()) {
      if (this.#values.size <= this.#limit) return;
      this.#values.delete(key);
    }
  }
}
