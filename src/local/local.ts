// The embedded default: a real PostgreSQL and a real SQS-protocol queue that veil starts itself when
// neither is configured. Everything it makes lives under `.veil/` of the checkout, generated keys and
// passwords too; `bun run etl --reset-local` removes it.
//
// Commands that run at once share the servers, and the last one out stops them. Whatever a crash, a
// kill or a reboot left behind is found by the next command, and used or cleared away.
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { SCHEMA_VERSION } from "../../sql/migrations.ts";
import type { Environment } from "../config.ts";
import { type Database, openDatabase } from "../database.ts";
import { failed, misuse } from "../failure.ts";
import { writeKeyFiles } from "../key-files.ts";
import { migrate } from "../migrate.ts";
import type { QueueConfig } from "../queue.ts";
import {
  type Cluster,
  canReach,
  copyBinaries,
  findBinaries,
  initCluster,
  runningPort,
  serverAccount,
  startCluster,
  stopCluster,
} from "./cluster.ts";
import { openLease } from "./lease.ts";
import { sampleBodies } from "./sample.ts";

/** The logins of the local database, each with the one role that a command needs. */
const LOGINS = {
  local_etl: "veil_etl",
  local_analyst: "veil_analyst",
  local_revealer: "veil_revealer",
  local_operator: "veil_operator",
  local_auditor: "veil_auditor",
} as const;
const OWNER = "postgres";
const DATABASE = "veil";

export type LocalLogin = keyof typeof LOGINS | typeof OWNER;

export type Local = {
  /** Database and keys, as a person would have set them. What is set already stays as it is. */
  readonly env: Environment;
  /** For the command that needs it. */
  readonly queue: QueueConfig | null;
  /** Where an analyst can connect while the servers run, without the password. */
  readonly analystUrl: string;
  readonly close: () => Promise<void>;
};

const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const home = join(checkout, ".veil");
const keys = join(home, "keys");
const run = join(home, "run");

/** Why the embedded default cannot be had here, or null. A compiled binary carries no servers. */
export function requireCheckout(needed: string): void {
  if (existsSync(join(checkout, "package.json"))) return;
  throw misuse(
    `${needed} not set; the embedded default, which needs nothing, is for checkouts only`,
    "set QUEUE_URL and DATABASE_URL (the README lists all variables)",
  );
}

/** The variables that name the local keys, for commands that need no server. Null before there are any. */
export function localKeys(): Environment | null {
  return existsSync(join(keys, "recipients.txt")) ? keyFiles() : null;
}

const keyFiles = (): Environment => ({
  VEIL_TOKEN_KEY_FILE: join(keys, "token.key"),
  VEIL_VERIFY_KEY_FILE: join(keys, "verify.key"),
  VEIL_IDENTITY_FILE: join(keys, "identity.txt"),
  VEIL_RECIPIENTS_FILE: join(keys, "recipients.txt"),
});

/** Starts what is not running, and answers when this command can use it. */
export async function openLocal(
  env: Environment,
  login: LocalLogin,
  needs: { readonly queue: boolean; readonly reset: boolean },
  tell: (text: string) => void,
): Promise<Local> {
  mkdirSync(run, { recursive: true, mode: 0o700 });
  const lease = openLease(run);
  const started = await lease.exclusively(async (alone) => {
    if (needs.reset) await reset(alone);
    const first = !existsSync(join(keys, "passwords.json"));
    if (first) tell("first run: making keys, a database and a queue under .veil/");
    const passwords = await makeSecrets();
    const cluster = await placeCluster();
    initCluster(cluster, passwords[OWNER]);
    const port = runningPort(cluster) ?? (await startCluster(cluster, LOCAL_SETTINGS));
    await prepare(port, passwords);
    const queue = needs.queue ? await shareQueue(port, passwords[OWNER], alone) : null;
    return { cluster, port, passwords, queue };
  });
  const { cluster, port, passwords, queue } = started;
  return {
    env: fill(env, {
      DATABASE_URL: databaseUrl(port, login, passwords[login]),
      ...keyFiles(),
    }),
    queue:
      queue === null
        ? null
        : {
            queue: queue.url,
            endpoint: queue.endpoint,
            region: "us-east-1",
            credentials: { accessKeyId: "local", secretAccessKey: "local" },
          },
    analystUrl: `postgres://local_analyst@127.0.0.1:${port}/${DATABASE}`,
    close: () =>
      lease.leave(async () => {
        await stopQueue();
        stopCluster(cluster);
      }),
  };
}

