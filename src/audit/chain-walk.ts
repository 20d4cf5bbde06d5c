// Along the chain of the audit, a position at a time: each hash is recomputed. Where one does not
// fit, the hashes that fit after it tell whether the entry was changed or the hash.
import { type AuditEntry, chainHash, genesisHash } from "../../vault/audit.ts";
import { type Mark, MOST_MARKS } from "../../vault/checkpoint.ts";
import { nativeSha256 } from "../keys/native.ts";
import { AuditProblems } from "./problems.ts";
import type { SignedMarks } from "./signed-marks.ts";

export type ChainLink = {
  readonly position: bigint;
  /** The id of its entry. The entry itself may be gone. */
  readonly number: bigint;
  readonly entry: AuditEntry | null;
  readonly hash: Uint8Array;
};

export type ChainHead = {
  readonly chain: string;
  readonly position: bigint;
  readonly hash: Uint8Array;
};

export type ChainEnd = {
  readonly position: bigint;
  readonly number: bigint;
  readonly hash: Uint8Array;
  readonly marks: readonly Mark[];
};

type Suspect = ChainLink & { readonly entry: AuditEntry; readonly previous: Uint8Array };

/** State: where it is, and what does not fit since the last hash that did. */
export class ChainWalk {
  position = 0n;
  readonly #head: ChainHead;
  readonly #signed: SignedMarks;
  readonly #problems: AuditProblems;
  #number = 0n;
  /**
   * The last hash as it is stored. Null where it is missing: then the next one cannot be
   * recomputed.
   */
  #stored: Uint8Array | null;
  /**
   * The last hash as it would be if only hashes were changed since the last one that fitted, and no
   * entry.
   */
  #computed: Uint8Array | null;
  /** Links since the last hash that fitted: the first few, and how many. */
  readonly #run: Suspect[] = [];
  #runLength = 0;
  readonly #changed: Suspect[] = [];
  readonly #wanted: readonly bigint[];
  readonly #marks: Mark[] = [];

  constructor(head: ChainHead, signed: SignedMarks, problems: AuditProblems) {
    this.#head = head;
    this.#signed = signed;
    this.#problems = problems;
    this.#stored = genesisHash(head.chain);
    this.#computed = this.#stored;
    this.#wanted = markPositions(head.position);
  }

  step(link: ChainLink): void {
    const { position, number, entry, hash } = link;
    if (position <= this.position) {
      const words = `position ${position} (entry ${number}) was put into the chain`;
      this.#problems.add("position-inserted", position, number, words);
      return;
    }
    if (position > this.position + 1n) this.#skip(position);
    if (entry === null) this.#miss(link);
    else if (this.#stored !== null) this.#check({ ...link, entry, previous: this.#stored });
    else this.#computed = hash;
    this.#signed.compare(position, number, hex(hash));
    this.position = position;
    this.#number = number;
    this.#stored = hash;
    if (position === this.#wanted[this.#marks.length]) this.#marks.push({ position, hash });
  }

  #check(link: Suspect): void {
    const { position, entry, hash, previous } = link;
    if (isSame(chainHash(previous, position, entry, nativeSha256), hash)) {
      this.#settle("stored");
      this.#computed = hash;
      return;
    }
    this.#computed &&= chainHash(this.#computed, position, entry, nativeSha256);
    if (this.#runLength > 0 && this.#computed !== null && isSame(this.#computed, hash)) {
      this.#settle("computed");
      return;
    }
    this.#runLength++;
    if (this.#run.length < AuditProblems.MOST_NAMED) this.#run.push(link);
  }

  #miss({ position, number, hash }: ChainLink): void {
    this.#settle(null);
    const words = `entry ${number} (position ${position}) is missing: it was deleted`;
    this.#problems.add("entry-missing", position, number, words);
    this.#computed = hash;
  }

  #skip(position: bigint): void {
    this.#settle(null);
    const first = this.position + 1n;
    const last = position - 1n;
    const gone = first === last ? `position ${first} is` : `positions ${first} to ${last} are`;
    this.#problems.add("position-missing", first, null, `${gone} missing from the chain`);
    this.#stored = null;
  }

  /**
   * `follows`: which of the two hashes the next one was made from. Null where that is not known.
   */
  #settle(follows: "stored" | "computed" | null): void {
    const isOne = this.#runLength === 1;
    for (const suspect of this.#run) {
      const { position, number } = suspect;
      if (follows === "computed") {
        const words = `the hash at position ${position} (of entry ${number}) was changed`;
        this.#problems.add("hash-changed", position, number, words);
        continue;
      }
      const words =
        follows === "stored" && isOne
          ? `entry ${number} (position ${position}) was changed after it was chained`
          : `entry ${number} is not what was chained at position ${position}`;
      if (this.#problems.add("entry-changed", position, number, words)) this.#changed.push(suspect);
    }
    this.#problems.addUnnamed(this.#runLength - this.#run.length);
    this.#run.length = 0;
    this.#runLength = 0;
  }

  end(): ChainEnd {
    const { position: headPosition, hash: headHash } = this.#head;
    const hash = this.#stored ?? headHash;
    const follows = isSame(headHash, hash)
      ? "stored"
      : this.#computed !== null && isSame(headHash, this.#computed)
        ? "computed"
        : null;
    // The head proves nothing of the last entry: whoever changes the last hash can change the head
    // with it.
    this.#settle(follows === "computed" ? follows : null);
    this.#findSwaps();
    if (headPosition !== this.position) {
      const words = `the chain ends at position ${this.position}, its head says ${headPosition}`;
      this.#problems.add("head", this.position, null, words);
    } else if (follows === null) {
      const words = `the head's hash is not that of the last position, ${this.position}`;
      this.#problems.add("head", this.position, null, words);
    }
    this.#signed.end(this.position);
    return { position: this.position, number: this.#number, hash, marks: this.#marks };
  }

  /** Finds changed entries that would fit in each other's place. */
  #findSwaps(): void {
    for (const { position, number, previous, hash, entry } of this.#changed) {
      const fits = (other: AuditEntry) =>
        isSame(chainHash(previous, position, other, nativeSha256), hash);
      for (const other of this.#changed) {
        if (other.position === position) continue;
        if (!fits(other.entry) && !fits({ ...other.entry, id: entry.id })) continue;
        const places = `entry ${number} at position ${position} and entry ${other.number} at position ${other.position}`;
        this.#problems.explain(position, `swapped: ${places}`);
      }
    }
  }
}

/** Evenly spaced, the last one at the end. */
export function markPositions(end: bigint): readonly bigint[] {
  const marks = end < BigInt(MOST_MARKS) ? Number(end) : MOST_MARKS;
  return Array.from({ length: marks }, (_, i) => (BigInt(i + 1) * end) / BigInt(marks));
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
