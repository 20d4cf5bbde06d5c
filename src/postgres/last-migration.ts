// Where a database stands: what its last migration wrote, and whether that is as it was. Nothing that somebody
// else may have made is read, let alone run: whoever migrates may be a superuser.
import { Failure } from "../failure.ts";
import type { Query } from "./database.ts";
import { OLDER_FORM_HINT, olderForm } from "./schema.ts";
import { MADE_BY_OLD_VEIL, TABLE_IN_THE_WAY } from "./sqlstates.ts";

export type LastMigration = {
  readonly step: number;
  readonly hash: string | null;
  /** Every function, view and trigger is as it was left, and no other is there. */
  readonly isWhole: boolean;
  readonly relationsHash: string | null;
  /** The same of views, triggers and rules. */
  readonly areRelationsWhole: boolean;
};

const NONE: LastMigration = {
  step: 0,
  hash: null,
  isWhole: false,
  relationsHash: null,
  areRelationsWhole: false,
};

/** Whoever waits for a lock makes others wait behind it; so not for long, and again. */
export const SHORT_WAITS = "set local lock_timeout = '2s'";

/** The triggers, rules and views of veil's, and which transaction wrote each. */
export const RELATIONS = `
  select t.xmin as written_in
  from pg_catalog.pg_trigger t
  join pg_catalog.pg_class c on c.oid = t.tgrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname in ('etl', 'pii_vault') and not t.tgisinternal
  union all
  select r.xmin
  from pg_catalog.pg_rewrite r
  join pg_catalog.pg_class c on c.oid = r.ev_class
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_roles o on o.oid = c.relowner
  where n.nspname in ('etl', 'pii_vault') or (c.relkind = 'v' and o.rolname = 'veil_owner')`;

/**
 * One migration at a time, by a table of the owner's: any login could hold an advisory lock. Before there is that
 * table, the schemas let one through and fail the others, which then come here.
 */
export async function takeTurn(query: Query): Promise<LastMigration> {
  if (!(await isThere(query))) return NONE;
  // As the owner: a login that has the role without inheriting from it may do so too.
  await query("set local role veil_owner");
  // Others' migrations may take a while each, and nobody else waits for this lock.
  await query("set local lock_timeout = '60s'");
  await query("lock table etl.migrations in share row exclusive mode");
  await query(SHORT_WAITS);
  const [row] = await query(
    `select m.step, m.hash, m.routines = w.those and m.routines = w.everything as routines_whole,
       m.relations_hash, m.relations = r.those and m.relations = r.everything as relations_whole
     from etl.migrations m
     cross join lateral (
       select pg_catalog.count(*) as everything,
         pg_catalog.count(*) filter (where p.xmin = m.written_in::xid) as those
       from pg_catalog.pg_proc p
       join pg_catalog.pg_namespace n on n.oid = p.pronamespace
       where n.nspname in ('etl', 'pii_vault')
     ) w
     cross join lateral (
       select pg_catalog.count(*) as everything,
         pg_catalog.count(*) filter (where s.written_in = m.relations_written_in::xid) as those
       from (${RELATIONS}) s
     ) r
     order by m.id desc limit 1`,
  );
  await query("set local role none");
  if (row === undefined) {
    throw new Failure(
      1,
      "etl.migrations is empty: somebody altered the database",
      "restore the database from a backup, and find out who could",
    );
  }
  const areRelationsWhole = row.relations_whole === true;
  return {
    step: Number(row.step),
    hash: String(row.hash),
    isWhole: row.routines_whole === true && areRelationsWhole,
    relationsHash: String(row.relations_hash),
    areRelationsWhole,
  };
}

/** Whether a migration has been here. Throws where somebody else has, or a veil from before the periods. */
async function isThere(query: Query): Promise<boolean> {
  const columns = await query(
    `select a.attname::text as name,
       c.relkind = 'r' and pg_catalog.pg_get_userbyid(c.relowner) = 'veil_owner'
         and pg_catalog.pg_get_userbyid(n.nspowner) = 'veil_owner' as ours,
       exists (
         select from pg_catalog.pg_class o
         join pg_catalog.pg_namespace v on v.oid = o.relnamespace
         where v.nspname = 'pii_vault' and o.relname = 'originals' and o.relkind = 'r'
       ) as is_flat
     from pg_catalog.pg_attribute a
     join pg_catalog.pg_class c on c.oid = a.attrelid
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'etl' and c.relname = 'migrations' and a.attnum > 0`,
  );
  if (columns.length === 0) return false;
  if (columns.some(({ name, is_flat }) => name === "version" || is_flat === true)) {
    throw new Failure(1, olderForm(), OLDER_FORM_HINT, MADE_BY_OLD_VEIL);
  }
  // Reading it could run the other's code with this login's rights.
  if (columns.some(({ ours }) => ours !== true)) {
    throw new Failure(
      1,
      "etl.migrations, or its schema, was there before veil, and belongs to somebody else",
      "drop it, or give it another name; then migrate again",
      TABLE_IN_THE_WAY,
    );
  }
  return true;
}
