// What stands between veil and the SQS server in a run of hostile bodies: it sends them, puts in place
// what SQS would carry and the server refuses, forgets a delete now and then, and keeps the books.
import { createHash } from "node:crypto";
import { hostile } from "./hostile.ts";

export type Front = {
  readonly address: string;
  /** Sends bodies `from` to below `end`. */
  readonly send: (from: number, end: number) => Promise<void>;
  /** Which body has which message id, and when SQS says that it was sent. */
  readonly bodyOf: ReadonlyMap<string, number>;
  readonly sentAt: ReadonlyMap<string, number>;
  readonly deliveries: () => number;
  /** Messages whose delete was passed on: none of them comes again. */
  readonly deleted: () => number;
  readonly bytes: () => number;
  readonly stop: () => Promise<void>;
};

type Delivery = {
  readonly MessageId: string;
  readonly Body: string;
  readonly MD5OfBody: string;
  readonly ReceiptHandle: string;
  readonly Attributes?: { readonly SentTimestamp?: string };
};
type Entry = { readonly Id: string; readonly ReceiptHandle: string };

/** SQS takes characters beyond U+FFFF, fauxqs does not; and the empty body, which neither does, stays in. */
const REFUSED = /[\ud800-\udfff]|^$/;
const STAND_IN = "stand-in for body ";
const LARGEST_CALL = 2 ** 20;
/** Of so many deletes one is forgotten, as SQS may: the message comes again. */
const FORGETS_ONE_IN = 40;

export function startFront(queue: { address: string; queueUrl: string }, seed: number): Front {
  const bodyOf = new Map<string, number>();
  const sentAt = new Map<string, number>();
  const inFlight = new Map<string, string>();
  const forgotten = new Set<string>();
  const deleted = new Set<string>();
  let deliveries = 0;
  let deletes = 0;
  let bytes = 0;

  const call = async (action: string, asks: object): Promise<Response> =>
    fetch(queue.address, {
      method: "POST",
      headers: {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": `AmazonSQS.${action}`,
      },
      body: JSON.stringify(asks),
    });

  const sendTen = async (entries: readonly { n: number; text: string }[]): Promise<void> => {
    const Entries = entries.map(({ n, text }) => ({ Id: String(n), MessageBody: text }));
    const answer = await call("SendMessageBatch", { QueueUrl: queue.queueUrl, Entries });
    const { Successful } = (await answer.json()) as {
      Successful?: { Id: string; MessageId: string }[];
    };
    if (Successful?.length !== Entries.length) {
      throw new Error(`SQS refused one of the bodies ${Entries.map(({ Id }) => Id).join(", ")}`);
    }
    for (const { Id, MessageId } of Successful) bodyOf.set(MessageId, Number(Id));
  };

  const send = async (from: number, end: number): Promise<void> => {
    let entries: { n: number; text: string }[] = [];
    let size = 0;
    for (let n = from; n < end; n++) {
      const { body } = hostile(seed, n);
      bytes += Buffer.byteLength(body);
      const text = REFUSED.test(body) ? STAND_IN + n : body;
      const more = Buffer.byteLength(text);
      if (entries.length === 10 || size + more > LARGEST_CALL) {
        await sendTen(entries);
        [entries, size] = [[], 0];
      }
      entries.push({ n, text });
      size += more;
    }
    if (entries.length > 0) await sendTen(entries);
  };

  const receive = async (asks: object): Promise<Response> => {
    const answer = await call("ReceiveMessage", asks);
    if (!answer.ok) return answer;
    const { Messages = [] } = (await answer.json()) as { Messages?: Delivery[] };
    deliveries += Messages.length;
    const delivered = Messages.map((message) => {
      inFlight.set(message.ReceiptHandle, message.MessageId);
      sentAt.set(message.MessageId, Number(message.Attributes?.SentTimestamp));
      if (!message.Body.startsWith(STAND_IN)) return message;
      const Body = hostile(seed, Number(message.Body.slice(STAND_IN.length))).body;
      return { ...message, Body, MD5OfBody: createHash("md5").update(Body).digest("hex") };
    });
    return Response.json(delivered.length > 0 ? { Messages: delivered } : {});
  };

  const remove = async (asks: { QueueUrl: string; Entries: Entry[] }): Promise<Response> => {
    const { QueueUrl } = asks;
    const forgets = (id: string) => ++deletes % FORGETS_ONE_IN === 0 && !forgotten.has(id);
    const kept: Entry[] = [];
    const passed: Entry[] = [];
    for (const entry of asks.Entries) {
      const id = inFlight.get(entry.ReceiptHandle) ?? "";
      (forgets(id) ? kept : passed).push(entry);
    }
    const ids = passed.map(({ ReceiptHandle }) => inFlight.get(ReceiptHandle));
    const answer =
      passed.length > 0
        ? await call("DeleteMessageBatch", { QueueUrl, Entries: passed })
        : Response.json({});
    if (!answer.ok) return answer;
    for (const id of ids) if (id !== undefined) deleted.add(id);
    for (const { ReceiptHandle } of kept) {
      forgotten.add(inFlight.get(ReceiptHandle) ?? "");
      await call("ChangeMessageVisibility", { QueueUrl, ReceiptHandle, VisibilityTimeout: 0 });
    }
    for (const { ReceiptHandle } of asks.Entries) inFlight.delete(ReceiptHandle);
    return Response.json({ Successful: asks.Entries.map(({ Id }) => ({ Id })), Failed: [] });
  };

  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 60,
    fetch: async (request) => {
      const action = request.headers.get("x-amz-target")?.split(".").at(-1) ?? "";
      const asks = JSON.parse(await request.text());
      if (action === "ReceiveMessage") return receive(asks);
      if (action === "DeleteMessageBatch") return remove(asks);
      return call(action, asks);
    },
  });
  return {
    address: `http://127.0.0.1:${server.port}`,
    send,
    bodyOf,
    sentAt,
    deliveries: () => deliveries,
    deleted: () => deleted.size,
    bytes: () => bytes,
    stop: () => server.stop(true),
  };
}
