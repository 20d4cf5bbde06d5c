// The invariants: what must always hold, asked of a live database. Each is read from one snapshot,
// so loads may go on meanwhile. Offenders are named by token, id or day, never by value.
import type { Database } from "./postgres/database.ts";

export type Invariant = {
  readonly name: string;
  /** The invariant in words. */
  readonly description: string;
  /** What to do where it is broken. */
  readonly hint: string;
};

/** As `etl.check_invariant` knows them. Where one is broken, it may explain those after it. */
export const INVARIANTS: readonly Invariant[] = [
  {
    name: "data-keys-are-whole",
    description: "every data key has its recipients, its proof and a known generation",
    hint: "somebody altered pii_vault.data_keys: restore the named ones from a backup",
  },
  {
    name: "originals-have-data-keys",
    description: "every original has its data key",
    hint: "restore pii_vault.data_keys from a backup: without it these originals open no more",
  },
  {
    name: "bodies-have-data-keys",
    description: "every body in the quarantine has its data key",
    hint: "restore pii_vault.data_keys from a backup: without it these bodies open no more",
  },
  {
    name: "nonces-are-used-once",
    description: "no data key has sealed twice with one nonce",
    hint:
      "was an etl host cloned while it ran, or a seal copied? two seals of one nonce may give their " +
      "originals away: start the etl hosts anew, keep the vault from everybody",
  },
  {
    name: "tokens-have-originals",
    description: "every token in user_logins has its original, was erased, or was copied",
    hint: "restore pii_vault.originals from a backup: until then these tokens cannot be revealed",
  },
  {
    name: "values-are-tokens",
    description: "nothing but tokens stands in the columns for tokens",
    hint:
      "these values may be personal data in the clear: look for them as the table's owner, and for who " +
      "writes user_logins besides veil",
  },
  {
    name: "days-add-up",
    description: "each day has as many rows and quarantined messages as were stored",
    hint:
      "compare user_logins, etl.quarantine and etl.ledger of these days with a backup: somebody besides " +
      "veil has written or deleted there",
  },
  {
    name: "messages-are-stored-once",
    description: "no message is stored as of two days",
    hint: "the queue gave one message two times of sending: look for its row on both days",
  },
  {
    name: "requests-are-on-record",
    description: "every request for originals or bodies is in the audit as it was made",
    hint: "somebody altered pii_vault.audit: compare it with a backup, and find out who could",
  },
  {
    name: "erased-stay-erased",
    description: "no token that was forgotten has an original, or stands in a row",
    hint:
      "was something restored beside the tombstones? forget these tokens again (docs/erasure.md, after a " +
      "restore)",
  },
  {
    name: "erasures-are-on-record",
    description: "every forgotten token and every expired period is in the audit as it was erased",
    hint:
      "somebody altered pii_vault.tombstones or pii_vault.audit: compare them with the receipts and a " +
      "backup",
  },
];

export type Finding = {
  readonly invariant: Invariant;
  readonly checked: number;
  readonly offenders: number;
  /** The first few offenders. */
  readonly examples: readonly string[];
};

/** Waits only for an administrator's lock, and makes no load wait. */
export async function checkInvariant(database: Database, invariant: Invariant): Promise<Finding> {
  const [row] = await database.transaction(async (query) => {
    await query("set transaction read only");
    return await query(
      `select checked::text, offenders::text, pg_catalog.to_json(examples)::text as examples
       from etl.check_invariant($1::text)`,
      [invariant.name],
    );
  });
  return {
    invariant,
    checked: Number(row?.checked),
    offenders: Number(row?.offenders),
    examples: JSON.parse(String(row?.examples)),
  };
}
