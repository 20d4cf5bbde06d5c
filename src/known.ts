// The tokens whose originals this process has seen stored: those are not sealed and not sent again. A guess,
// not a truth (a row can be erased, a database restored), and allowed to be wrong: the load refuses a batch
// that leaves a token without its original, and that batch is sent again in full.

/** A token takes about a hundred bytes here. */
const MOST = 50_000;

/** State: two sets, so that forgetting the older half costs nothing. */
export class KnownOriginals {
  #newer = new Set<string>();
  #older = new Set<string>();

  has(token: string): boolean {
    if (this.#newer.has(token)) return true;
    if (!this.#older.has(token)) return false;
    this.#add(token); // in use: kept for longer
    return true;
  }

  /** Only what has committed. */
  addAll(tokens: Iterable<string>): void {
    for (const token of tokens) this.#add(token);
  }

  clear(): void {
    this.#newer.clear();
    this.#older.clear();
  }

  #add(token: string): void {
    if (this.#newer.size >= MOST) {
      this.#older = this.#newer;
      this.#newer = new Set();
    }
    this.#newer.add(token);
  }
}
