// The queue's proxy does what it says: each fault, seen by the AWS SDK and by the queue behind it.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import {
  ChangeMessageVisibilityBatchCommand,
  DeleteMessageBatchCommand,
  GetQueueAttributesCommand,
  type Message,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import { remaining } from "../../line/stored.ts";
import { createQueue } from "../../support/servers.ts";
import { SQS_FAULTS, type SqsFault } from "./sqs-faults.ts";
import { type SqsPoint, type SqsProxy, startSqsProxy } from "./sqs-proxy.ts";
import { type Delivered, type SharedOptions, shareQueue } from "./sqs-shared.ts";

type Scene = {
  readonly queue: Awaited<ReturnType<typeof createQueue>>;
  readonly proxy: SqsProxy;
  readonly client: SQSClient;
  readonly url: string;
  readonly points: SqsPoint[];
};

const opened: Scene[] = [];

async function stage(options: Partial<SharedOptions> = {}): Promise<Scene> {
  const queue = await createQueue();
  const points: SqsPoint[] = [];
  const address = queue.env.AWS_ENDPOINT_URL_SQS ?? "";
  const proxy = await startSqsProxy(shareQueue({ address, ...options }), {
    onPoint: (point) => points.push(point),
  });
  const scene = {
    queue,
    proxy,
    client: newClient(proxy),
    url: queue.env.QUEUE_URL ?? "",
    points,
  };
  opened.push(scene);
  return scene;
}

const newClient = (proxy: SqsProxy) =>
  new SQSClient({
    endpoint: proxy.env.AWS_ENDPOINT_URL_SQS,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  });

let scene: Scene;
beforeAll(async () => {
  scene = await stage();
});
beforeEach(() => {
  scene.points.length = 0;
});
afterEach(async () => {
  scene.proxy.disarm();
  scene.proxy.pretendClock(0);
  await scene.proxy.set({ kind: "pass" });
});
afterAll(async () => {
  for (const { client, proxy } of opened) {
    client.destroy();
    await proxy.stop();
  }
});

const receive = async ({ client, url }: Scene, most = 10): Promise<Message[]> => {
  const command = new ReceiveMessageCommand({
    QueueUrl: url,
    MaxNumberOfMessages: most,
    MessageSystemAttributeNames: ["SentTimestamp"],
  });
  return (await client.send(command)).Messages ?? [];
};
const remove = ({ client, url }: Scene, messages: readonly Message[]) =>
  client.send(
    new DeleteMessageBatchCommand({
      QueueUrl: url,
      Entries: messages.map(({ ReceiptHandle }, i) => ({ Id: String(i), ReceiptHandle })),
    }),
  );
const changeVisibility = ({ client, url }: Scene, messages: readonly Message[], seconds: number) =>
  client.send(
    new ChangeMessageVisibilityBatchCommand({
      QueueUrl: url,
      Entries: messages.map(({ ReceiptHandle }, i) => ({
        Id: String(i),
        ReceiptHandle,
        VisibilityTimeout: seconds,
      })),
    }),
  );
const errorOf = async (work: Promise<unknown>): Promise<string> => {
  try {
    await work;
    return "none";
  } catch (error) {
    const { name, code } = error as { name: string; code?: string };
    return code ?? name;
  }
};
const idsOf = (messages: readonly Message[]) => messages.map(({ MessageId }) => MessageId).sort();

test("what is received, handed back and deleted goes through, past its points", async () => {
  const sent = [1, 2, 3].map((n) => scene.queue.send(`{"n":${n}}`)).sort();
  const first = await receive(scene);
  expect(idsOf(first)).toEqual(sent);
  await changeVisibility(scene, first, 0);
  const second = await receive(scene);
  expect(idsOf(second)).toEqual(sent);
  expect((await remove(scene, second)).Successful).toHaveLength(3);
  expect(await remaining(scene.queue.name)).toBe(0);
  expect(scene.points).toEqual([
    ...(["receive-sent", "receive-answered", "receive-delivered"] as const),
    ...(["visibility-sent", "visibility-answered", "visibility-delivered"] as const),
    ...(["receive-sent", "receive-answered", "receive-delivered"] as const),
    ...(["delete-sent", "delete-answered", "delete-delivered"] as const),
  ]);
  expect(await receive(scene)).toEqual([]);
  expect(scene.points.at(-1)).toBe("receive-sent");
});

