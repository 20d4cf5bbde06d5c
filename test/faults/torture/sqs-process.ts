// An SQS server in a process of its own: `sqs-process.ts VISIBILITY_SECONDS` says on stdout where it and its
// queue are, and ends when its stdin does, so that it outlives nobody.
import { startFauxqs } from "fauxqs";

const [visibility = "30"] = process.argv.slice(2);
const server = await startFauxqs({ port: 0, logger: false, host: "localhost" });
const { queueUrl } = server.createQueue("logins", {
  attributes: { VisibilityTimeout: visibility },
});
process.stdout.write(`${JSON.stringify({ address: server.address, url: queueUrl })}\n`);
for await (const _ of process.stdin);
await server.stop();
process.exit(0);
