// Brings a database to this program's schema, a fresh one and an older one along the same path. Safe to run again, by
// twenty at once, and in twenty databases of one cluster at once.
import { relationsHash, schemaHash, TEXTS, type Texts } from "../../sql/texts.ts";
import { Failure, misuse } from "../failure.ts";
import type { Database, Query } from "./database.ts";
import { type LastMigration, RELATIONS, SHORT_WAITS, takeTurn } from "./last-migration.ts";
import { NEWER_HINT, otherStep } from "./schema.ts";
import { DEPENDED_ON, INSUFFICIENT_PRIVILEGE } from "./sqlstates.ts";

export type Migrated = {
  readonly from: number;
  readonly to: number;
  /** The names of the steps, and "functions" where those, or the views, were not this program's. */
  readonly applied: string[];
  /** What was copied of a table of before; null if there was none. */
  readonly copied: Copied | null;
  /** How long the periods are that are yet to be made. */
  readonly period: PeriodLength;
};

export type Copied = {
  readonly rows: number;
  /** Values in the columns for tokens that are none: they may be personal data. */
  readonly plainValues: number;
  /** Tokens of another vault, which this one cannot reveal. */
  readonly foreignTokens: number;
};

export type PeriodLength = "month" | "week" | "day";

/**
 * `period`: how long the periods are to be that are yet to be made; null leaves that as it is. Throws if a newer
 * version has migrated this database, or the login may not.
 */
export async function migrate(
  database: Database,
  texts: Texts = TEXTS,
  period: PeriodLength | null = null,
): Promise<Migrated> {
  await requireUtf8(database);
  const migrated = await transact(database, (query) => bringUp(query, texts, period));
  // A call that makes periods does nothing else; the next one has none to make.
  for (let periods = 1; periods > 0; ) {
    periods = await transact(database, async (query) => {
      await query("set local role veil_owner");
      const [row] = await query("select periods from etl.housekeep()");
      return Number(row?.periods);
    });
  }
  return migrated;
}

/** All of it, or nothing of it. */
async function bringUp(query: Query, texts: Texts, wanted: PeriodLength | null): Promise<Migrated> {
  await query(SHORT_WAITS);
  const [to, hash] = [texts.steps.length, schemaHash(texts)];
  let found = await takeTurn(query);
  if (found.step > to) throw misuse(otherStep(found.step, to), NEWER_HINT);
  await query(texts.roles);
  // Of many that found nothing, one made the schemas; the others may have waited for it there.
  if (found.step === 0) found = await takeTurn(query);
  const steps = texts.steps.slice(found.step);
  const applied = [...steps.map(({ name }) => name), ...(found.hash === hash ? [] : ["functions"])];
  const isChanged = applied.length > 0 || !found.isWhole;
  if (isChanged) {
    await query(texts.open);
    for (const { before } of steps) if (before !== undefined) await query(before);
    await query("set local role veil_owner");
    for (const { sql } of steps) await query(sql);
    await writeCurrent(query, texts, { ...found, hasStepped: steps.length > 0 });
    await query("set local role none");
  }
  const period = await choosePeriod(query, wanted);
  for (const { after } of steps) if (after !== undefined) await query(after);
  const copied = steps.some(({ after }) => after !== undefined) ? await countCopied(query) : null;
  if (isChanged) await query(texts.close);
  return { from: found.step, to, applied, copied, period };
}

/** Before rows are copied, whose periods are to end where those begin that are made ahead. */
async function choosePeriod(query: Query, wanted: PeriodLength | null): Promise<PeriodLength> {
  await query("set local role veil_owner");
  if (wanted !== null) {
    await query("update etl.period_length set length = $1::text", [wanted]);
  }
  const [row] = await query("select l.length from etl.period_length l");
  await query("set local role none");
  return row?.length as PeriodLength;
}

/** Of this very transaction, whose last step wrote it down. */
async function countCopied(query: Query): Promise<Copied | null> {
  await query("set local role veil_owner");
  const [row] = await query(
    `select pg_catalog.sum(a.messages)::text as rows, pg_catalog.sum(a.plain_values)::text as plain,
       pg_catalog.sum(a.tokens)::text as tokens
     from pg_catalog.pg_class c
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     left join etl.adopted a on true
     where n.nspname = 'public' and c.relname = 'user_logins_before_veil'
       and c.xmin = pg_catalog.pg_current_xact_id()::xid
     group by c.oid`,
  );
  await query("set local role none");
  if (row === undefined) return null;
  return {
    rows: Number(row.rows),
    plainValues: Number(row.plain),
    foreignTokens: Number(row.tokens),
  };
}