test("each error reaches the SDK under its name, and the queue has not seen the call", async () => {
  const names: Partial<Record<SqsFault, RegExp>> = {
    throttled: /^ThrottlingException$/,
    "request-throttled": /^RequestThrottled$/,
    "internal-error": /^InternalFailure$/,
    unavailable: /^ServiceUnavailable$/,
    "expired-token": /^ExpiredToken(Exception)?$/,
    "access-denied": /^AccessDenied(Exception)?$/,
    "queue-deleted": /^(QueueDoesNotExist|AWS.SimpleQueueService.NonExistentQueue)$/,
    "reset-before": /^ECONNRESET$/,
  };
  const id = scene.queue.send("{}");
  for (const [fault, name] of Object.entries(names) as [SqsFault, RegExp][]) {
    scene.proxy.failNext(fault, "receive");
    expect(`${fault} ${await errorOf(receive(scene))}`).toMatch(
      new RegExp(`^${fault} ${name.source.slice(1)}`),
    );
    expect(scene.proxy.struck.get(fault)).toBe(1);
  }
  const messages = await receive(scene);
  expect(idsOf(messages)).toEqual([id]);
  await remove(scene, messages);
});

test("an answer that gets lost, whole or in part, was acted upon", async () => {
  for (const fault of ["reset-after", "reset-half", "truncated"] as const) {
    const id = scene.queue.send("{}");
    const messages = await receive(scene);
    expect(idsOf(messages)).toEqual([id]);
    scene.proxy.failNext(fault, "delete");
    expect(await errorOf(remove(scene, messages))).not.toBe("none");
    expect(await remaining(scene.queue.name)).toBe(0);
  }
});

test("a batch fails in part, or is confirmed and forgotten, and can be asked for again", async () => {
  for (let n = 0; n < 4; n++) scene.queue.send("{}");
  const messages = await receive(scene);
  scene.proxy.failNext("lose", "delete");
  expect((await remove(scene, messages)).Successful).toHaveLength(4);
  expect(await remaining(scene.queue.name)).toBe(4);
  scene.proxy.failNext("partial", "delete");
  const answer = await remove(scene, messages);
  expect(answer.Successful?.map(({ Id }) => Id)).toEqual(["0", "2"]);
  expect(answer.Failed?.map(({ Id, SenderFault }) => [Id, SenderFault])).toEqual([
    ["1", false],
    ["3", false],
  ]);
  expect(await remaining(scene.queue.name)).toBe(2);
  await remove(scene, messages);
  expect(await remaining(scene.queue.name)).toBe(0);
});

test("silence never answers, an empty receive has no message, and faults last as often as said", async () => {
  scene.queue.send("{}");
  scene.proxy.failNext("silence", "receive");
  const silent = receive(scene).then(
    () => "answered",
    () => "reset",
  );
  expect(await Promise.race([silent, Bun.sleep(300).then(() => "silent")])).toBe("silent");
  scene.proxy.dropAll();
  expect(await silent).toBe("reset");
  scene.proxy.failNext("empty", "receive", 2);
  expect(await receive(scene)).toEqual([]);
  expect(await receive(scene)).toEqual([]);
  const messages = await receive(scene);
  expect(messages).toHaveLength(1);
  await remove(scene, messages);
});

test("a server whose clock is off refuses what is signed by ours, and tells its own", async () => {
  scene.proxy.pretendClock(20 * 60_000);
  // The SDK takes the server's clock from the refusal's Date header, and signs by it from then on.
  expect(await errorOf(receive(scene))).toBe("InvalidSignatureException");
  expect(await errorOf(receive(scene))).toBe("none");
  scene.proxy.pretendClock(-60_000);
  const other = newClient(scene.proxy);
  expect(await errorOf(receive({ ...scene, client: other }))).toBe("none");
  other.destroy();
  expect(scene.proxy.struck.get("clock")).toBeGreaterThan(0);
});

