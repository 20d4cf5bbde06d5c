// Brings a database to this program's schema, a fresh one and an older one along the same path. Safe to run again, by
// twenty at once, and in twenty databases of one cluster at once.
import { schemaHash, TEXTS, type Texts } from "../../sql/texts.ts";
import { Failure, misuse } from "../failure.ts";
import type { Database, Query } from "./database.ts";
import { NEWER_HINT, OLDER_FORM_HINT, olderForm, otherStep } from "./schema.ts";
import { DEPENDED_ON, INSUFFICIENT_PRIVILEGE, MADE_BY_OLD_VEIL } from "./sqlstates.ts";

export type Migrated = {
  readonly from: number;
  readonly to: number;
  /** The names of the steps, and "functions" where those were not this program's. */
  readonly applied: string[];
};

/** Throws if a newer version has migrated this database, or the login may not. */
export async function migrate(database: Database, texts: Texts = TEXTS): Promise<Migrated> {
  await requireUtf8(database);
  const migrated = await transact(database, (query) => bringUp(query, texts));
  await transact(database, async (query) => {
    await query("set local role veil_owner");
    await query("select from etl.housekeep()");
  });
  return migrated;
}

/** Whoever waits for a lock makes others wait behind it; so not for long, and again. */
const SHORT_WAITS = "set local lock_timeout = '2s'";

/** All of it, or nothing of it. */
async function bringUp(query: Query, texts: Texts): Promise<Migrated> {
  await query(SHORT_WAITS);
  const [to, hash] = [texts.steps.length, schemaHash(texts)];
  let found = await takeTurn(query);
  if (found.step > to) throw misuse(otherStep(found.step, to), NEWER_HINT);
  await query(texts.roles);
  // Of many that found nothing, one made the schemas; the others may have waited for it there.
  if (found.step === 0) found = await takeTurn(query);
  const steps = texts.steps.slice(found.step);
  const applied = [...steps.map(({ name }) => name), ...(found.hash === hash ? [] : ["functions"])];
  // Where nothing is to be done, no view and no trigger is locked: an analyst's long query would be in the way.
  if (applied.length > 0 || !found.isWhole) {
    await query("set local role veil_owner");
    for (const { sql } of steps) await query(sql);
    for (const sql of texts.current) await query(sql);
    await query(texts.sweep);
    await query(texts.grants);
    await query(
      `insert into etl.migrations (step, hash, routines)
       select $1::integer, $2::text, pg_catalog.count(*) from pg_catalog.pg_proc p
       where p.xmin = pg_catalog.pg_current_xact_id()::xid`,
      [to, hash],
    );
    await query("set local role none");
  }
  await query(texts.close);
  return { from: found.step, to, applied };
}

type Found = {
  readonly step: number;
  readonly hash: string | null;
  /** Every function is as the last migration left it, and no other is there. */
  readonly isWhole: boolean;
};

/**
 * One at a time, by a table of the owner's: any login could hold an advisory lock. Before there is that table, the
 * schemas let one through and fail the others, which then come here.
 */
async function takeTurn(query: Query): Promise<Found> {
  const columns = await query(
    `select a.attname::text as name from pg_catalog.pg_attribute a
     join pg_catalog.pg_class c on c.oid = a.attrelid
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'etl' and c.relname = 'migrations' and a.attnum > 0`,
  );
  if (columns.length === 0) return { step: 0, hash: null, isWhole: false };
  if (columns.some(({ name }) => name === "version")) {
    throw new Failure(1, olderForm(), OLDER_FORM_HINT, MADE_BY_OLD_VEIL);
  }
  // As the owner: a login that has the role without inheriting from it may do so too.
  await query("set local role veil_owner");
  // Others' migrations may take a while each, and nobody else waits for this lock.
  await query("set local lock_timeout = '60s'");
  await query("lock table etl.migrations in share row exclusive mode");
  await query(SHORT_WAITS);
  const [row] = await query(
    `select m.step, m.hash, m.routines = w.those and m.routines = w.everything as whole
     from etl.migrations m
     cross join lateral (
       select pg_catalog.count(*) as everything,
         pg_catalog.count(*) filter (where p.xmin = m.written_in::xid) as those
       from pg_catalog.pg_proc p
       join pg_catalog.pg_namespace n on n.oid = p.pronamespace
       where n.nspname in ('etl', 'pii_vault')
     ) w
     order by m.id desc limit 1`,
  );
  await query("set local role none");
  return { step: Number(row?.step), hash: String(row?.hash), isWhole: row?.whole === true };
}

/**
 * One transaction. Its search path comes first: this login may be a superuser, and a function that
 * somebody has put into `public` can fit a call better than the one of pg_catalog that was meant.
 *
 * Roles and the database's own entry are shared catalogs: where migrations of several databases of a
 * cluster touch one row at once, all but one fail with XX000 and are run again.
 */
async function transact<T>(database: Database, work: (query: Query) => Promise<T>): Promise<T> {
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
      if (!/^(XX000|23505|42710|42P06|42P07|40P01|40001|55P03)$/.test(code ?? "") || attempt === 30)
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
