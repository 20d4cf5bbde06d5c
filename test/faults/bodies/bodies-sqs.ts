// The SQS server of a run of hostile bodies, a process of its own: says in one line of JSON where it
// listens, and ends with its standard input, so that it cannot outlive the run.
import { startFauxqs } from "fauxqs";

const server = await startFauxqs({ port: 0, logger: false, host: "localhost" });
const { queueUrl } = server.createQueue("hostile-bodies");
process.stdout.write(`${JSON.stringify({ address: server.address, queueUrl })}\n`);
for await (const _ of Bun.stdin.stream()) {
  // Nothing is said to it.
}
await server.stop();
process.exit(0);
