// The servers that the tests run on: a PostgreSQL and an SQS, started when first asked for, on free ports, in
// a temporary folder, and gone at the end. Preloaded by bunfig.toml, once for each test file.
//
// `bun run test` starts the PostgreSQL for all files; a file that is run alone starts its own.
import { afterAll, setDefaultTimeout } from "bun:test";
import { randomBytes } from "node:crypto";
import { type FauxqsServer, startFauxqs } from "fauxqs";
import { makeOwnFolder } from "./own-folder.ts";
import { type ScratchCluster, startScratchCluster } from "./scratch-cluster.ts";
import { packageName, SHARED_SERVER, startTestServer, type TestServer } from "./test-server.ts";

/** False where TEST_DATABASE_URL names the server: its roles are shared. */
export const hasOwnServer = !process.env.TEST_DATABASE_URL;

// Bun allows five seconds: a busy machine is no failure.
setDefaultTimeout(300_000);

const cleanups: (() => void | Promise<void>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

// Whatever a test leaves behind in a temporary folder is gone as well. A whole run has its folder already.
if (!process.env[SHARED_SERVER]) {
  const folder = makeOwnFolder("test");
  process.env.TMPDIR = folder.path;
  cleanups.push(folder.remove);
}

let postgresServer: Promise<TestServer> | null = null;
let sqsServer: Promise<FauxqsServer> | null = null;

/** For all tests; a test that crashes one, or changes its settings, takes `startOwnCluster`. */
export function usePostgres(): Promise<TestServer> {
  postgresServer ??= findPostgres();
  return postgresServer;
}

async function findPostgres(): Promise<TestServer> {
  const shared = process.env[SHARED_SERVER];
  if (shared) return JSON.parse(shared) as TestServer;
  const { stop, ...server } = await startTestServer();
  cleanups.push(stop);
  return server;
}

/**
 * One more PostgreSQL of the version that the run is about, for a test that needs other settings, none of
 * veil's roles, or a server to crash; stopped at the end of the run.
 */
export async function startOwnCluster(
  settings: Readonly<Record<string, string>> = {},
): Promise<ScratchCluster> {
  const started = await startScratchCluster("test", settings, packageName());
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
