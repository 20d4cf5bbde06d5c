// What docker-compose.yml's `setup` does before veil runs: keys, schema, a login, and the sample messages.
// Safe to run again: what is there stays, and only an empty database gets the samples.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";
import { database as databaseConfig, environment, queue as queueConfig } from "../../src/config.ts";
import { openDatabase } from "../../src/database.ts";
import { writeKeyFiles } from "../../src/key-files.ts";
import { sampleBodies } from "../../src/local/sample.ts";
import { migrate } from "../../src/migrate.ts";
import { reaching } from "../../src/schema.ts";

const env = environment();
const keys = env.KEYS ?? ".compose/keys";
if (!existsSync(join(keys, "recipients.txt"))) await writeKeyFiles(keys, "classic");

const database = openDatabase(databaseConfig(env));
await reaching(() => database.query("select"));
await migrate(database);
const [login] = await database.query("select from pg_roles where rolname = 'compose'");
if (login === undefined) {
  await database.query(
    "create role compose login password 'compose' " +
      "in role veil_etl, veil_analyst, veil_revealer, veil_operator",
  );
}
const [stored] = await database.query("select from etl.ledger limit 1");
await database.close();

if (stored === undefined) {
  const { queue, endpoint } = queueConfig(env);
  const client = new SQSClient({ ...(endpoint === null ? {} : { endpoint }) });
  const bodies = sampleBodies();
  for (let i = 0; i < bodies.length; i += 10) {
    const Entries = bodies
      .slice(i, i + 10)
      .map((MessageBody, n) => ({ Id: String(n), MessageBody }));
    await client.send(new SendMessageBatchCommand({ QueueUrl: queue, Entries }));
  }
  client.destroy();
  process.stdout.write(`${bodies.length} sample messages are in the queue\n`);
}
