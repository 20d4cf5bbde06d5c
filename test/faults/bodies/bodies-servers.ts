// A PostgreSQL and an SQS of a run's own, usable outside of the test runner too; both gone after `stop`.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { SCRATCH_PASSWORD, startScratchCluster } from "../../support/scratch-cluster.ts";
import { veil } from "../../support/veil.ts";

export type Servers = {
  /** A superuser's, on a migrated database. */
  readonly sql: postgres.Sql;
  /** Of a login that is a member of veil_etl and of nothing else. */
  readonly etlUrl: string;
  readonly queue: { readonly address: string; readonly queueUrl: string };
  /** What the database complained of since it started. */
  readonly complaints: () => readonly string[];
  /** One more thing to be done by `stop`, before the servers go. */
  readonly onStop: (step: () => unknown) => void;
  readonly stop: () => Promise<void>;
};

export async function startServers(): Promise<Servers> {
  const undo: (() => unknown)[] = [];
  const stop = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const database = await startScratchCluster("bodies", {
      max_connections: "40",
      max_wal_size: "4GB",
    });
    undo.push(database.stop);
    const migrated = await veil(["migrate"], { env: { DATABASE_URL: database.url } });
    if (migrated.code !== 0) throw new Error(`the migration failed: ${migrated.stderr}`);
    const sql = postgres(database.url, { max: 2, onnotice: () => {} });
    undo.push(() => sql.end({ timeout: 1 }));
    await sql.unsafe(
      `create role hostile_etl login password '${SCRATCH_PASSWORD}' in role veil_etl`,
    );
    const queue = await startSqs(undo);
    return {
      sql,
      etlUrl: database.urlOf("hostile_etl"),
      queue,
      complaints: () =>
        readFileSync(database.cluster.log, "utf8")
          .split("\n")
          .filter((line) => /\b(ERROR|FATAL|PANIC|terminated by signal)\b/.test(line)),
      onStop: (step) => undo.push(step),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startSqs(undo: (() => unknown)[]): Promise<Servers["queue"]> {
  const program = fileURLToPath(new URL("./bodies-sqs.ts", import.meta.url));
  const child = Bun.spawn([process.execPath, "--no-env-file", program], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  undo.push(async () => {
    child.stdin.end();
    await child.exited;
  });
  const { value } = await child.stdout.getReader().read();
  if (value === undefined) throw new Error("the SQS server did not start");
  return JSON.parse(new TextDecoder().decode(value)) as Servers["queue"];
}