/**
 * Views and triggers are left alone where they are as they should be: an analyst's long query, or a request that
 * somebody has not committed, would be in the way.
 */
async function writeCurrent(
  query: Query,
  texts: Texts,
  found: LastMigration & { readonly hasStepped: boolean },
): Promise<void> {
  const relations = relationsHash(texts);
  const isRenewed =
    found.hasStepped || found.relationsHash !== relations || !found.areRelationsWhole;
  if (isRenewed) await query(texts.views);
  for (const sql of texts.routines) await query(sql);
  if (isRenewed) {
    await query(texts.triggers);
    await query(texts.sweepRelations);
  }
  await query(texts.sweepRoutines);
  await query(texts.grants);
  const before = isRenewed
    ? `pg_catalog.pg_current_xact_id(), (
         select pg_catalog.count(*) from (${RELATIONS}) r
         where r.written_in = pg_catalog.pg_current_xact_id()::xid
       )`
    : `(select m.relations_written_in from etl.migrations m order by m.id desc limit 1),
       (select m.relations from etl.migrations m order by m.id desc limit 1)`;
  await query(
    `insert into etl.migrations (
       step, hash, routines, relations_hash, relations_written_in, relations
     )
     select $1::integer, $2::text, (
       select pg_catalog.count(*) from pg_catalog.pg_proc p
       where p.xmin = pg_catalog.pg_current_xact_id()::xid
     ), $3::text, ${before}`,
    [texts.steps.length, schemaHash(texts), relations],
  );
}

/** Somebody who keeps a lock for so long will keep it. */
const LONGEST_MS = 120_000;

/**
 * One transaction. Its search path comes first: this login may be a superuser, and a function that
 * somebody has put into `public` can fit a call better than the one of pg_catalog that was meant.
 *
 * Roles and the database's own entry are shared catalogs: where migrations of several databases of a
 * cluster touch one row at once, all but one fail with XX000 and are run again.
 */
async function transact<T>(database: Database, work: (query: Query) => Promise<T>): Promise<T> {
  const giveUpAt = performance.now() + LONGEST_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      return await database.transaction(async (query) => {
        await query("set local search_path = pg_catalog, pg_temp");
        return await work(query);
      });
    } catch (error) {
      const code = error instanceof Failure ? error.code : null;
      if (code === INSUFFICIENT_PRIVILEGE) throw await explainRights(database, error as Failure);
      if (code === DEPENDED_ON) throw isDependedOn();
      if (
        !/^(XX000|23505|42710|42P06|42P07|40P01|40001|55P03)$/.test(code ?? "") ||
        attempt === 30 ||
        performance.now() > giveUpAt
      )
        throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
    }
  }
}

const isDependedOn = (): Failure =>
  new Failure(
    1,
    "something of somebody else's uses a function of veil's that this version does not have",
    "the server's log names both; drop what uses it, and migrate again: nothing was changed",
    DEPENDED_ON,
  );

/** Any text of a message must fit, and lengths must count characters. */
async function requireUtf8(database: Database): Promise<void> {
  const [row] = await database.query(
    "select pg_catalog.current_setting('server_encoding') as encoding",
  );
  if (row?.encoding === "UTF8") return;
  throw new Failure(
    1,
    `the database's encoding is ${row?.encoding}, veil needs UTF8`,
    "create the database with ENCODING 'UTF8' TEMPLATE template0",
  );
}

async function explainRights(database: Database, error: Failure): Promise<Failure> {
  const [row] = await database.query("select pg_catalog.quote_ident(current_user) as name");
  return new Failure(
    1,
    `the login ${row?.name} may not migrate this database: ${error.message}`,
    "migrate as a superuser, or as the database's owner with CREATEROLE; if another login made the veil " +
      "roles, that one runs: GRANT veil_owner, veil_etl, veil_analyst, veil_revealer, veil_operator, " +
      "veil_auditor, veil_policy, veil_approver, veil_breakglass, veil_eraser " +
      `TO ${row?.name} WITH ADMIN OPTION;`,
    error.code,
  );
}
