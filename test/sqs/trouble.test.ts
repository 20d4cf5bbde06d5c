// What becomes of a hot call whose lean transport is refused, damaged, cut off or not answered: one
// request, and then the SDK's client as it always was; nothing confidential in what is thrown.
import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { createHash } from "node:crypto";
import { SQSClient } from "@aws-sdk/client-sqs";
import { Failure } from "../../src/failure.ts";
import { openFastCalls } from "../../src/sqs/fast-calls.ts";
import { openQueue } from "../../src/sqs/queue.ts";
import { advance, endClock, startClock } from "../support/fake-clock.ts";
import * as server from "../support/recorder.ts";
import { byFetch, bySdk, calls, SESSION } from "../support/sqs-calls.ts";

const never = new AbortController().signal;
const restores: (() => void)[] = [];
afterEach(async () => {
  for (const restore of restores.splice(0).reverse()) restore();
  await server.stopRecorders();
});

const CANARY = "kanarienvogel";
const QUEUE_URL = `http://sqs.example/000000000000/${CANARY}`;
const { receive: RECEIVE, remove: DELETE } = calls(QUEUE_URL);
const RECEIPTS = DELETE[1].Entries?.map(({ ReceiptHandle }) => ReceiptHandle ?? CANARY) ?? [];
const SECRETS = [CANARY, ...Object.values(SESSION), ...RECEIPTS];

/** Nothing confidential in it, in whatever way it is looked at. */
function expectHarmless(error: unknown): void {
  const said = `${Bun.inspect(error, { depth: 20 })}${JSON.stringify(error)}`;
  const { message, stack, cause } = error as Error;
  for (const secret of SECRETS) {
    for (const text of [said, message, stack, Bun.inspect(cause)])
      expect(text).not.toContain(secret);
  }
}

/** Fast calls whose client has asked once, and a server that then answers as told. */
async function open(reply: server.Reply, maxAttempts = 1) {
  const sqs = await server.record((response, request, index) =>
    (index === 0 ? server.answer(200, "{}") : reply)(response, request, index),
  );
  const client = new SQSClient({
    endpoint: sqs.url,
    region: "us-east-1",
    credentials: SESSION,
    maxAttempts,
  });
  restores.push(() => client.destroy());
  const fast = openFastCalls(client);
  await bySdk(client, DELETE);
  return { sqs, client, fast };
}

const isLean = ({ headers }: server.Recorded) => headers["amz-sdk-request"] === undefined;
const delivery = (body: string, md5 = createHash("md5").update(body).digest("hex")) => ({
  MessageId: "id",
  Body: body,
  MD5OfBody: md5,
  ReceiptHandle: `receipt-${CANARY}`,
  Attributes: { SentTimestamp: "1700000000123" },
});
const messages = (...all: object[]) => server.answer(200, JSON.stringify({ Messages: all }));
const cutOff =
  (part: string): server.Reply =>
  (response) => {
    response.writeHead(200, { "content-length": "1000" });
    response.write(part, () => response.destroy());
  };

describe("an answer that only the client can use is left to it, after one request", () => {
  const replies: Readonly<Record<string, server.Reply>> = {
    ...Object.fromEntries(
      [201, 204, 400, 401, 403, 404, 413, 429, 500, 502, 503, 504].map((status) => [
        `status ${status}`,
        server.refusal(status, "ThrottlingException", CANARY),
      ]),
    ),
    "no JSON": server.answer(200, `{"Messages":[{"Body":"${CANARY}`),
    "an empty answer": server.answer(200, ""),
    "a page": server.answer(200, "<html>", { "content-type": "text/html" }),
    "a reset before": (response) => void response.destroy(),
    "a reset in the middle": cutOff(`{"Messages":[{"Body":"${CANARY}`),
    "a damaged message": messages(delivery("{}"), delivery(CANARY, "0".repeat(32))),
    "a message without its sum": messages({ MessageId: "id", Body: CANARY }),
    "a message without a body": messages({ MessageId: "id", MD5OfBody: "0".repeat(32) }),
  };
  for (const [name, reply] of Object.entries(replies)) {
    test(name, async () => {
      const { sqs, fast } = await open(reply);
      expect(await byFetch(fast, RECEIVE)).toBeNull();
      expect(sqs.requests).toHaveLength(2);
    });
  }

  test("bodies of any script are checked by their bytes", async () => {
    const bodies = ["", "ä € 😀", "\u0000", " ".repeat(262_144), "\ufeff{}"];
    const all = bodies.map((body) => delivery(body));
    const { fast } = await open(messages(...all));
    expect(await byFetch(fast, RECEIVE)).toEqual({ Messages: all });
  });
});

/** The queue that veil opens, at a server that then answers as told. */
async function openWhole(reply: server.Reply) {
  const sqs = await server.record((response, request, index) =>
    (index === 0 ? server.answer(200, '{"Attributes":{}}') : reply)(response, request, index - 1),
  );
  const { accessKeyId, secretAccessKey } = SESSION;
  const credentials = { accessKeyId, secretAccessKey };
  const settings = { queue: QUEUE_URL, endpoint: sqs.url, region: "us-east-1", credentials };
  const queue = await openQueue(settings);
  restores.push(queue.close);
  const lean = () => sqs.requests.slice(1).map(isLean);
  return { sqs, queue, lean };
}

