// Opens what the database hands out, and believes nothing that it says. The data key must open with
// our identity, its proof must hold where we can check it, and the seal must belong to its place.
//
// Whichever check fails, the answer is the same null. Somebody who can alter the database and watch
// us must not learn which checks his forgery has passed.
import { createHash } from "node:crypto";
import { checkProof, unwrapDataKey } from "../../vault/data-key.ts";
import type { GenerationKey, Subkeys } from "../../vault/keys.ts";
import { open, type Place } from "../../vault/seal.ts";
import { makeToken, parseToken } from "../../vault/token.ts";
import { native } from "./native.ts";

export type RecoveryKeys = {
  readonly identities: readonly string[];
  readonly verifyKey: GenerationKey | null;
  readonly subkeys: Subkeys | null;
};

/** One object for all rows of an answer that it seals: then it is looked up by identity. */
export type SealedDataKey = {
  readonly id: string;
  readonly generation: number;
  readonly wrapped: Uint8Array;
  readonly proof: Uint8Array;
};

export type SealedRow = { readonly dataKey: SealedDataKey; readonly sealed: Uint8Array };

/** `verified`: true if a key of ours vouches for it, null if we hold none that could. */
export type Opened = { readonly text: string; readonly verified: true | null };

/**
 * Data keys to remember: unwrapping one takes milliseconds, and a vault may have hundreds of
 * thousands.
 */
const MOST_DATA_KEYS = 10_000;

/**
 * The keys that open the vault. State: the data keys that were unwrapped already, which often come
 * again.
 */
export class OpeningKeys {
  readonly #keys: RecoveryKeys;
  readonly #dataKeys = new Map<string, Promise<Uint8Array | null>>();
  readonly #named = new WeakMap<SealedDataKey, Promise<Uint8Array | null>>();

  constructor(keys: RecoveryKeys) {
    this.#keys = keys;
  }

  /** Null where it does not open, or is not what its place says. */
  async open(row: SealedRow, place: Place): Promise<Opened | null> {
    const dataKey = await this.#dataKey(row.dataKey);
    if (dataKey === null) return null;
    const text = open(dataKey, place, row.sealed, native);
    if (text === null) return null;
    if (place.kind === "original" && !this.#tokenHolds(place.token, text, row.dataKey.generation)) {
      return null;
    }
    return { text, verified: this.#canVerify() ? true : null };
  }

  #canVerify(): boolean {
    return this.#keys.verifyKey !== null || this.#keys.subkeys !== null;
  }

  #dataKey(sealed: SealedDataKey): Promise<Uint8Array | null> {
    const named = this.#named.get(sealed);
    if (named !== undefined) return named;
    // Looked up by its bytes too. One id may come with two wrappings, one of them forged, and the
    // first to come would answer for the other.
    const bytes = createHash("sha256").update(sealed.proof).update(sealed.wrapped).digest("hex");
    const name = [sealed.id, sealed.generation, sealed.proof.length, bytes].join();
    const dataKey = this.#dataKeys.get(name) ?? this.#unwrap(sealed);
    this.#dataKeys.set(name, dataKey);
    this.#named.set(sealed, dataKey);
    const [oldest] = this.#dataKeys.keys();
    if (this.#dataKeys.size > MOST_DATA_KEYS) this.#dataKeys.delete(oldest!);
    return dataKey;
  }

  async #unwrap(sealed: SealedDataKey): Promise<Uint8Array | null> {
    const dataKey = await unwrapDataKey(sealed.wrapped, this.#keys.identities);
    return dataKey !== null && this.#proofHolds(sealed, dataKey) ? dataKey : null;
  }

  /** A generation for which we hold no key is refused: otherwise a forger would name that one. */
  #proofHolds(sealed: SealedDataKey, dataKey: Uint8Array): boolean {
    if (!this.#canVerify()) return true;
    const { verifyKey, subkeys } = this.#keys;
    const keys = [
      ...(verifyKey?.generation === sealed.generation ? [verifyKey.bytes] : []),
      ...(subkeys?.generation === sealed.generation ? [subkeys.verify] : []),
    ];
    return (
      keys.length > 0 && keys.every((key) => checkProof(key, sealed.id, dataKey, sealed.proof))
    );
  }

  #tokenHolds(token: string, text: string, generation: number): boolean {
    const parts = parseToken(token);
    if (parts === null || parts.generation !== generation) return false;
    const { subkeys } = this.#keys;
    if (subkeys === null || subkeys.generation !== generation) return true;
    return makeToken(subkeys, parts.field, text, native) === token;
  }
}
