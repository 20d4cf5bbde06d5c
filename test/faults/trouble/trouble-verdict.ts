// Holds what is stored against what was sent: every row, every id in the ledger and the quarantine, every
// original in the vault, opened. What a message has to become is worked out by test/line/expected.ts.
import type postgres from "postgres";
import { type ExpectedRow, expectedRow, openSeal, tokensOf, unwrap } from "../../line/expected.ts";
import { multiset, rowsOf } from "../../line/stored.ts";
import type { TestKeys } from "../../support/keys.ts";

export type SentMessage = {
  readonly id: string;
  readonly body: string;
  /** Null: it cannot become a row. */
  readonly login: Parameters<typeof expectedRow>[0] | null;
};

/** How many of each are wrong; all zero is the promise kept. */
export type Verdict = {
  readonly lost: Readonly<Record<Place, number>>;
  readonly tooMany: Readonly<Record<Place, number>>;
  /** Seals that do not open to what was sent. */
  readonly sealedWrong: number;
};
type Place = "rows" | "ledger" | "quarantine" | "vault";

const NONE = { rows: 0, ledger: 0, quarantine: 0, vault: 0 };
export const KEPT: Verdict = { lost: NONE, tooMany: NONE, sealedWrong: 0 };

export async function judge(
  sql: postgres.Sql,
  sent: readonly SentMessage[],
  sentAt: number,
  keys: TestKeys,
): Promise<Verdict> {
  const tokens = tokensOf(keys.VEIL_TOKEN_KEY);
  const logins = sent.flatMap(({ login }) => (login === null ? [] : [login]));
  const originals = new Map<string, string>();
  for (const { ip, device_id } of logins) {
    if (ip) originals.set(tokens.ip(ip), ip);
    if (device_id) originals.set(tokens.device_id(device_id), device_id);
  }
  const rows: ExpectedRow[] = logins.map((login) => expectedRow(login, sentAt, tokens));
  const idsIn = async (table: "etl.ledger" | "etl.quarantine") =>
    (await sql`select message_id as id from ${sql(table)}`).map(({ id }) => String(id));
  const vault = await sql`
    select o.token, o.sealed, o.data_key, k.wrapped
    from pii_vault.originals o left join pii_vault.data_keys k on k.id = o.data_key`;
  const quarantined = await sql`
    select q.message_id, q.sealed, q.data_key, k.wrapped
    from etl.quarantine q left join pii_vault.data_keys k on k.id = q.data_key`;

  const dataKeys = new Map<string, Promise<Uint8Array>>();
  const open = async (row: postgres.Row, label: string, place: string): Promise<string | null> => {
    try {
      if (!dataKeys.has(row.data_key)) {
        dataKeys.set(row.data_key, unwrap(row.wrapped, keys.VEIL_IDENTITY));
      }
      return openSeal(await dataKeys.get(row.data_key)!, label, place, row.sealed);
    } catch {
      return null;
    }
  };
  const bodies = new Map(sent.map(({ id, body }) => [id, body]));
  let sealedWrong = 0;
  for (const row of vault) {
    const original = await open(row, "veil/v1/original", row.token);
    if (original !== originals.get(row.token)) sealedWrong++;
  }
  for (const row of quarantined) {
    const body = await open(row, "veil/v1/quarantine", row.message_id);
    if (body !== bodies.get(row.message_id)) sealedWrong++;
  }

  const differences = {
    rows: difference(multiset(rows), multiset(await rowsOf(sql))),
    ledger: difference(
      sent.map(({ id }) => id),
      await idsIn("etl.ledger"),
    ),
    quarantine: difference(
      sent.filter(({ login }) => login === null).map(({ id }) => id),
      await idsIn("etl.quarantine"),
    ),
    vault: difference(
      [...originals.keys()],
      vault.map(({ token }) => String(token)),
    ),
  };
  const pick = (which: "lost" | "tooMany") => ({
    rows: differences.rows[which],
    ledger: differences.ledger[which],
    quarantine: differences.quarantine[which],
    vault: differences.vault[which],
  });
  return { lost: pick("lost"), tooMany: pick("tooMany"), sealedWrong };
}

/** Of two multisets. */
function difference(wanted: readonly string[], found: readonly string[]) {
  const balance = new Map<string, number>();
  for (const one of wanted) balance.set(one, (balance.get(one) ?? 0) - 1);
  for (const one of found) balance.set(one, (balance.get(one) ?? 0) + 1);
  let lost = 0;
  let tooMany = 0;
  for (const count of balance.values()) {
    if (count < 0) lost -= count;
    else tooMany += count;
  }
  return { lost, tooMany };
}