const failureOf = async (work: Promise<unknown>): Promise<Failure> => {
  const error: unknown = await work.then(
    () => "no failure",
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(Failure);
  expectHarmless(error);
  return error as Failure;
};

describe("an open queue", () => {
  const attempts = [true, false, false, false];
  for (const [status, type, requests] of [
    [400, "QueueDoesNotExist", [true, false]],
    [403, "AccessDenied", [true, false]],
    [400, "RequestThrottled", attempts],
    [500, "InternalFailure", attempts],
    [503, "ServiceUnavailable", attempts],
  ] as const) {
    test(`that says ${type} is asked ${requests.length} times, as the client is told to`, async () => {
      const { queue, lean } = await openWhole(server.refusal(status, type, CANARY));
      const failure = await failureOf(queue.receive(10, 0, never));
      expect(failure.message).toContain(
        type === "QueueDoesNotExist" ? "the queue does not exist" : `answered ${status} (${type})`,
      );
      expect(lean()).toEqual([...requests]);
    });
  }

  test("whose answer was damaged once gives what comes next; always: says so", async () => {
    const damaged = messages(delivery(CANARY, "0".repeat(32)));
    const once = await openWhole((...given) =>
      (given[2] === 0 ? damaged : messages(delivery("{}")))(...given),
    );
    expect(await once.queue.receive(10, 0, never)).toMatchObject([{ id: "id", body: "{}" }]);
    expect(once.lean()).toEqual([true, false]);
    const always = await openWhole(damaged);
    const failure = await failureOf(always.queue.receive(10, 0, never));
    expect(failure.message).toContain("damaged on its way");
  });

  test("that is cut off while it polls ends at once, and lets go of the connection", async () => {
    const { sqs, queue, lean } = await openWhole(() => {});
    const cut = new AbortController();
    const poll = queue.receive(10, 20, cut.signal).catch((reason: unknown) => reason);
    await sqs.arrival(1);
    cut.abort();
    expect(await poll).toMatchObject({ name: "AbortError" });
    expectHarmless(await poll);
    await sqs.ending(1);
    expect(lean()).toEqual([true]);
    expect(await queue.receive(10, 20, cut.signal).catch((reason: Error) => reason.name)).toBe(
      "AbortError",
    );
    expect(lean()).toEqual([true]);
  });

  test("that does not answer is given up on after its time, without waiting as long again", async () => {
    const { sqs, queue, lean } = await openWhole(() => {});
    startClock();
    restores.push(endClock);
    const poll = queue.receive(10, 20, never).catch((reason: unknown) => reason);
    await sqs.arrival(1);
    await advance(30_000);
    endClock();
    const failure = await failureOf(poll.then((reason) => Promise.reject(reason)));
    expect(failure.message).toContain(`cannot reach ${sqs.host} (TimeoutError)`);
    await sqs.ending(1);
    expect(lean()).toEqual([true]);
  });
});

describe("a server that is silent", () => {
  const silences: Readonly<Record<string, server.Reply>> = {
    altogether: () => {},
    "after the headers": (response) => void response.writeHead(200).flushHeaders(),
    "within its answer": (response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write(`{"Messages":[{"Body":"${CANARY}`);
    },
  };
  for (const [name, reply] of Object.entries(silences)) {
    test(`${name} is a time-out that tells nothing`, async () => {
      const { sqs, fast } = await open(reply);
      startClock();
      restores.push(endClock);
      const asked = byFetch(fast, DELETE, 50).catch((reason: unknown) => reason);
      await sqs.arrival(1);
      await advance(50);
      endClock();
      const error: unknown = await asked;
      expect(error).toMatchObject({ name: "TimeoutError", message: "no answer in time" });
      expectHarmless(error);
      await sqs.ending(1);
      expect(sqs.requests).toHaveLength(2);
    });
  }
});

test("after three failures in a row the client is asked at once, for half a minute", async () => {
  startClock();
  restores.push(endClock);
  const handle = () => Promise.reject(new Error("not sent"));
  const client = new SQSClient({
    endpoint: "http://sqs.example",
    region: "us-east-1",
    credentials: SESSION,
    maxAttempts: 1,
    requestHandler: { handle } as never,
  });
  const fast = openFastCalls(client);
  await bySdk(client, RECEIVE).catch(() => {});
  let status = 500;
  const fetched = spyOn(globalThis, "fetch").mockImplementation((() =>
    Promise.resolve(Response.json({}, { status }))) as unknown as typeof fetch);
  restores.push(() => fetched.mockRestore());
  const sends = async (expected: unknown): Promise<boolean> => {
    const before = fetched.mock.calls.length;
    expect(await byFetch(fast, RECEIVE)).toEqual(expected);
    return fetched.mock.calls.length > before;
  };
  const twoFailures = async () => {
    for (let i = 0; i < 2; i++) expect(await sends(null)).toBe(true);
  };
  // A success in between starts the count again.
  await twoFailures();
  status = 200;
  expect(await sends({})).toBe(true);
  status = 500;
  await twoFailures();
  expect(await sends(null)).toBe(true);
  status = 200;
  expect(await sends(null)).toBe(false);
  await advance(29_900);
  expect(await sends(null)).toBe(false);
  await advance(200);
  expect(await sends({})).toBe(true);
  expect(await sends({})).toBe(true);
});