/** Few connections and little memory: it is one person's. Nothing that durability rests on. */
const LOCAL_SETTINGS = { max_connections: "40", shared_buffers: "64MB" };

/** What is set already stays, in either of its two spellings. */
function fill(env: Environment, additions: Environment): Environment {
  const missing = Object.entries(additions).filter(([name]) => {
    const plain = name.replace(/_FILE$/, "");
    return !env[plain] && !env[`${plain}_FILE`];
  });
  return { ...env, ...Object.fromEntries(missing) };
}

type Passwords = Readonly<Record<LocalLogin, string>>;

async function makeSecrets(): Promise<Passwords> {
  chmodSync(home, 0o755); // PostgreSQL's own user passes through; what is secret is one level down
  mkdirSync(keys, { recursive: true, mode: 0o700 });
  const file = join(keys, "passwords.json");
  if (!existsSync(join(keys, "recipients.txt"))) {
    // An interrupted first run left some of the four: nothing can depend on them yet.
    for (const name of ["token.key", "verify.key", "identity.txt"]) {
      rmSync(join(keys, name), { force: true });
    }
    await writeKeyFiles(keys, "classic");
  }
  if (!existsSync(file)) {
    const names = [OWNER, ...Object.keys(LOGINS)];
    const made = names.map((name) => [name, randomBytes(18).toString("base64url")]);
    writeFileSync(`${file}.new`, JSON.stringify(Object.fromEntries(made)), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }
  return JSON.parse(readFileSync(file, "utf8")) as Passwords;
}

/**
 * Under `.veil/`, unless we are root and the checkout lets PostgreSQL's user not through: then outside,
 * linked from there.
 */
async function placeCluster(): Promise<Cluster> {
  const account = serverAccount();
  const link = join(home, "postgres");
  let binaries = await findBinaries();
  let folder = link;
  if (!canReach(account, join(binaries, "postgres")) || !canReach(account, home)) {
    const outside = join("/var/lib/veil-local", hashOf(checkout));
    mkdirSync(outside, { recursive: true, mode: 0o755 });
    binaries = copyBinaries(binaries, outside);
    folder = join(outside, "postgres");
    if (!isLink(link)) symlinkSync(folder, link);
  }
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (account !== null) chownSync(folder, account.uid, account.gid);
  return { binaries, data: join(folder, "data"), log: join(folder, "server.log"), account };
}

const hashOf = (text: string): string =>
  `${basename(text)}-${createHash("sha256").update(text).digest("hex").slice(0, 12)}`;

function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

const databaseUrl = (port: number, login: string, password: string, name = DATABASE): string =>
  `postgres://${login}:${password}@127.0.0.1:${port}/${name}?sslmode=disable`;

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

/** Database, schema and logins; skipped when this version has done it before. */
async function prepare(port: number, passwords: Passwords): Promise<void> {
  const marker = join(run, `prepared-${SCHEMA_VERSION}`);
  if (existsSync(marker)) return;
  const server = connect(port, passwords[OWNER], "postgres");
  const [existing] = await server.query("select from pg_catalog.pg_database where datname = $1", [
    DATABASE,
  ]);
  if (existing === undefined) await server.query(`create database ${DATABASE}`);
  await server.close();
  const database = connect(port, passwords[OWNER], DATABASE);
  await migrate(database);
  for (const [login, role] of Object.entries(LOGINS)) {
    const [known] = await database.query("select from pg_catalog.pg_roles where rolname = $1", [
      login,
    ]);
    if (known === undefined) {
      const password = passwords[login as keyof typeof LOGINS];
      await database.query(`create role ${login} login in role ${role} password '${password}'`);
    }
  }
  await database.close();
  writeFileSync(marker, "");
}

type QueueState = {
  readonly pid: number;
  readonly endpoint: string;
  readonly url: string;
  readonly sent: readonly (readonly [number, string])[];
};

const queueFile = join(run, "queue.json");

function readQueue(): QueueState | null {
  try {
    return JSON.parse(readFileSync(queueFile, "utf8")) as QueueState;
  } catch {
    return null;
  }
}

/** The queue that another command runs, or a new one with the sample messages that have no row yet. */
async function shareQueue(port: number, password: string, alone: boolean): Promise<QueueState> {
  const running = readQueue();
  if (!alone && running !== null) return running;
  await stopQueue();
  const idsFile = join(home, "sample.json");
  const ids: Record<string, string[]> = existsSync(idsFile)
    ? JSON.parse(readFileSync(idsFile, "utf8"))
    : {};
  const stored = await storedIds(port, password, alone);
  const pending = sampleBodies()
    .map((_, index) => index)
    .filter((index) => !(ids[index] ?? []).some((id) => stored.has(id)));
  const queue = await startQueue(pending);
  // Before the first of them can be received.
  for (const [index, id] of queue.sent) ids[index] = [...(ids[index] ?? []), id];
  writeFileSync(`${idsFile}.new`, JSON.stringify(ids));
  renameSync(`${idsFile}.new`, idsFile);
  return queue;
}

async function storedIds(port: number, password: string, alone: boolean): Promise<Set<string>> {
  const database = connect(port, password, DATABASE);
  if (alone) {
    // What a killed command had under way either commits now or never.
    await database.query(
      "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'veil'",
    );
  }
  const rows = await database.query("select message_id from etl.ledger");
  await database.close();
  return new Set(rows.map((row) => String(row.message_id)));
}

async function startQueue(pending: readonly number[]): Promise<QueueState> {
  const script = fileURLToPath(new URL("./queue-server.ts", import.meta.url));
  const log = openSync(join(run, "queue.log"), "w", 0o600);
  const deno = "deno" in process.versions ? ["run", "--allow-all"] : [];
  const server = spawn(process.execPath, [...deno, script, run, ...pending.map(String)], {
    cwd: checkout,
    detached: true,
    stdio: ["ignore", log, log],
    env: { PATH: "/usr/bin:/bin" },
  });
  let ended = false;
  server.once("error", () => (ended = true));
  server.once("exit", () => (ended = true));
  server.unref();
  for (let waited = 0; waited < 30_000 && !ended; waited += 25) {
    const queue = readQueue();
    if (queue !== null) return queue;
    await sleep(25);
  }
  throw failed(
    `the local queue did not start; its log is ${join(run, "queue.log")}`,
    "bun run etl --reset-local starts over; or set QUEUE_URL and DATABASE_URL",
  );
}

async function stopQueue(): Promise<void> {
  const queue = readQueue();
  rmSync(queueFile, { force: true });
  if (queue === null || !(await answers(queue.endpoint))) return;
  try {
    process.kill(queue.pid, "SIGTERM");
    for (let waited = 0; waited < 3000; waited += 20) {
      process.kill(queue.pid, 0);
      await sleep(20);
    }
    process.kill(queue.pid, "SIGKILL");
  } catch {
    // It is gone.
  }
}

/** Whether our server listens there: after a reboot its process id may belong to anybody. */
async function answers(endpoint: string): Promise<boolean> {
  try {
    return (await fetch(`${endpoint}/health`, { signal: AbortSignal.timeout(1000) })).ok;
  } catch {
    return false;
  }
}

async function reset(alone: boolean): Promise<void> {
  if (!alone) {
    throw failed(
      "another command is using the local database and queue",
      "let it finish, then run --reset-local again",
    );
  }
  await stopQueue();
  const cluster = existsSync(join(home, "postgres")) ? await placeCluster() : null;
  if (cluster !== null && runningPort(cluster) !== null) stopCluster(cluster, "immediate");
  const link = join(home, "postgres");
  if (isLink(link)) rmSync(dirname(readlinkSync(link)), { recursive: true, force: true });
  for (const name of ["postgres", "keys", "sample.json"]) {
    rmSync(join(home, name), { recursive: true, force: true });
  }
  rmSync(join(run, `prepared-${SCHEMA_VERSION}`), { force: true });
}
