// Brings a database to this version's schema. Safe to run again, by twenty at once, and in twenty
// databases of one cluster at once.
import {
  DATABASE_RIGHTS,
  type Migration,
  migrations,
  SCHEMA_VERSION,
} from "../../sql/migrations.ts";
import { Failure, misuse } from "../failure.ts";
import type { Database, Query } from "./database.ts";
import { INSUFFICIENT_PRIVILEGE } from "./sqlstates.ts";

export type Migrated = { readonly from: number; readonly to: number; readonly applied: string[] };

/** Throws if a newer version has migrated this database, or the login may not. */
export async function migrate(database: Database): Promise<Migrated> {
  const from = await transact(database, currentVersion);
  if (from > SCHEMA_VERSION) {
    throw misuse(
      `the database is at schema version ${from}, this program at ${SCHEMA_VERSION}`,
      "a newer veil has migrated it: use that version here too",
    );
  }
  await requireUtf8(database);
  const applied: string[] = [];
  for (const migration of migrations) {
    if (await transact(database, (query) => apply(query, migration))) applied.push(migration.name);
  }
  await transact(database, (query) => query(DATABASE_RIGHTS));
  await transact(database, async (query) => {
    await query("set local role veil_owner");
    await query("select from etl.housekeep()");
  });
  return { from, to: SCHEMA_VERSION, applied };
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
      if (!/^(XX000|23505|42710|42P06|40P01|40001|55P03)$/.test(code ?? "") || attempt === 30)
        throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
    }
  }
}

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

/** One file and its entry; false if it has been applied already. */
async function apply(query: Query, migration: Migration): Promise<boolean> {
  // Whoever waits for a lock makes others wait behind it; so not for long, and again.
  await query("set local lock_timeout = '2s'");
  // One at a time, by a table of the owner's: any login could hold an advisory lock. Before there is that
  // table, the first file's `create schema` lets one through and fails the others, which then come here.
  if (await isInstalled(query)) {
    await query("set local role veil_owner");
    await query("lock table etl.migrations in share row exclusive mode");
    await query("set local role none");
  }
  if ((await currentVersion(query)) >= migration.version) return false;
  await query(migration.sql);
  await query("set local role veil_owner");
  await query("insert into etl.migrations (version, name) values ($1, $2)", [
    migration.version,
    migration.name,
  ]);
  return true;
}

async function isInstalled(query: Query): Promise<boolean> {
  const [present] = await query(
    `select 1 as yes from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'etl' and c.relname = 'migrations'`,
  );
  return present !== undefined;
}

async function currentVersion(query: Query): Promise<number> {
  if (!(await isInstalled(query))) return 0;
  // As the owner: a login that has the role without inheriting from it may do so too.
  await query("set local role veil_owner");
  const [row] = await query("select etl.schema_version() as version");
  await query("set local role none");
  return Number(row?.version);
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
