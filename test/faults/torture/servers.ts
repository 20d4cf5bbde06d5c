// What a run stands on: a PostgreSQL and an SQS of its own, each in processes of its own, a database that
// veil itself has migrated, logins and keys. All of it is gone when the process ends, however it ends.
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { makeKeys, type TestKeys } from "../../support/keys.ts";
import { SCRATCH_PASSWORD, startScratchCluster } from "../../support/scratch-cluster.ts";

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
  /** A superuser's, to look with. */
  readonly sql: postgres.Sql;
  /** One more, with settings of its own. */
  readonly connect: (options?: postgres.Options<Record<string, never>>) => postgres.Sql;
  readonly queue: { readonly address: string; readonly url: string };
  readonly keys: TestKeys;
  readonly folder: string;
  /** Stops the database in the middle of what it does, and starts it again on the same port. */
  readonly restartDatabase: () => Promise<void>;
  /**
   * A superuser's statements, in one transaction, to strike with. A restart by another strike may end them:
   * that is no failure of theirs.
   */
  readonly strike: (statements: string) => Promise<void>;
  readonly stop: () => void;
};

export async function startServers(options: ServersOptions): Promise<Servers> {
  const undo: (() => void)[] = [];
  const stop = () => {
    for (const step of undo.splice(0).reverse()) step();
    process.removeListener("exit", stop);
  };
  // Everything in it is synchronous, for this.
  process.on("exit", stop);
  const database = await startScratchCluster("faults", {
    max_connections: "200",
    max_wal_size: "4GB",
    autovacuum_naptime: "5s",
  });
  undo.push(database.stop);
  const clients: postgres.Sql[] = [];
  const connect: Servers["connect"] = (extra = {}) => {
    const client = postgres(database.url, { max: 1, onnotice: () => {}, ...extra });
    clients.push(client);
    return client;
  };
  undo.push(() => {
    for (const client of clients) void client.end({ timeout: 0 }).catch(() => {});
  });
  migrate(options.program, database.url);
  const sql = connect({ max: 2 });
  await sql.unsafe(`create role faults_etl login password '${SCRATCH_PASSWORD}' in role veil_etl`);
  let restarts = 0;
  let restarted = Promise.resolve();
  return {
    databasePort: database.port,
    etlUrl: database.urlOf("faults_etl"),
    etlLogin: "faults_etl",
    sql,
    connect,
    queue: await startSqs(options.visibilitySeconds, undo),
    keys: await makeKeys(),
    folder: database.folder,
    restartDatabase: () => {
      restarts++;
      const done = database.restart("immediate");
      restarted = done.catch(() => {});
      return done;
    },
    strike: async (statements) => {
      await restarted;
      const before = restarts;
      // One message on a connection of its own. The driver's `begin` would write its rollback to a connection
      // that is gone: nobody can catch what that throws, and the connection is of no use any more (3.4.9).
      const client = postgres(database.url, { max: 1, fetch_types: false, onnotice: () => {} });
      try {
        await client.unsafe(statements);
      } catch (error) {
        if (restarts === before) throw error;
      } finally {
        await client.end({ timeout: 0 });
      }
    },
    stop,
  };
}

function migrate(program: readonly string[], ownerUrl: string): void {
  // A period a day: the messages are of the moments around four midnights, so loads and redeliveries span periods.
  const { exitCode, stderr } = Bun.spawnSync([...program, "migrate", "--period", "day"], {
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