test("refused, held and slow connections", async () => {
  scene.client.destroy();
  const client = newClient(scene.proxy);
  const here = { ...scene, client };
  await scene.proxy.set({ kind: "refuse", how: "closed" });
  scene.proxy.dropAll();
  expect(await errorOf(receive(here))).toMatch(/ECONNREFUSED|ConnectionRefused/);
  await scene.proxy.set({ kind: "refuse", how: "accepted" });
  expect(await errorOf(receive(here))).not.toBe("none");
  await scene.proxy.set({ kind: "hold" });
  const held = receive(here);
  expect(await Promise.race([held, Bun.sleep(200).then(() => "held")])).toBe("held");
  await scene.proxy.set({ kind: "slow", milliseconds: 20 });
  expect(await held).toEqual([]);
  expect(await receive(here)).toEqual([]);
  await scene.proxy.set({ kind: "pass" });
  client.destroy();
});

test("a call waits at a point until it is let go", async () => {
  const here = await stage();
  here.queue.send("{}");
  const paused = here.proxy.pauseNext("delete-sent");
  const messages = await receive(here);
  const removing = remove(here, messages);
  const { resume } = await paused;
  expect(await remaining(here.queue.name)).toBe(1);
  resume();
  await removing;
  expect(await remaining(here.queue.name)).toBe(0);
});

test("other calls pass, and can fail too", async () => {
  const attributes = () =>
    scene.client.send(
      new GetQueueAttributesCommand({
        QueueUrl: scene.url,
        AttributeNames: ["ApproximateNumberOfMessages"],
      }),
    );
  expect((await attributes()).Attributes?.ApproximateNumberOfMessages).toBe("0");
  scene.proxy.failNext("queue-deleted", "any");
  expect(await errorOf(attributes())).not.toBe("none");
  expect(SQS_FAULTS.length).toBe(15);
});

test("deliveries are repeated under other handles, to any worker, and told before they are deleted", async () => {
  const told: Delivered[] = [];
  const sentAt = Date.UTC(2025, 0, 2, 3);
  const queue = await createQueue();
  const shared = shareQueue({
    address: queue.env.AWS_ENDPOINT_URL_SQS ?? "",
    redeliver: 1,
    redeliverWithinMs: 0,
    sentAt: () => sentAt,
    body: () => '{"changed":"😀"}',
    onDelete: (messages) => void told.push(...messages),
  });
  const proxies = [await startSqsProxy(shared), await startSqsProxy(shared)];
  const id = queue.send("{}");
  const scenes = proxies.map((proxy) => ({
    ...{ queue, proxy, client: newClient(proxy), url: queue.env.QUEUE_URL ?? "", points: [] },
  }));
  opened.push(...scenes);
  const [first] = await receive(scenes[0]!);
  expect(first).toMatchObject({
    MessageId: id,
    Body: '{"changed":"😀"}',
    Attributes: { SentTimestamp: String(sentAt) },
  });
  expect(shared.waiting()).toBe(1);
  await remove(scenes[0]!, [first!]);
  expect(await remaining(queue.name)).toBe(0);
  // It comes back although its delete was confirmed, as SQS documents that it may.
  const [second] = await receive(scenes[1]!);
  expect(second).toMatchObject({ MessageId: id, Body: '{"changed":"😀"}' });
  expect(second?.ReceiptHandle).not.toBe(first?.ReceiptHandle);
  expect((await remove(scenes[1]!, [second!])).Successful).toHaveLength(1);
  expect(told).toMatchObject([
    { id, sentAt },
    { id, sentAt },
  ]);
  expect(shared.deliveries.get(id)).toBe(2);
  expect(shared.redelivered()).toBe(1);
  expect(shared.deleted.has(id)).toBe(true);
});
