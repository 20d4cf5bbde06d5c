// Lists the entries of the audit, a page at a time, however many there are: as they were when the
// list began.
import type { AuditEntry } from "../../vault/audit.ts";
import type { Database } from "../postgres/database.ts";
import type { Value } from "../postgres/values.ts";
import { ENTRY_COLUMNS, readEntry } from "./entries.ts";

/** Null: any. The times are ISO 8601 with an offset; `until` itself is left out. */
export type AuditFilter = {
  readonly actor: string | null;
  /** Entries that name this token, and all others of the requests that do. */
  readonly token: string | null;
  readonly request: string | null;
  readonly action: string | null;
  readonly since: string | null;
  readonly until: string | null;
  /** Only the newest so many. */
  readonly limit: number | null;
};

export type ListedEntry = AuditEntry & {
  /** Null while it waits to be chained. */
  readonly position: string | null;
};

const PAGE_ROWS = 200;

/** `print` is given the pages in order. */
export async function listAudit(
  database: Database,
  filter: AuditFilter,
  print: (page: readonly ListedEntry[]) => Promise<void>,
): Promise<void> {
  const { text, values } = select(filter);
  await database.snapshot(async (query) => {
    // A function of `public` could fit a call better than the one that is meant, and lie.
    await query("set local search_path = pg_catalog, pg_temp");
    await query(`declare entries no scroll cursor for ${text}`, values);
    for (;;) {
      const rows = await query(`fetch forward ${PAGE_ROWS} from entries`);
      if (rows.length === 0) return;
      await print(
        rows.map((row) => ({
          ...(readEntry(row) as AuditEntry),
          position: typeof row.position === "string" ? row.position : null,
        })),
      );
    }
  });
}

/**
 * The entries of the token's requests are read once and joined, not looked up for each entry of the
 * audit.
 */
const caseOf = (token: string): string => `naming as materialized (
    select n.id, n.request from pii_vault.audit n where ${token} = any (n.tokens)
  ), of_case as (
    select n.id from naming n
    union
    select e.id from pii_vault.audit e where e.request in (select n.request from naming n)
  ), `;

function select({ actor, token, request, action, since, until, limit }: AuditFilter) {
  const values: Value[] = [];
  const parameter = (value: Value, type: string) => `$${values.push(value)}::${type}`;
  const conditions = ["true"];
  if (actor !== null) conditions.push(`a.login = ${parameter(actor, "text")}`);
  if (action !== null) conditions.push(`a.action = ${parameter(action, "text")}`);
  if (request !== null) conditions.push(`a.request = ${parameter(request, "uuid")}`);
  if (since !== null) conditions.push(`a.at >= ${parameter(since, "timestamptz")}`);
  if (until !== null) conditions.push(`a.at < ${parameter(until, "timestamptz")}`);
  let named = "";
  if (token !== null) {
    named = caseOf(parameter(token, "text"));
    conditions.push("a.id in (select c.id from of_case c)");
  }
  const newest = limit === null ? "" : `order by a.id desc limit ${parameter(limit, "bigint")}`;
  const text = `
    with ${named}wanted as (
      select a.* from pii_vault.audit a where ${conditions.join(" and ")} ${newest}
    )
    select c.position::text as position, ${ENTRY_COLUMNS}
    from wanted a left join pii_vault.audit_chain c on c.entry = a.id
    order by a.id`;
  return { text, values };
}
