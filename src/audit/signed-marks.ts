// The hashes that checkpoints have signed, held against the chain. A chain that was rewritten is
// consistent in itself, but differs from what was signed.
import type { Checkpoint, Mark } from "../../vault/checkpoint.ts";
import type { AuditProblems } from "./problems.ts";

/** A checkpoint whose signature holds. */
export type SignedCheckpoint = Omit<Checkpoint, "entry">;

/** State: the signed hashes, and how far the chain fits them. */
export class SignedMarks {
  readonly #problems: AuditProblems;
  readonly #expected = new Map<bigint, { readonly hash: string; readonly madeAt: string }>();
  #furthest: SignedCheckpoint | null = null;
  #lastMatch = 0n;
  #isRewritten = false;

  constructor(chain: string, signed: readonly SignedCheckpoint[], problems: AuditProblems) {
    this.#problems = problems;
    for (const checkpoint of signed) {
      const { position, hash, madeAt, marks } = checkpoint;
      if (checkpoint.chain !== chain) {
        const words = `the checkpoint of ${madeAt} is of another database's chain: ${checkpoint.chain}`;
        problems.add("checkpoint", null, null, `${words}, and this is ${chain}`);
        continue;
      }
      for (const mark of [...marks, { position, hash }]) this.#expect(mark, madeAt);
      if (position >= (this.#furthest?.position ?? 0n)) this.#furthest = checkpoint;
    }
  }

  #expect({ position, hash }: Mark, madeAt: string): void {
    const known = this.#expected.get(position);
    const text = Buffer.from(hash).toString("hex");
    if (known === undefined) this.#expected.set(position, { hash: text, madeAt });
    else if (known.hash !== text) {
      const words = `the checkpoints of ${known.madeAt} and ${madeAt} contradict each other`;
      this.#problems.add("checkpoint", position, null, `${words} at position ${position}`);
    }
  }

  /**
   * To be called in the order of positions. The first hash that differs is reported: all that
   * follow differ with it.
   */
  compare(position: bigint, entry: bigint, hash: string): void {
    const expected = this.#expected.get(position);
    if (expected === undefined || this.#isRewritten) return;
    if (expected.hash === hash) {
      this.#lastMatch = position;
      return;
    }
    this.#isRewritten = true;
    const first = this.#lastMatch + 1n;
    const isExact = first === position;
    const place = isExact
      ? `position ${position} (entry ${entry}) is not`
      : `positions ${first} to ${position} (the last is entry ${entry}) are not`;
    this.#problems.add(
      "rewritten",
      first,
      isExact ? entry : null,
      `${place} what was signed on ${expected.madeAt}: the chain was rewritten from there on`,
    );
  }

  /** `position`: where the chain ends. */
  end(position: bigint): void {
    const signed = this.#furthest;
    if (signed === null || signed.position <= position) return;
    const missing = signed.position - position;
    this.#problems.add(
      "tail-missing",
      position + 1n,
      null,
      `the chain ends at position ${position}, the checkpoint of ${signed.madeAt} signed ` +
        `${signed.position}: the last ${missing === 1n ? "one is" : `${missing} are`} missing`,
    );
  }
}
