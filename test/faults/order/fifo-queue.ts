// A FIFO queue that hands messages out as AWS does and fauxqs does not: as many of one group as an answer
// can hold, in order, and none of a group while some of it are with a consumer. In memory, for one test.
import { createHash, randomUUID } from "node:crypto";

export type FifoQueue = {
  /** As the variables that name it to veil. */
  readonly env: Readonly<Record<string, string>>;
  readonly send: (group: string, body: string) => string;
  /** Message ids of each answer, in order. */
  readonly answers: readonly (readonly string[])[];
  /** Messages that wait, or are with a consumer. */
  readonly remaining: () => number;
  /**
   * What consumers hold is delivered again at once, as if its visibility had ended: what is handed to one
   * that was killed meanwhile, too.
   */
  readonly comeBack: () => Promise<void>;
  readonly stop: () => Promise<void>;
};

export type FifoOptions = {
  readonly visibilitySeconds?: number;
  /** Called before a delete; the ids that it answers with stay, and are listed as failed. */
  readonly onDelete?: (messageIds: readonly string[]) => readonly string[];
};

type Stored = {
  readonly id: string;
  readonly group: string;
  readonly body: string;
  readonly sentAt: number;
  receipt: string | null;
  hiddenUntil: number;
};

type Asked = {
  readonly MaxNumberOfMessages?: number;
  readonly WaitTimeSeconds?: number;
  readonly VisibilityTimeout?: number;
  readonly Entries?: readonly Entry[];
};
type Entry = {
  readonly Id: string;
  readonly ReceiptHandle: string;
  readonly VisibilityTimeout?: number;
};

export function startFifoQueue(options: FifoOptions = {}): FifoQueue {
  const { visibilitySeconds = 30, onDelete = () => [] } = options;
  let messages: Stored[] = [];
  const answers: string[][] = [];
  let underWay = 0;
  const isHidden = (message: Stored) => message.hiddenUntil > Date.now();

  const take = (most: number, seconds: number): Stored[] => {
    const blocked = new Set(messages.filter(isHidden).map(({ group }) => group));
    const first = messages.find(({ group }) => !blocked.has(group));
    const free = messages.filter(({ group }) => !blocked.has(group));
    // As many of the first group as there is room for, then of the next.
    const inOrder = [
      ...free.filter(({ group }) => group === first?.group),
      ...free.filter(({ group }) => group !== first?.group),
    ];
    return inOrder.slice(0, most).map((message) => {
      message.receipt = randomUUID();
      message.hiddenUntil = Date.now() + seconds * 1000;
      return message;
    });
  };

  const receive = async (asked: Asked): Promise<object> => {
    const until = Date.now() + (asked.WaitTimeSeconds ?? 0) * 1000;
    const { MaxNumberOfMessages = 1, VisibilityTimeout = visibilitySeconds } = asked;
    let taken = take(MaxNumberOfMessages, VisibilityTimeout);
    while (taken.length === 0 && Date.now() < until) {
      await Bun.sleep(20);
      taken = take(MaxNumberOfMessages, VisibilityTimeout);
    }
    if (taken.length === 0) return {};
    answers.push(taken.map(({ id }) => id));
    return {
      Messages: taken.map(({ id, body, receipt, sentAt }) => ({
        MessageId: id,
        ReceiptHandle: receipt,
        Body: body,
        MD5OfBody: createHash("md5").update(body).digest("hex"),
        Attributes: { SentTimestamp: String(sentAt) },
      })),
    };
  };

  /** Refuses what is no longer this consumer's, as a FIFO queue does. */
  const change = (asked: Asked, keep: readonly string[], apply: (m: Stored, e: Entry) => void) => {
    const Successful: { Id: string }[] = [];
    const Failed: { Id: string; Code: string; SenderFault: boolean }[] = [];
    for (const entry of asked.Entries ?? []) {
      const { Id, ReceiptHandle } = entry;
      const message = messages.find(({ receipt }) => receipt === ReceiptHandle);
      if (message === undefined || !isHidden(message)) {
        Failed.push({ Id, Code: "InvalidParameterValue", SenderFault: true });
      } else if (keep.includes(message.id)) {
        Failed.push({ Id, Code: "InternalError", SenderFault: false });
      } else {
        apply(message, entry);
        Successful.push({ Id });
      }
    }
    return { Successful, Failed };
  };

  const answer = async (action: string, asked: Asked): Promise<object> => {
    switch (action) {
      case "ReceiveMessage":
        return receive(asked);
      case "DeleteMessageBatch": {
        const receipts = new Set(asked.Entries?.map(({ ReceiptHandle }) => ReceiptHandle));
        const ids = messages
          .filter(({ receipt }) => receipts.has(receipt ?? ""))
          .map(({ id }) => id);
        return change(asked, onDelete(ids), (gone) => {
          messages = messages.filter((message) => message !== gone);
        });
      }
      case "ChangeMessageVisibilityBatch":
        return change(asked, [], (message, { VisibilityTimeout = 0 }) => {
          message.hiddenUntil = Date.now() + VisibilityTimeout * 1000;
        });
      case "GetQueueAttributes": {
        const hidden = messages.filter(isHidden).length;
        return {
          Attributes: {
            FifoQueue: "true",
            VisibilityTimeout: String(visibilitySeconds),
            ApproximateNumberOfMessages: String(messages.length - hidden),
            ApproximateNumberOfMessagesNotVisible: String(hidden),
          },
        };
      }
      default:
        throw new Error(`this queue does not know ${action}`);
    }
  };

  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 60,
    fetch: async (request) => {
      const action = request.headers.get("x-amz-target")?.split(".").at(-1) ?? "";
      underWay++;
      try {
        return Response.json(await answer(action, (await request.json()) as Asked));
      } finally {
        underWay--;
      }
    },
  });
  const address = `http://127.0.0.1:${server.port}`;
  return {
    env: {
      QUEUE_URL: `${address}/000000000000/logins.fifo`,
      AWS_ENDPOINT_URL_SQS: address,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
    },
    send: (group, body) => {
      const id = randomUUID();
      messages.push({ id, group, body, sentAt: Date.now(), receipt: null, hiddenUntil: 0 });
      return id;
    },
    answers,
    remaining: () => messages.length,
    comeBack: async () => {
      while (underWay > 0) await Bun.sleep(10);
      for (const message of messages) message.hiddenUntil = 0;
    },
    stop: () => server.stop(true),
  };
}
