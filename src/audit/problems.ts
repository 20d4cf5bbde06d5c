// What is wrong with the audit: the first few problems are named, all are counted.

export type AuditProblemKind =
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

export type AuditProblem = {
  readonly kind: AuditProblemKind;
  readonly position: bigint | null;
  readonly entry: bigint | null;
  readonly message: string;
};

/** Found last, by checkpoints and by chaining, and named however many problems came before. */
const ALWAYS_NAMED: ReadonlySet<AuditProblemKind> = new Set<AuditProblemKind>([
  "rewritten",
  "tail-missing",
  "checkpoint",
  "not-chained",
]);

/** State: the problems so far. */
export class AuditProblems {
  static readonly MOST_NAMED = 10;
  readonly #named: AuditProblem[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get named(): readonly AuditProblem[] {
    return this.#named;
  }

  /** Answers whether it is named. */
  add(
    kind: AuditProblemKind,
    position: bigint | null,
    entry: bigint | null,
    message: string,
  ): boolean {
    this.#count++;
    if (this.#named.length >= AuditProblems.MOST_NAMED && !ALWAYS_NAMED.has(kind)) return false;
    this.#named.push({ kind, position, entry, message });
    return true;
  }

  addUnnamed(count: number): void {
    this.#count += count;
  }

  /** A better message for the changed entry at a position. */
  explain(position: bigint, message: string): void {
    const index = this.#named.findIndex(
      (problem) => problem.kind === "entry-changed" && problem.position === position,
    );
    const problem = this.#named[index];
    if (problem !== undefined) this.#named[index] = { ...problem, message };
  }
}
