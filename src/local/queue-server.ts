// The queue of the embedded default, a process of its own: a real SQS protocol server (fauxqs). It
// is started as `queue-server.ts FOLDER NAME INDEX…` and filled with the sample messages of these
// numbers. FOLDER/NAME then says where it listens, and which message has which id. It ends on
// SIGTERM, or when no command is present any more.
//
// Its messages live in memory: with fauxqs 2.4.1's own persistence, ChangeMessageVisibility to 0
// fails and loses the message.
import { readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startFauxqs } from "fauxqs";
import { watchLease } from "./lease.ts";
import { stopLocalDatabase } from "./local-database.ts";
import { sampleBodies } from "./sample.ts";

const QUEUE = "login-queue";
const [folder = ".", name = "queue.json", ...indexes] = process.argv.slice(2);
const file = join(folder, name);

// All commands were killed: nobody else would stop this server or the database.
watchLease(folder, async () => {
  for (const left of readdirSync(folder)) {
    if (/^queue.*\.json/.test(left)) rmSync(join(folder, left), { force: true });
  }
  await stopLocalDatabase();
  process.exit(0);
});

const server = await startFauxqs({ port: 0, logger: false, host: "localhost" });
const { queueUrl } = server.createQueue(QUEUE);
const bodies = sampleBodies();
const sent = indexes.map((index) => {
  const { messageId } = server.sendMessage(QUEUE, bodies[Number(index)] ?? "");
  return [Number(index), messageId];
});
// Written beside and renamed, so that nobody reads half of it.
const state = { pid: process.pid, endpoint: server.address, url: queueUrl, sent };
writeFileSync(`${file}.new`, JSON.stringify(state), { mode: 0o600 });
renameSync(`${file}.new`, file);

process.on("SIGTERM", () => server.stop().finally(() => process.exit(0)));
process.on("SIGINT", () => {});
