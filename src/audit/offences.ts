// What was found wrong with the audit: the first few named, all counted.

export type OffenceKind =
  | "entry-changed"
  | "entry-missing"
  | "entry-inserted"
  | "hash-changed"
  | "position-missing"
  | "position-inserted"
  | "head"
  | "rewritten"
  | "tail-missing"
  | "not-chained"
  | "checkpoint";

export type Offence = {
  readonly kind: OffenceKind;
  readonly position: bigint | null;
  readonly entry: bigint | null;
  readonly message: string;
};

/** What a checkpoint or chaining says comes last and is told all the same, whatever came before it. */
const ALWAYS_NAMED: ReadonlySet<OffenceKind> = new Set([
  ...(["rewritten", "tail-missing", "checkpoint", "not-chained"] as const),
]);

export class Offences {
  static readonly MOST_NAMED = 10;
  readonly #named: Offence[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get named(): readonly Offence[] {
    return this.#named;
  }

  /** Whether it is one of those that are named. */
  add(kind: OffenceKind, position: bigint | null, entry: bigint | null, message: string): boolean {
    this.#count++;
    if (this.#named.length >= Offences.MOST_NAMED && !ALWAYS_NAMED.has(kind)) return false;
    this.#named.push({ kind, position, entry, message });
    return true;
  }

  addUnnamed(count: number): void {
    this.#count += count;
  }

  /** Says better what is wrong at a position. */
  explain(position: bigint, message: string): void {
    const index = this.#named.findIndex(
      (offence) => offence.kind === "entry-changed" && offence.position === position,
    );
    const offence = this.#named[index];
    if (offence !== undefined) this.#named[index] = { ...offence, message };
  }
}
