// What the benchmarks run on: one PostgreSQL and one queue server, each in processes of their own, keys,
// and a fresh database for every run. All of it is gone when the process ends, however it ends.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { makeKeys, type TestKeys } from "../test/support/keys.ts";
import { SCRATCH_PASSWORD, startScratchCluster } from "../test/support/scratch-cluster.ts";
import { type BenchQueue, startQueue } from "./queue.ts";

/** Everything else is PostgreSQL's default, `fsync` and `synchronous_commit` among it. */
export const SETTINGS = {
  // No run pays for a checkpoint that another one has earned.
  max_wal_size: "8GB",
  checkpoint_timeout: "60min",
  // Says when a row was committed.
  track_commit_timestamp: "on",
};

/** What a database holds at first: the plain table, veil's schema, or that with originals, or years, in it. */
export type Template = "bare" | "veil" | "vault" | "history";

export type Servers = {
  readonly queue: BenchQueue;
  readonly keys: TestKeys;
  readonly postmaster: number;
  /** A superuser's. The caller ends it. */
  readonly connect: (database: string) => postgres.Sql;
  /** Of a login that owns nothing: a member of veil_etl, and of nothing else. */
  readonly etlUrl: (database: string) => string;
  readonly superuserUrl: (database: string) => string;
  /** A new database, named. */
  readonly copy: (template: Template) => Promise<string>;
  readonly stop: () => void;
};

export const veil = (...argv: string[]): string[] => [
  ...[process.execPath, "--no-env-file"],
  ...[fileURLToPath(new URL("../src/cli.ts", import.meta.url)), ...argv],
];

/** `settings`: further ones of PostgreSQL's, by name. */
export async function startServers(
  settings: Readonly<Record<string, string>> = {},
): Promise<Servers> {
  const undo: (() => void)[] = [];
  // Everything in it is synchronous, for this.
  const stop = () => {
    for (const step of undo.splice(0).reverse()) step();
    process.removeListener("exit", stop);
  };
  process.on("exit", stop);
  const {
    cluster,
    urlOf,
    stop: stopDatabase,
  } = await startScratchCluster("bench", {
    ...SETTINGS,
    ...settings,
  });
  undo.push(stopDatabase);
  const url = (login: string) => (database: string) => urlOf(login, database);
  const superuserUrl = url("postgres");
  const connect = (database: string) =>
    postgres(superuserUrl(database), { max: 1, onnotice: () => {} });
  await prepare(connect, superuserUrl);
  const queue = await startQueue();
  undo.push(queue.stop);
  let copies = 0;
  return {
    ...{ queue, connect, superuserUrl, stop, etlUrl: url("bench_etl") },
    keys: await makeKeys(),
    postmaster: Number(readFileSync(join(cluster.data, "postmaster.pid"), "utf8").split("\n")[0]),
    copy: async (template) => {
      // Those that hold something are large and stay warm: runs share them.
      if (template === "vault" || template === "history") return template;
      const name = `run_${++copies}`;
      // Not dropped before the end: dropping one forces a checkpoint, which the next run would pay for.
      await withConnection(connect("postgres"), (sql) =>
        sql.unsafe(`create database ${name} template ${template}`),
      );
      return name;
    },
  };
}

async function prepare(
  connect: Servers["connect"],
  superuserUrl: Servers["superuserUrl"],
): Promise<void> {
  await withConnection(connect("postgres"), async (sql) => {
    for (const name of ["bare", "veil"]) await sql.unsafe(`create database ${name}`);
  });
  await withConnection(connect("bare"), (sql) =>
    sql.unsafe(
      `create table public.user_logins (
        user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
        masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)`,
    ),
  );
  const { exitCode, stderr } = Bun.spawnSync(veil("migrate"), {
    cwd: "/",
    env: { PATH: process.env.PATH ?? "", HOME: "/", DATABASE_URL: superuserUrl("veil") },
    stdout: "ignore",
  });
  if (exitCode !== 0) throw new Error(`veil migrate failed: ${stderr.toString()}`);
  await withConnection(connect("veil"), async (sql) => {
    await sql.unsafe("select from etl.housekeep()");
    await sql.unsafe(`create role bench_etl login password '${SCRATCH_PASSWORD}' in role veil_etl`);
  });
}

/** What `work` makes of the connection, which is ended after it. */
export async function withConnection<T>(
  sql: postgres.Sql,
  work: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  try {
    return await work(sql);
  } finally {
    await sql.end();
  }
}
