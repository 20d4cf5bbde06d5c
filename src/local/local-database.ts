// The database of the embedded default: its server's place, its schema, and a login for each role.
import { randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { SCHEMA_VERSION, schemaHash, TEXTS } from "../../sql/texts.ts";
import { Failure, failed } from "../failure.ts";
import { type Database, openDatabase } from "../postgres/database.ts";
import { migrate } from "../postgres/migrate.ts";
import { MADE_BY_OLD_VEIL } from "../postgres/sqlstates.ts";
import { canReach, findBinaries, serverAccount } from "./binaries.ts";
import { type Cluster, initCluster, runningPort, startCluster, stopCluster } from "./cluster.ts";
import { LOGINS, type LocalLogin, OWNER } from "./logins.ts";
import { home, keys, makeOutsideHome } from "./places.ts";

export const DATABASE = "veil";

/** Few connections and little memory, for one person. Durability does not depend on them. */
const LOCAL_SETTINGS = { max_connections: "40", shared_buffers: "64MB" };

export type LocalDatabase = {
  readonly port: number;
  readonly url: (login: LocalLogin) => string;
};

/** Makes and starts what is missing. One caller at a time. */
export async function openLocalDatabase(): Promise<LocalDatabase> {
  const passwords = readPasswords();
  const cluster = await placeCluster();
  initCluster(cluster, passwords[OWNER]);
  const port = runningPort(cluster) ?? (await startCluster(cluster, LOCAL_SETTINGS));
  await prepare(cluster, port, passwords);
  return {
    port,
    url: (login) =>
      `postgres://${login}:${passwords[login]}@127.0.0.1:${port}/${DATABASE}?sslmode=disable`,
  };
}

/** The ids of all messages that have been stored. `alone`: nobody else's load may be under way. */
export async function storedIds(port: number, alone: boolean): Promise<Set<string>> {
  const database = connect(port, readPasswords()[OWNER], DATABASE);
  if (alone) {
    // A load that a killed command has left either commits now, or never.
    await database.query(
      "select pg_catalog.pg_terminate_backend(pid, 5000) from pg_catalog.pg_stat_activity where application_name = 'veil'",
    );
  }
  const rows = await database.query("select message_id from etl.ledger");
  await database.close();
  return new Set(rows.map((row) => String(row.message_id)));
}

export async function stopLocalDatabase(): Promise<void> {
  if (!existsSync(join(home, "postgres"))) return;
  const cluster = await placeCluster();
  if (runningPort(cluster) !== null) stopCluster(cluster);
}

/** Stops and removes it, wherever it is. */
export async function removeLocalDatabase(): Promise<void> {
  const link = join(home, "postgres");
  if (!existsSync(link)) return;
  const cluster = await placeCluster();
  if (runningPort(cluster) !== null) stopCluster(cluster, "immediate");
  if (isLink(link)) rmSync(dirname(readlinkSync(link)), { recursive: true, force: true });
  // Moved aside first: an interrupted removal must not leave half of a database in this place.
  const aside = `${link}.removed`;
  rmSync(aside, { recursive: true, force: true });
  renameSync(link, aside);
  rmSync(aside, { recursive: true, force: true });
}

type Passwords = Readonly<Record<LocalLogin, string>>;

const passwordsFile = join(keys, "passwords.json");

function readPasswords(): Passwords {
  const known: Partial<Passwords> = existsSync(passwordsFile)
    ? JSON.parse(readFileSync(passwordsFile, "utf8"))
    : {};
  const names = [OWNER, ...Object.keys(LOGINS)] as LocalLogin[];
  const made = names.map((name) => [name, known[name] ?? randomBytes(18).toString("base64url")]);
  const passwords = Object.fromEntries(made) as Passwords;
  // An earlier version knew fewer logins.
  if (names.some((name) => known[name] === undefined)) {
    writeFileSync(`${passwordsFile}.new`, JSON.stringify(passwords), { mode: 0o600 });
    renameSync(`${passwordsFile}.new`, passwordsFile);
  }
  return passwords;
}

/**
 * Under `.veil/`. Where we are root and PostgreSQL's user cannot enter the checkout, it lives
 * outside and `.veil/` has a link to it.
 */
async function placeCluster(): Promise<Cluster> {
  const account = serverAccount();
  const binaries = await findBinaries(account);
  const link = join(home, "postgres");
  let folder = link;
  if (!canReach(account, home)) {
    folder = isLink(link) ? readlinkSync(link) : join(makeOutsideHome(), "postgres");
    if (!isLink(link)) symlinkSync(folder, link);
  }
  // The folder is ours, and the server's account may pass through it. That account owns only the
  // data below, with the log.
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const data = join(folder, "data");
  return { binaries, data, log: join(data, "server.log"), account };
}

function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

const connect = (port: number, password: string, database: string): Database =>
  openDatabase({
    host: "127.0.0.1",
    port,
    socket: null,
    database,
    user: OWNER,
    password,
    tls: false,
    applicationName: "veil local",
    connectTimeoutSeconds: 10,
  });

/** Makes database, schema and logins, unless this version has done it before. */
async function prepare(cluster: Cluster, port: number, passwords: Passwords): Promise<void> {
  // The note names the data folder that was prepared. Another folder in its place is not prepared.
  const marker = join(dirname(cluster.data), "prepared.json");
  const prepared = JSON.stringify([
    SCHEMA_VERSION,
    schemaHash(TEXTS),
    LOGINS,
    statSync(cluster.data).ino,
  ]);
  if (existsSync(marker) && readFileSync(marker, "utf8") === prepared) return;
  const server = connect(port, passwords[OWNER], "postgres");
  const [existing] = await server.query("select from pg_catalog.pg_database where datname = $1", [
    DATABASE,
  ]);
  if (existing === undefined) await server.query(`create database ${DATABASE}`);
  await server.close();
  const database = connect(port, passwords[OWNER], DATABASE);
  await migrate(database).catch(startOver);
  for (const [login, roles] of Object.entries(LOGINS)) {
    const [known] = await database.query("select from pg_catalog.pg_roles where rolname = $1", [
      login,
    ]);
    if (known === undefined) {
      const password = passwords[login as keyof typeof LOGINS];
      await database.query(
        `create role ${login} login in role ${roles.join(", ")} password '${password}'`,
      );
    }
  }
  await database.close();
  writeFileSync(marker, prepared);
}

/** Samples and generated keys: nothing that anybody would want brought over. */
function startOver(error: unknown): never {
  if (!(error instanceof Failure) || error.code !== MADE_BY_OLD_VEIL) throw error;
  throw failed(error.message, "`bun run etl --reset-local` removes it and starts over");
}
