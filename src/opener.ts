// Opens what the database hands out, and believes nothing that it says: the data key must open with our
// identity, its proof must hold where we can check it, and the seal must belong to its place.
//
// Whatever fails, the answer is the same null: somebody who can alter the database and watch us must not
// learn which check his forgery has passed.
import { checkProof, unwrapDataKey } from "../vault/data-key.ts";
import type { GenerationKey, Subkeys } from "../vault/keys.ts";
import { open, type Place } from "../vault/seal.ts";
import { makeToken, parseToken } from "../vault/token.ts";

export type RecoveryKeys = {
  readonly identities: readonly string[];
  readonly verifyKey: GenerationKey | null;
  readonly subkeys: Subkeys | null;
};

export type SealedRow = {
  readonly dataKeyId: string;
  readonly sealed: Uint8Array;
  readonly wrapped: Uint8Array;
  readonly proof: Uint8Array;
  readonly generation: number;
};

/** `verified`: true if a key of ours vouches for it, null if we hold none that could. */
export type Opened = { readonly text: string; readonly verified: true | null };

/** State: the data keys that were unwrapped already; a call often meets the same ones. */
export class Opener {
  readonly #keys: RecoveryKeys;
  readonly #dataKeys = new Map<string, Promise<Uint8Array | null>>();

  constructor(keys: RecoveryKeys) {
    this.#keys = keys;
  }

  async open(row: SealedRow, place: Place): Promise<Opened | null> {
    const dataKey = await this.#dataKey(row);
    if (dataKey === null) return null;
    const text = open(dataKey, place, row.sealed);
    if (text === null) return null;
    if (place.kind === "original" && !this.#tokenHolds(place.token, text, row.generation)) {
      return null;
    }
    return { text, verified: this.#canVerify() ? true : null };
  }

  #canVerify(): boolean {
    return this.#keys.verifyKey !== null || this.#keys.subkeys !== null;
  }

  #dataKey(row: SealedRow): Promise<Uint8Array | null> {
    // By its bytes too, not by its id alone: one id may come with two wrappings, one of them forged.
    const name = [row.dataKeyId, row.generation, digest(row.wrapped), digest(row.proof)].join();
    const known = this.#dataKeys.get(name);
    if (known !== undefined) return known;
    const unwrapped = unwrapDataKey(row.wrapped, this.#keys.identities).then((dataKey) =>
      dataKey !== null && this.#proofHolds(row, dataKey) ? dataKey : null,
    );
    this.#dataKeys.set(name, unwrapped);
    return unwrapped;
  }

  /** A generation that none of our keys is of is refused: it would be the forger's way around them. */
  #proofHolds(row: SealedRow, dataKey: Uint8Array): boolean {
    if (!this.#canVerify()) return true;
    const { verifyKey, subkeys } = this.#keys;
    const keys = [
      ...(verifyKey?.generation === row.generation ? [verifyKey.bytes] : []),
      ...(subkeys?.generation === row.generation ? [subkeys.verify] : []),
    ];
    return (
      keys.length > 0 && keys.every((key) => checkProof(key, row.dataKeyId, dataKey, row.proof))
    );
  }

  #tokenHolds(token: string, text: string, generation: number): boolean {
    const parts = parseToken(token);
    if (parts === null || parts.generation !== generation) return false;
    const { subkeys } = this.#keys;
    if (subkeys === null || subkeys.generation !== generation) return true;
    return makeToken(subkeys, parts.field, text) === token;
  }
}

const digest = (bytes: Uint8Array): string => Array.from(bytes).join(".");
