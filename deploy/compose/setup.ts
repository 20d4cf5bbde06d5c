// What docker-compose.yml's `setup` does before veil runs: keys, schema, a login, and the sample messages.
// Safe to run again: what is there stays, and only an empty database gets the samples.
import { chownSync, copyFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";
import { readDatabase as databaseConfig } from "../../src/config/database-url.ts";
import { type Environment, environment } from "../../src/config/environment.ts";
import { readQueue as queueConfig } from "../../src/config/queue-url.ts";
import { Failure } from "../../src/failure.ts";
import { ensureKeyFiles, KEY_FILES } from "../../src/keys/files.ts";
import { sampleBodies } from "../../src/local/sample.ts";
import { openDatabase } from "../../src/postgres/database.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { reaching } from "../../src/postgres/schema.ts";
import { openQueue } from "../../src/sqs/queue.ts";

/** The user of the image that veil runs in. */
const CONTAINER_USER = 65532;

/** For the host, whoever owns the folder; for veil's container only what an ETL host needs. */
async function makeKeys(env: Environment): Promise<void> {
  const keys = env.KEYS ?? "deploy/compose/keys";
  await ensureKeyFiles(keys);
  const { uid, gid } = statSync(keys);
  if (process.getuid?.() === 0) for (const name of KEY_FILES) chownSync(join(keys, name), uid, gid);
  const container = env.CONTAINER_KEYS;
  if (!container) return;
  for (const name of ["token.key", "recipients.txt"]) {
    copyFileSync(join(keys, name), join(container, name));
    chownSync(join(container, name), CONTAINER_USER, CONTAINER_USER);
  }
}

/** Whether the database has never stored a message. */
async function prepareDatabase(env: Environment): Promise<boolean> {
  const database = openDatabase(databaseConfig(env));
  try {
    await reaching(() => database.query("select"));
    await migrate(database);
    const [login] = await database.query(
      "select from pg_catalog.pg_roles where rolname = 'compose'",
    );
    if (login === undefined) {
      await database.query(
        "create role compose login password 'compose' " +
          "in role veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor, " +
          "veil_policy, veil_approver, veil_breakglass, veil_eraser",
      );
    }
    const [stored] = await database.query("select from etl.ledger limit 1");
    return stored === undefined;
  } finally {
    await database.close();
  }
}

async function sendSamples(env: Environment): Promise<number> {
  const config = queueConfig(env);
  const opened = await openQueue(config);
  const { waiting, inFlight } = await opened.depth();
  opened.close();
  if (waiting + inFlight > 0) return 0; // sent before, and not drained yet
  const { queue, endpoint } = config;
  const client = new SQSClient({ ...(endpoint === null ? {} : { endpoint }) });
  const bodies = sampleBodies();
  for (let i = 0; i < bodies.length; i += 10) {
    const Entries = bodies
      .slice(i, i + 10)
      .map((MessageBody, n) => ({ Id: String(n), MessageBody }));
    await client.send(new SendMessageBatchCommand({ QueueUrl: queue, Entries }));
  }
  client.destroy();
  return bodies.length;
}

try {
  const env = environment();
  await makeKeys(env);
  if (await prepareDatabase(env)) {
    process.stdout.write(`${await sendSamples(env)} sample messages sent\n`);
  }
} catch (error) {
  const known = error instanceof Failure;
  process.stderr.write(`error: ${known ? error.message : `unexpected ${(error as Error).name}`}\n`);
  process.stderr.write(`hint: ${(known ? error.hint : null) ?? "docker compose logs has more"}\n`);
  process.exit(1);
}
