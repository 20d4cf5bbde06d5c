// The audit's entries in their order, a page at a time, whatever their number.
import type { AuditEntry } from "../vault/audit.ts";
import { ENTRY_COLUMNS, readEntry } from "./audit-entries.ts";
import type { Database, Value } from "./database.ts";

/** Null: any. The moments are ISO 8601 with an offset; `until` is not of it any more. */
export type AuditFilter = {
  readonly actor: string | null;
  readonly token: string | null;
  readonly action: string | null;
  readonly since: string | null;
  readonly until: string | null;
  /** The newest so many. */
  readonly limit: number | null;
};

export type ListedEntry = AuditEntry & {
  /** Null while it waits. */
  readonly position: string | null;
};

const PAGE_ROWS = 200;

const MATCHES = `
  ($1::text is null or a.login = $1::text)
  and ($2::text is null or $2::text = any (a.tokens))
  and ($3::text is null or a.action = $3::text)
  and ($4::timestamptz is null or a.at >= $4::timestamptz)
  and ($5::timestamptz is null or a.at < $5::timestamptz)`;

export async function* listAudit(
  database: Database,
  filter: AuditFilter,
): AsyncGenerator<readonly ListedEntry[]> {
  const { actor, token, action, since, until, limit } = filter;
  const values: readonly Value[] = [actor, token, action, since, until];
  let after = "0";
  if (limit !== null) {
    const [first] = await database.query(
      `select (pg_catalog.min(n.id) - 1)::text as id from (
         select a.id from pii_vault.audit a where ${MATCHES} order by a.id desc limit $6::bigint
       ) n`,
      [...values, limit],
    );
    if (typeof first?.id !== "string") return;
    after = first.id;
  }
  for (;;) {
    const rows = await database.query(
      `select c.position::text as position, ${ENTRY_COLUMNS}
       from (
         select a.* from pii_vault.audit a where ${MATCHES} and a.id > $6::bigint
         order by a.id limit ${PAGE_ROWS}
       ) a
       left join pii_vault.audit_chain c on c.entry = a.id
       order by a.id`,
      [...values, after],
    );
    if (rows.length === 0) return;
    yield rows.map((row) => ({
      ...(readEntry(row) as AuditEntry),
      position: typeof row.position === "string" ? row.position : null,
    }));
    after = String(rows.at(-1)?.id);
  }
}
