// Brings a database to this version's schema. Safe to run again, by twenty at once, and in twenty
// databases of one cluster at once.
import { type Migration, migrations, SCHEMA_VERSION } from "../sql/migrations.ts";
import type { Database, Query } from "./database.ts";
import { Failure, misuse } from "./failure.ts";

export type Migrated = { readonly from: number; readonly to: number; readonly applied: string[] };

/** Throws if a newer version has migrated this database, or the login may not. */
export async function migrate(database: Database): Promise<Migrated> {
  const from = await currentVersion(database.query);
  if (from > SCHEMA_VERSION) {
    throw misuse(
      `the database is at schema version ${from}, this program at ${SCHEMA_VERSION}`,
      "a newer veil has migrated it: use that version here too",
    );
  }
  const applied: string[] = [];
  for (const migration of migrations) {
    if (await retryCatalog(() => database.transaction((query) => apply(query, migration)))) {
      applied.push(migration.name);
    }
  }
  await database.transaction(async (query) => {
    await query("set local role veil_owner");
    await query("select from etl.housekeep()");
  });
  return { from, to: SCHEMA_VERSION, applied };
}

/** One file and its entry, in one transaction; false if it has been applied already. */
async function apply(query: Query, migration: Migration): Promise<boolean> {
  await query("select pg_advisory_xact_lock(hashtextextended('veil.migrate', 0))");
  if ((await currentVersion(query)) >= migration.version) return false;
  try {
    await query(migration.sql);
    await query("insert into etl.migrations (version, name) values ($1, $2)", [
      migration.version,
      migration.name,
    ]);
  } catch (error) {
    throw explain(error);
  }
  return true;
}

async function currentVersion(query: Query): Promise<number> {
  const [present] = await query(
    `select coalesce(has_schema_privilege(n.oid, 'usage'), false) as usable
     from pg_catalog.pg_namespace n
     where n.nspname = 'etl'
       and exists (select from pg_catalog.pg_class c
         where c.relnamespace = n.oid and c.relname = 'migrations')`,
  );
  if (present === undefined) return 0;
  if (present.usable !== true) {
    const [who] = await query("select current_user as name");
    throw cannotAct(String(who?.name));
  }
  const [row] = await query("select etl.schema_version() as version");
  return Number(row?.version);
}

/**
 * Roles and the database's own entry are shared catalogs: where migrations of several databases of a
 * cluster touch one row at once, all but one fail with XX000 and are run again.
 */
async function retryCatalog<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const code = error instanceof Failure ? error.code : null;
      if (!/^(XX000|23505|42710|40P01|40001)$/.test(code ?? "") || attempt === 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
    }
  }
}

function explain(error: unknown): unknown {
  if (error instanceof Failure && error.code === "42501") {
    return new Failure(
      1,
      `this login may not migrate the database: ${error.message}`,
      "migrate as a superuser, or as the database's owner with CREATEROLE; if another login made the " +
        `veil roles, it runs: ${grantStatement("<this login>")}`,
      error.code,
    );
  }
  return error;
}

const cannotAct = (login: string): Failure =>
  new Failure(
    1,
    `the login ${login} may not act as veil_owner, to whom the schema belongs`,
    `whoever made the veil roles runs: ${grantStatement(login)}`,
  );

const grantStatement = (login: string): string =>
  `GRANT veil_owner, veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor TO ${login} WITH ADMIN OPTION;`;
