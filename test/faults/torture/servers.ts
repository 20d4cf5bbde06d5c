// What a run stands on: a PostgreSQL and an SQS of its own, each in processes of its own, a database that
// veil itself has migrated, logins and keys. All of it is gone when the process ends, however it ends.
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import {
  type Cluster,
  findBinaries,
  initCluster,
  serverAccount,
  startCluster,
  stopCluster,
} from "../../../src/local/cluster.ts";
import { makeKeys, type TestKeys } from "../../support/keys.ts";

const PASSWORD = "faults";

export type ServersOptions = {
  /** What runs veil: a compiled binary, or Bun and the command line's file. */
  readonly program: readonly string[];
  readonly visibilitySeconds: number;
};

export type Servers = {
  readonly databasePort: number;
  /** Of a login that is a member of veil_etl and of nothing else. */
  readonly etlUrl: string;
  readonly etlLogin: string;
  /** A superuser's, to look and to strike with. */
  readonly sql: postgres.Sql;
  /** One more, with settings of its own. */
  readonly connect: (options?: postgres.Options<Record<string, never>>) => postgres.Sql;
  readonly queue: { readonly address: string; readonly url: string };
  readonly keys: TestKeys;
  readonly folder: string;
  readonly serverLog: string;
  /** Stops the database in the middle of what it does, and starts it again on the same port. */
  readonly restartDatabase: () => Promise<void>;
  readonly stop: () => void;
};

export async function startServers(options: ServersOptions): Promise<Servers> {
  const folder = mkdtempSync(join(tmpdir(), "veil-faults-"));
  const undo: (() => void)[] = [() => rmSync(folder, { recursive: true, force: true })];
  const stop = () => {
    for (const step of undo.splice(0).reverse()) step();
    process.removeListener("exit", stop);
  };
  // Everything in it is synchronous, for this.
  process.on("exit", stop);
  chmodSync(folder, 0o777);
  const cluster: Cluster = {
    binaries: await findBinaries(),
    data: join(folder, "data"),
    log: join(folder, "server.log"),
    account: serverAccount(),
  };
  initCluster(cluster, PASSWORD);
  const settings = {
    max_connections: "200",
    max_wal_size: "4GB",
    autovacuum_naptime: "5s",
  };
  undo.push(() => stopCluster(cluster, "immediate"));
  const databasePort = await startCluster(cluster, settings);
  const url = (user: string) => `postgres://${user}:${PASSWORD}@127.0.0.1:${databasePort}/postgres`;
  const clients: postgres.Sql[] = [];
  const connect: Servers["connect"] = (extra = {}) => {
    const client = postgres(url("postgres"), { max: 1, onnotice: () => {}, ...extra });
    clients.push(client);
    return client;
  };
  undo.push(() => {
    for (const client of clients) void client.end({ timeout: 0 }).catch(() => {});
  });
  migrate(options.program, url("postgres"));
  const sql = connect({ max: 2 });
  await sql.unsafe(`create role faults_etl login password '${PASSWORD}' in role veil_etl`);
  return {
    databasePort,
    etlUrl: url("faults_etl"),
    etlLogin: "faults_etl",
    sql,
    connect,
    queue: await startSqs(options.visibilitySeconds, undo),
    keys: await makeKeys(),
    folder,
    serverLog: cluster.log,
    restartDatabase: () => restart(cluster, { ...settings, port: String(databasePort) }),
    stop,
  };
}

function migrate(program: readonly string[], ownerUrl: string): void {
  const { exitCode, stderr } = Bun.spawnSync([...program, "migrate"], {
    cwd: "/",
    env: { PATH: process.env.PATH ?? "", HOME: "/", DATABASE_URL: ownerUrl },
    stdout: "ignore",
  });
  if (exitCode !== 0) throw new Error(`veil migrate failed: ${stderr.toString()}`);
}

async function startSqs(visibilitySeconds: number, undo: (() => void)[]) {
  const script = fileURLToPath(new URL("./sqs-process.ts", import.meta.url));
  const child = Bun.spawn([process.execPath, "--no-env-file", script, String(visibilitySeconds)], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  undo.push(() => child.kill("SIGKILL"));
  const { value } = await child.stdout.getReader().read();
  if (value === undefined) throw new Error("the SQS server did not start");
  return JSON.parse(new TextDecoder().decode(value)) as Servers["queue"];
}

/** Not by the cluster's own functions: those wait, and the proxies live in this process. */
function restart(cluster: Cluster, settings: Readonly<Record<string, string>>): Promise<void> {
  const all = { listen_addresses: "127.0.0.1", unix_socket_directories: "", ...settings };
  const options = Object.entries(all).map(([name, value]) => `-c ${name}='${value}'`);
  const child = spawn(
    join(cluster.binaries, "pg_ctl"),
    [
      ...["restart", "--wait", "--silent", "--mode", "immediate", "--pgdata", cluster.data],
      ...["--log", cluster.log, "--options", options.join(" ")],
    ],
    {
      cwd: "/",
      stdio: "ignore",
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", TZ: "UTC" },
      ...(cluster.account ?? {}),
    },
  );
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) =>
      code === 0 ? resolve() : reject(new Error(`PostgreSQL did not restart (${code})`)),
    );
  });
}
