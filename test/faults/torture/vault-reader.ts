// Opens what the vault keeps, with node:crypto and the standard age format only: for the oracle, which may
// not trust veil's own code. Each data key is unwrapped once.
import type postgres from "postgres";
import { openSeal, unwrap } from "../../line/expected.ts";
import type { TestKeys } from "../../support/keys.ts";
import { prove } from "../../vectors/independent.ts";
import type { Findings } from "./findings.ts";

/** State: the data keys that were unwrapped so far. */
export class DataKeyRing {
  readonly #sql: postgres.Sql;
  readonly #keys: TestKeys;
  readonly #findings: Findings;
  readonly #opened = new Map<string, Uint8Array | null>();

  constructor(sql: postgres.Sql, keys: TestKeys, findings: Findings) {
    this.#sql = sql;
    this.#keys = keys;
    this.#findings = findings;
  }

  /** Null, and a finding, where the key is not there or does not open. */
  async get(id: string): Promise<Uint8Array | null> {
    const known = this.#opened.get(id);
    if (known !== undefined) return known;
    const key = await this.#open(id);
    this.#opened.set(id, key);
    return key;
  }

  async #open(id: string): Promise<Uint8Array | null> {
    const [row] = await this.#sql`
      select wrapped, proof from pii_vault.data_keys where id = ${id}`;
    if (row === undefined) {
      this.#findings.add("wrong", "a data key that is not there", id);
      return null;
    }
    try {
      const key = await unwrap(row.wrapped, this.#keys.VEIL_IDENTITY);
      const verifyKey = Buffer.from(this.#keys.VEIL_VERIFY_KEY.split(":")[1] ?? "", "base64");
      if (!prove(verifyKey, id, key).equals(row.proof)) {
        this.#findings.add("wrong", "a data key whose proof does not fit", id);
      }
      return key;
    } catch {
      this.#findings.add("wrong", "a data key that does not open", id);
      return null;
    }
  }

  /** How many there are, those that seal nothing included: every one has to open. */
  async check(): Promise<number> {
    const rows = await this.#sql`select id::text as id from pii_vault.data_keys`;
    for (const { id } of rows) await this.get(id);
    return rows.length;
  }
}

/** Null where it does not open. */
export function openSealed(
  key: Uint8Array | null,
  label: string,
  place: string,
  sealed: Uint8Array | null,
): string | null {
  if (key === null || sealed === null) return null;
  try {
    return openSeal(key, label, place, sealed);
  } catch {
    return null;
  }
}
