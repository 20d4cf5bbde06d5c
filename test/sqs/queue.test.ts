import { afterEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import type { QueueConfig } from "../../src/config/queue-url.ts";
import { readQueue } from "../../src/config/queue-url.ts";
import { Failure } from "../../src/failure.ts";
import { acknowledge } from "../../src/line/acknowledge.ts";
import { Availability } from "../../src/line/availability.ts";
import { type Message, openQueue, type Queue } from "../../src/sqs/queue.ts";
import { createQueue, useSqs } from "../support/servers.ts";

const CANARY = "kanarienvogel";
const CREDENTIALS = { accessKeyId: "AKIACANARY", secretAccessKey: "secret-canary" };
const never = new AbortController().signal;

const opened: Queue[] = [];
const servers: Server[] = [];
afterEach(async () => {
  for (const queue of opened.splice(0)) queue.close();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function open(settings: Partial<QueueConfig> & { readonly queue: string }): Promise<Queue> {
  const defaults = { endpoint: null, region: "us-east-1", credentials: CREDENTIALS };
  const queue = await openQueue({ ...defaults, ...settings });
  opened.push(queue);
  return queue;
}

/** A queue at the real protocol's server, opened as the variables say. */
async function openReal(attributes: Record<string, string> = {}) {
  const { env, name, send } = await createQueue(attributes);
  const settings = { ...readQueue(env), region: "us-east-1", credentials: CREDENTIALS };
  return { queue: await open(settings), name, send, settings };
}

const acknowledged = (queue: Queue, messages: readonly Message[]) => {
  const patience = { milliseconds: 0, signal: never };
  return acknowledge(queue, new Availability("it", patience, () => {}), messages, never);
};

type Request = { readonly action: string; readonly body: Record<string, unknown> };
type Answer = { readonly status?: number; readonly type?: string; readonly body: unknown };

const READY: Answer = { body: { Attributes: {} } };
const entriesOf = ({ body }: Request) =>
  body.Entries as readonly { readonly Id: string; readonly ReceiptHandle: string }[];

/** An SQS that answers as it is told to, and keeps what it was asked. */
async function fake(answer: (request: Request, sameBefore: number) => Answer) {
  const requests: Request[] = [];
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("end", () => {
      const action = String(incoming.headers["x-amz-target"]).replace("AmazonSQS.", "");
      const request = { action, body: JSON.parse(Buffer.concat(chunks).toString()) };
      const before = requests.filter((other) => other.action === action).length;
      requests.push(request);
      const isAttributes = action === "GetQueueAttributes";
      const { status = 200, type, body } = isAttributes ? READY : answer(request, before);
      outgoing.writeHead(status, {
        "content-type": "application/x-amz-json-1.0",
        ...(type === undefined ? {} : { "x-amzn-query-error": `${type};Sender` }),
      });
      outgoing.end(JSON.stringify(body));
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const settings = { queue: `http://${host}/000000000000/logins`, endpoint: `http://${host}` };
  return {
    host,
    settings,
    requests,
    of: (action: string) => requests.filter((request) => request.action === action),
  };
}

const refuses = (type: string, status = 400): Answer => ({
  status,
  type,
  body: { __type: `com.amazonaws.sqs#${type}`, message: `${CANARY} ${CREDENTIALS.accessKeyId}` },
});

const deliveries = (count: number): Message[] =>
  Array.from({ length: count }, (_, i) => ({
    id: `id-${i}`,
    body: "{}",
    sentAt: new Date(0),
    receipt: `receipt-${i}`,
  }));

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  try {
    await work;
  } catch (error) {
    return safe(error);
  }
  throw new Error("expected a failure, it went well");
}

/** A failure of ours, with an exit code of 1 and with nothing in it that is not for every eye. */
function safe(error: unknown): Failure {
  if (!(error instanceof Failure)) throw error;
  expect(error.exitCode).toBe(1);
  const said = `${error.message}\n${error.hint}`;
  for (const secret of [CANARY, CREDENTIALS.accessKeyId, CREDENTIALS.secretAccessKey]) {
    expect(said).not.toContain(secret);
  }
  return error;
}

async function receiveAll(queue: Queue, count: number): Promise<Message[]> {
  const received: Message[] = [];
  while (received.length < count) received.push(...(await queue.receive(10, 1, never)));
  return received;
}

describe("receiving", () => {
  test("gives each message with its id, its body and the date on which SQS received it", async () => {
    const { queue, send } = await openReal();
    const before = Date.now();
    const bodies = ['{"user_id":"u"}', "Ä € <&>", " "];
    const sent = new Map(bodies.map((body) => [send(body), body]));
    const after = Date.now();
    const received = await receiveAll(queue, bodies.length);
    expect(new Map(received.map(({ id, body }) => [id, body]))).toEqual(sent);
    for (const { sentAt, receipt } of received) {
      expect(sentAt).toBeInstanceOf(Date);
      expect(sentAt.getTime()).toBeGreaterThanOrEqual(before);
      expect(sentAt.getTime()).toBeLessThanOrEqual(after);
      expect(receipt).not.toBe("");
    }
  });

  test("gives no message where there is none", async () => {
    const { queue } = await openReal();
    expect(await queue.receive(10, 0, never)).toEqual([]);
  });

  test("gives no more than was asked for", async () => {
    const { queue, send } = await openReal();
    for (let i = 0; i < 5; i++) send(`${i}`);
    expect((await queue.receive(1, 0, never)).length).toBeLessThanOrEqual(1);
    expect((await queue.receive(3, 0, never)).length).toBeLessThanOrEqual(3);
  });

  test("asks for the date, and for ten messages at most, as SQS wants it", async () => {
    const sqs = await fake(() => ({ body: {} }));
    const queue = await open(sqs.settings);
    for (const most of [1, 10, 11, 1000]) expect(await queue.receive(most, 20, never)).toEqual([]);
    const asked = sqs.of("ReceiveMessage").map(({ body }) => body);
    expect(asked.map((body) => body.MaxNumberOfMessages)).toEqual([1, 10, 10, 10]);
    for (const body of asked) {
      expect(body).toMatchObject({
        QueueUrl: sqs.settings.queue,
        WaitTimeSeconds: 20,
        MessageSystemAttributeNames: ["SentTimestamp"],
      });
    }
  });

  const delivery = (change: Record<string, unknown> = {}) => {
    const Body = `{"ip":"${CANARY}"}`;
    const MD5OfBody = createHash("md5").update(Body).digest("hex");
    const Attributes = { SentTimestamp: "1700000000123" };
    return { MessageId: "id", Body, MD5OfBody, ReceiptHandle: "receipt", Attributes, ...change };
  };

  test("takes the date from SentTimestamp, to the millisecond", async () => {
    const sqs = await fake(() => ({ body: { Messages: [delivery()] } }));
    const queue = await open(sqs.settings);
    expect(await queue.receive(1, 0, never)).toEqual([
      {
        id: "id",
        body: `{"ip":"${CANARY}"}`,
        receipt: "receipt",
        sentAt: new Date("2023-11-14T22:13:20.123Z"),
      },
    ]);
  });

  test("fails where a message has no SentTimestamp, or one that is no date", async () => {
    const attributes = [
      ...[undefined, {}, { SentTimestamp: "" }, { SentTimestamp: "yesterday" }],
      ...[{ SentTimestamp: "-1" }, { SentTimestamp: "1.5" }, { SentTimestamp: "1".repeat(14) }],
    ];
    for (const Attributes of attributes) {
      const messages = [delivery(), delivery({ Attributes })];
      const sqs = await fake(() => ({ body: { Messages: messages } }));
      const queue = await open(sqs.settings);
      const failure = await failureOf(queue.receive(10, 0, never));
      expect(failure.message).toContain("SentTimestamp");
    }
  });

  test("fails where a message lacks its id or its receipt handle", async () => {
    for (const change of [{ MessageId: undefined }, { ReceiptHandle: undefined }]) {
      const sqs = await fake(() => ({ body: { Messages: [delivery(change)] } }));
      const queue = await open(sqs.settings);
      const failure = await failureOf(queue.receive(10, 0, never));
      expect(failure.message).toContain("lacks its id, body or receipt handle");
    }
  });

  test("ends when it is cut off, and does not call that a failure of the queue", async () => {
    const { queue } = await openReal();
    const cut = new AbortController();
    const poll = queue.receive(10, 20, cut.signal);
    cut.abort();
    const error: unknown = await poll.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(Error);
    expect(error).not.toBeInstanceOf(Failure);
  });
});

describe("acknowledging", () => {
  test("deletes every message that it confirms", async () => {
    const { queue, name, send } = await openReal();
    for (let i = 0; i < 25; i++) send(`${i}`);
    const received = await receiveAll(queue, 25);
    expect(await acknowledged(queue, received)).toEqual({ confirmed: 25, failure: null });
    expect(await queue.depth()).toEqual({ waiting: 0, inFlight: 0 });
    const { messages } = (await useSqs()).inspectQueue(name)!;
    expect([...messages.ready, ...messages.delayed, ...messages.inflight]).toEqual([]);
  });

  test("leaves alone what was not named", async () => {
    const { queue, send } = await openReal();
    for (let i = 0; i < 3; i++) send(`${i}`);
    const received = await receiveAll(queue, 3);
    expect(await acknowledged(queue, received.slice(1))).toEqual({ confirmed: 2, failure: null });
    expect(await queue.depth()).toEqual({ waiting: 0, inFlight: 1 });
  });

  test("of no messages asks nothing", async () => {
    const sqs = await fake(() => ({ body: {} }));
    const queue = await open(sqs.settings);
    expect(await acknowledged(queue, [])).toEqual({ confirmed: 0, failure: null });
    expect(sqs.of("DeleteMessageBatch")).toEqual([]);
  });

  test("names ten receipts a call, each once", async () => {
    const sqs = await fake((request) => ({
      body: { Successful: entriesOf(request).map(({ Id }) => ({ Id })), Failed: [] },
    }));
    const queue = await open(sqs.settings);
    const all = deliveries(23);
    expect(await acknowledged(queue, all)).toEqual({ confirmed: 23, failure: null });
    const calls = sqs.of("DeleteMessageBatch").map(entriesOf);
    expect(calls.map((entries) => entries.length).sort()).toEqual([10, 10, 3]);
    const receipts = calls.flat().map((entry) => entry.ReceiptHandle);
    expect(receipts.sort()).toEqual(all.map(({ receipt }) => receipt).sort());
  });

  test("takes two deliveries of one message in one call", async () => {
    const sqs = await fake((request) => ({
      body: { Successful: entriesOf(request).map(({ Id }) => ({ Id })) },
    }));
    const queue = await open(sqs.settings);
    const twice = deliveries(2).map((message) => ({ ...message, id: "the same" }));
    expect(await acknowledged(queue, twice)).toEqual({ confirmed: 2, failure: null });
    const [entries = []] = sqs.of("DeleteMessageBatch").map(entriesOf);
    expect(new Set(entries.map((entry) => entry.Id)).size).toBe(2);
  });

  /** Confirms the entries that `isDone` takes, and refuses the others. */
  const partly = (request: Request, isDone: (receipt: string) => boolean): Answer => {
    const done = entriesOf(request).filter((entry) => isDone(entry.ReceiptHandle));
    const refused = entriesOf(request).filter((entry) => !isDone(entry.ReceiptHandle));
    return {
      body: {
        Successful: done.map(({ Id }) => ({ Id })),
        Failed: refused.map(({ Id }) => ({ Id, Code: "InternalError", SenderFault: false })),
      },
    };
  };
  const isEven = (receipt: string) => /[02468]$/.test(receipt);

  test("asks again for what failed, and for nothing else", async () => {
    const sqs = await fake((request, before) =>
      partly(request, before === 0 ? isEven : () => true),
    );
    const queue = await open(sqs.settings);
    expect(await acknowledged(queue, deliveries(10))).toEqual({ confirmed: 10, failure: null });
    const calls = sqs.of("DeleteMessageBatch").map(entriesOf);
    expect(calls.map((entries) => entries.map((entry) => entry.ReceiptHandle))).toEqual([
      deliveries(10).map(({ receipt }) => receipt),
      ["receipt-1", "receipt-3", "receipt-5", "receipt-7", "receipt-9"],
    ]);
  });

  test("confirms only what SQS listed as successful, and gives up after a few attempts", async () => {
    const sqs = await fake((request) => partly(request, isEven));
    const queue = await open(sqs.settings);
    expect(await acknowledged(queue, deliveries(10))).toEqual({ confirmed: 5, failure: null });
    expect(sqs.of("DeleteMessageBatch")).toHaveLength(6);
    expect(await acknowledged(queue, deliveries(2).slice(1))).toEqual({
      confirmed: 0,
      failure: null,
    });
  });

  test("does not take an answer's silence, or another's id, for a success", async () => {
    const answers = [
      {},
      { Failed: [] },
      { Successful: [] },
      { Successful: [{ Id: "10" }, { Id: "-1" }, { Id: "id-0" }, { Id: "0.5" }, {}] },
    ];
    for (const body of answers) {
      const sqs = await fake(() => ({ body }));
      const queue = await open(sqs.settings);
      expect(await acknowledged(queue, deliveries(3))).toEqual({ confirmed: 0, failure: null });
    }
  });

  test("counts each delivery once, however often the answer lists it", async () => {
    const sqs = await fake(() => ({ body: { Successful: [{ Id: "0" }, { Id: "0" }] } }));
    const queue = await open(sqs.settings);
    const { confirmed } = await acknowledged(queue, deliveries(10));
    expect(confirmed).toBe(6); // the first of each of six attempts
  });

  test("counts what some calls confirmed although another was refused", async () => {
    const sqs = await fake((request) =>
      entriesOf(request).some(({ ReceiptHandle }) => ReceiptHandle === "receipt-15")
        ? refuses("AccessDenied", 403)
        : partly(request, () => true),
    );
    const queue = await open(sqs.settings);
    const { confirmed, failure } = await acknowledged(queue, deliveries(25));
    expect(confirmed).toBe(15);
    expect(safe(failure).message).toContain(sqs.host);
  });

  test("never throws: what failed is in its answer", async () => {
    const sqs = await fake(() => refuses("AccessDenied", 403));
    const queue = await open(sqs.settings);
    const { confirmed, failure } = await acknowledged(queue, deliveries(25));
    expect(confirmed).toBe(0);
    expect(safe(failure).message).toContain("cannot delete stored messages");
  });

  test("counts what a first answer confirmed although the next attempt is refused", async () => {
    const sqs = await fake((request, before) =>
      before === 0 ? partly(request, isEven) : refuses("AccessDenied", 403),
    );
    const queue = await open(sqs.settings);
    const { confirmed, failure } = await acknowledged(queue, deliveries(10));
    expect(safe(failure).message).toContain(sqs.host);
    expect(confirmed).toBe(5);
  });
});

describe("depth", () => {
  test("tells what waits from what is in flight", async () => {
    const { queue, send } = await openReal();
    expect(await queue.depth()).toEqual({ waiting: 0, inFlight: 0 });
    for (let i = 0; i < 3; i++) send(`${i}`);
    expect(await queue.depth()).toEqual({ waiting: 3, inFlight: 0 });
    expect(await queue.receive(1, 0, never)).toHaveLength(1);
    expect(await queue.depth()).toEqual({ waiting: 2, inFlight: 1 });
  });
});

describe("opening a queue", () => {
  test("by its name looks up the URL", async () => {
    const { name, send, settings } = await openReal();
    const queue = await open({ ...settings, queue: name });
    const id = send("{}");
    const [message] = await receiveAll(queue, 1);
    expect(message?.id).toBe(id);
    expect(await acknowledged(queue, [message!])).toEqual({ confirmed: 1, failure: null });
  });

  test("by a URL whose host does not resolve hands that URL to the endpoint as it stands", async () => {
    const sqs = await fake(() => ({ body: {} }));
    const url = "http://no-such-host.invalid:1234/000000000000/logins";
    const queue = await open({ ...sqs.settings, queue: url });
    await queue.receive(1, 0, never);
    expect(sqs.requests.map(({ body }) => body.QueueUrl)).toEqual([url, url]);
  });

  // queue-url.ts takes a scheme in any case, as URLs have it.
  test("by a URL whose scheme is in capitals does not look it up as a name", async () => {
    const { settings } = await openReal();
    const env = { QUEUE_URL: settings.queue.replace("http:", "HTTP:") };
    const { queue } = readQueue(env);
    await open({ ...settings, queue });
  });

  test("that does not exist says so, and where", async () => {
    const { settings } = await openReal();
    const { host } = new URL(settings.endpoint!);
    const urls = [settings.queue.replace(/[^/]+$/, "no-such-queue"), "no-such-queue"];
    for (const queue of urls) {
      const failure = await failureOf(open({ ...settings, queue }));
      expect(failure.message).toContain("the queue does not exist");
      expect(failure.message).toContain(host);
      expect(failure.hint).toContain("QUEUE_URL");
    }
  });

  test("that refuses the connection names the host", async () => {
    // A port that was free a moment ago, and nobody listens on.
    const sqs = await fake(() => ({ body: {} }));
    await new Promise((resolve) => servers.pop()?.close(resolve));
    const failure = await failureOf(open(sqs.settings));
    expect(failure.message).toContain(`cannot reach ${sqs.host}`);
    const withPassword = sqs.settings.queue.replace("//", `//${CANARY}:${CANARY}@`);
    const again = await failureOf(open({ ...sqs.settings, queue: withPassword }));
    expect(again.message).toContain(sqs.host);
  });

  test("that refuses the login names the host and the code", async () => {
    const denied = ["AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch"];
    for (const type of denied) {
      const sqs = await fake(() => refuses(type, 403));
      const failure = await failureOf(open({ ...sqs.settings, queue: "logins" }));
      expect(failure.message).toContain("cannot look up the queue");
      expect(failure.message).toContain(`${sqs.host} answered 403`);
      expect(failure.hint).toContain("credentials");
    }
  });

  test("without credentials or a region says what is missing, and where it was asked for", async () => {
    const sqs = await fake(() => ({ body: {} }));
    const source = fileURLToPath(new URL("../../src/sqs/queue.ts", import.meta.url));
    const inEmptyEnvironment = async (env: Record<string, string>) => {
      const settings = { ...sqs.settings, region: null, credentials: null };
      const script = `import { openQueue } from ${JSON.stringify(source)};
        const error = await openQueue(${JSON.stringify(settings)}).catch((reason) => reason);
        const { name, exitCode, message, hint } = error;
        console.log(JSON.stringify({ name, exitCode, message, hint }));`;
      const child = Bun.spawn([process.execPath, "--no-env-file", "-e", script], {
        env: { HOME: "/nonexistent", AWS_EC2_METADATA_DISABLED: "true", ...env },
        cwd: tmpdir(),
        stdout: "pipe",
        stderr: "ignore",
      });
      return JSON.parse(await new Response(child.stdout).text()) as Record<string, unknown>;
    };
    const anonymous = await inEmptyEnvironment({ AWS_REGION: "us-east-1" });
    expect(anonymous).toMatchObject({ name: "Failure", exitCode: 1 });
    expect(anonymous.message).toContain("no AWS credentials");
    expect(anonymous.message).toContain(sqs.host);
    expect(anonymous.hint).toContain("AWS_ACCESS_KEY_ID");
    const nowhere = await inEmptyEnvironment({
      AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
    });
    expect(nowhere).toMatchObject({ name: "Failure", exitCode: 1, hint: "set AWS_REGION" });
    expect(JSON.stringify(nowhere)).not.toContain(CREDENTIALS.accessKeyId);
    expect(sqs.requests).toEqual([]);
  });
});
