// Run by fast-calls.test.ts under Deno: the hot calls by the SDK's client and by fetch, to the
// server whose address it is given.
import process from "node:process";
import { SQSClient } from "@aws-sdk/client-sqs";
import { openFastCalls } from "../../src/sqs/fast-calls.ts";
import { byFetch, bySdk, calls, SESSION } from "../support/sqs-calls.ts";

const endpoint = process.argv[2] ?? "";
const client = new SQSClient({ endpoint, region: "us-east-1", credentials: SESSION });
const fast = openFastCalls(client);
for (const call of Object.values(calls("http://sqs.example/000000000000/logins"))) {
  await bySdk(client, call);
  const answer = await byFetch(fast, call);
  console.log(JSON.stringify(answer));
}
client.destroy();
