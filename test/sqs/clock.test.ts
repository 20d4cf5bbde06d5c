// A clock that is wrong, and one that is set right while veil runs: calls go on, whichever transport they
// take. SQS refuses what was signed more than five minutes from its own time, and says what time that is.
import { afterEach, expect, test } from "bun:test";
import { openQueue } from "../../src/sqs/queue.ts";
import { skewRefusal } from "../faults/proxies/sqs-faults.ts";
import * as server from "../support/recorder.ts";
import { CREDENTIALS } from "../support/sqs-calls.ts";

const never = new AbortController().signal;
afterEach(() => server.stopRecorders());

const HOUR = 3_600_000;
const message = { id: "id", body: "{}", sentAt: new Date(0), receipt: "receipt" };

async function openAt(offset: () => number) {
  const sqs = await server.record((response, { headers }) => {
    const now = Date.now() + offset();
    const refusal = skewRefusal(headers["x-amz-date"], now);
    response.writeHead(refusal?.status ?? 200, {
      ...refusal?.headers,
      date: new Date(now).toUTCString(),
    });
    const done = { Successful: [{ Id: "0" }], Attributes: { VisibilityTimeout: "30" } };
    response.end(refusal?.body ?? JSON.stringify(done));
  });
  return openQueue({
    queue: `${sqs.url}/000000000000/logins`,
    endpoint: sqs.url,
    region: "us-east-1",
    credentials: CREDENTIALS,
  });
}

for (const hours of [1, -1]) {
  test(`a clock that is set right by ${hours} h, and back, costs no call`, async () => {
    let offset = 0;
    const queue = await openAt(() => offset);
    for (const now of [0, hours * HOUR, 0, hours * HOUR]) {
      offset = now;
      // Of several calls at a time, one teaches the client its server's clock.
      await Promise.all([1, 2, 3].map(() => queue.receive(10, 0, never)));
      expect(await queue.acknowledge([message], never)).toMatchObject({
        done: [message],
        failure: null,
      });
      expect(await queue.hide([message], 30, never)).toMatchObject({ done: [message] });
    }
    queue.close();
  });
}

test("a server that takes no time for right is told of, after one more attempt", async () => {
  let asked = 0;
  const queue = await openAt(() => (asked++ === 0 ? 0 : asked * HOUR));
  const before = asked;
  await expect(queue.receive(10, 0, never)).rejects.toThrow(/answered 403 \(InvalidSignature/);
  expect(asked - before).toBeLessThan(12);
  queue.close();
});
