// A front of the SQS server: passes every call on, and lets a test change what comes back. SQS
// delivers twice, fails deletes and shows old timestamps when it likes; here the test says when.
import { createHash } from "node:crypto";
import { useSqs } from "../support/servers.ts";

type Delivery = {
  readonly MessageId: string;
  readonly Body: string;
  readonly MD5OfBody: string;
  readonly ReceiptHandle: string;
  readonly Attributes?: Readonly<Record<string, string>>;
};

type Entry = { readonly Id: string; readonly ReceiptHandle: string };

/** Without `sentAt`, the delivery lacks its SentTimestamp. */
type Rewritten = { readonly sentAt: number | null; readonly body: string };

/**
 * `pass` deletes; `fail` answers with an error; `lose` confirms and deletes nothing, as SQS may;
 * `partly` deletes every other entry and lists the rest as refused for good.
 */
type Verdict = "pass" | "fail" | "lose" | "partly";

export type FrontOptions = {
  /** Whether a message is delivered once more, under another receipt handle. Asked once. */
  readonly deliversAgain?: (messageId: string) => boolean;
  /** What a message is delivered with in place of its own; null leaves it alone. */
  readonly rewrite?: (messageId: string) => Rewritten | null;
  /** Called with each delete, says what becomes of it; everything passes when absent. */
  readonly onDelete?: () => Verdict;
  /** What a call that receives waits for before the queue is asked. */
  readonly beforeReceive?: () => Promise<unknown> | null;
  /** Called with the number of deliveries so far. */
  readonly onDelivered?: (deliveries: number) => void;
};

export type Front = {
  /** To be merged over a queue's variables. */
  readonly env: { readonly AWS_ENDPOINT_URL_SQS: string };
  /** Deliveries by message id, in the order in which they were handed out. */
  readonly delivered: readonly string[];
  /** When no call is under way any more, those of a consumer that was killed included. */
  readonly idle: () => Promise<void>;
  readonly stop: () => Promise<void>;
};

const AGAIN = "+again";

export async function startFront(options: FrontOptions = {}): Promise<Front> {
  const { address } = await useSqs();
  const delivered: string[] = [];
  const waiting: Delivery[] = [];
  const asked = new Set<string>();
  let underWay = 0;

  const pass = async (request: Request, body: string): Promise<Response> => {
    const headers = new Headers(request.headers);
    headers.delete("content-length");
    headers.delete("accept-encoding");
    return fetch(address + new URL(request.url).pathname, { method: "POST", headers, body });
  };

  const receive = async (request: Request): Promise<Response> => {
    const asks = (await request.json()) as { MaxNumberOfMessages?: number };
    await options.beforeReceive?.();
    if (request.signal.aborted) return Response.json({});
    const most = asks.MaxNumberOfMessages ?? 1;
    // Half of an answer at most, so that the queue itself is still asked for the rest.
    const repeated = waiting.splice(0, most === 1 ? 1 : Math.floor(most / 2));
    const rest = most - repeated.length;
    const changed = { ...asks, MaxNumberOfMessages: rest };
    if (repeated.length > 0) Object.assign(changed, { WaitTimeSeconds: 0 });
    let fresh: Delivery[] = [];
    if (rest > 0) {
      const answer = await pass(request, JSON.stringify(changed));
      if (!answer.ok) return answer;
      fresh = ((await answer.json()) as { Messages?: Delivery[] }).Messages ?? [];
    }
    fresh = fresh.map((message) => {
      const rewritten = options.rewrite?.(message.MessageId) ?? null;
      if (rewritten === null) return message;
      return {
        ...message,
        Body: rewritten.body,
        MD5OfBody: createHash("md5").update(rewritten.body, "utf8").digest("hex"),
        Attributes: rewritten.sentAt === null ? {} : { SentTimestamp: String(rewritten.sentAt) },
      };
    });
    for (const message of fresh) {
      if (asked.has(message.MessageId) || !options.deliversAgain?.(message.MessageId)) continue;
      asked.add(message.MessageId);
      waiting.push({ ...message, ReceiptHandle: message.ReceiptHandle + AGAIN });
    }
    const messages = [...repeated, ...fresh];
    // Some come back in the very answer that they are in already.
    while (messages.length < most && waiting.length % 2 === 1) messages.push(waiting.pop()!);
    delivered.push(...messages.map((message) => message.MessageId));
    if (messages.length > 0) options.onDelivered?.(delivered.length);
    return Response.json(messages.length > 0 ? { Messages: messages } : {});
  };

  const remove = async (request: Request): Promise<Response> => {
    const asks = (await request.json()) as { Entries: Entry[] };
    const verdict = options.onDelete?.() ?? "pass";
    const taken = asks.Entries.filter((_, i) => verdict !== "partly" || i % 2 === 0);
    const confirmed = {
      Successful: taken.map(({ Id }) => ({ Id })),
      Failed: asks.Entries.filter((entry) => !taken.includes(entry)).map(({ Id }) => ({
        Id,
        Code: "ReceiptHandleIsInvalid",
        SenderFault: true,
      })),
    };
    if (verdict === "lose") return Response.json(confirmed);
    if (verdict === "fail") {
      return Response.json({ __type: "InternalFailure", message: "not now" }, { status: 400 });
    }
    const own = taken.filter(({ ReceiptHandle }) => !ReceiptHandle.endsWith(AGAIN));
    if (own.length > 0) await pass(request, JSON.stringify({ ...asks, Entries: own }));
    return Response.json(confirmed);
  };

  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 60,
    fetch: async (request) => {
      const action = request.headers.get("x-amz-target")?.split(".").at(-1);
      underWay++;
      try {
        if (action === "ReceiveMessage") return await receive(request);
        if (action === "DeleteMessageBatch") return await remove(request);
        return await pass(request, await request.text());
      } finally {
        underWay--;
      }
    },
  });
  return {
    env: { AWS_ENDPOINT_URL_SQS: `http://127.0.0.1:${server.port}` },
    delivered,
    idle: async () => {
      while (underWay > 0) await Bun.sleep(10);
    },
    stop: () => server.stop(true),
  };
}
