// The data key that this process seals with: random, wrapped to the recipients before its first
// use, and replaced after 2^20 seals or an hour. Once it is replaced, this process cannot open what
// it sealed.
import {
  type DataKey,
  generateDataKey,
  type WrappedDataKey,
  wrapDataKey,
} from "../../vault/data-key.ts";
import type { Subkeys } from "../../vault/keys.ts";
import { MAX_SEALS_PER_DATA_KEY } from "../../vault/seal.ts";

const MAX_AGE_MS = 60 * 60 * 1000;
/** A batch still seals for a while after it was given its key. */
const MARGIN_MS = 60 * 1000;

export type SealingKey = { readonly dataKey: DataKey; readonly wrapped: WrappedDataKey };

/** State: the current key, its age, and how much of it is used up. */
export class DataKeys {
  readonly #subkeys: Subkeys;
  readonly #recipients: readonly string[];
  readonly #now: () => number;
  #current: (SealingKey & { readonly madeAt: number }) | null = null;
  #seals = 0;
  #making: Promise<void> | null = null;

  constructor(subkeys: Subkeys, recipients: readonly string[], now: () => number = Date.now) {
    this.#subkeys = subkeys;
    this.#recipients = recipients;
    this.#now = now;
  }

  /** A key for up to `seals` more values. */
  async take(seals: number): Promise<SealingKey> {
    for (;;) {
      const age = this.#current === null ? 0 : this.#now() - this.#current.madeAt;
      // After the clock was set back the age is unknown. One key more costs nothing.
      const expired = age < 0 || age > MAX_AGE_MS - MARGIN_MS;
      const isUsedUp = this.#seals > 0 && this.#seals + seals > MAX_SEALS_PER_DATA_KEY;
      if (this.#current !== null && !expired && !isUsedUp) break;
      this.#making ??= this.#make().finally(() => {
        this.#making = null;
      });
      await this.#making;
    }
    this.#seals += seals;
    return this.#current;
  }

  /** So many of the seals that were taken with this key were not needed. */
  giveBack(key: SealingKey, seals: number): void {
    if (key === this.#current) this.#seals -= seals;
  }

  async #make(): Promise<void> {
    const dataKey = generateDataKey(this.#subkeys.generation);
    const wrapped = await wrapDataKey(dataKey, this.#recipients, this.#subkeys.verify);
    this.#current = { dataKey, wrapped, madeAt: this.#now() };
    this.#seals = 0;
  }
}
