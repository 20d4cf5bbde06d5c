// The one door to SQS. A message leaves it with the date on which SQS received it, and is deleted only
// by `acknowledge`, which reports what SQS confirmed and nothing else.
import {
  ChangeMessageVisibilityBatchCommand,
  DeleteMessageBatchCommand,
  GetQueueAttributesCommand,
  GetQueueUrlCommand,
  type QueueAttributeName,
  ReceiveMessageCommand,
  type ReceiveMessageCommandInput,
} from "@aws-sdk/client-sqs";
import type { QueueConfig } from "../config/queue-url.ts";
import { failed } from "../failure.ts";
import { QUEUE_WAITS, QueueClient, type QueueWaits } from "./client.ts";
import { isQueueOutage } from "./errors.ts";

export type Message = {
  readonly id: string;
  readonly body: string;
  readonly sentAt: Date;
  readonly receipt: string;
};

/** What became of each of the messages that a change was asked for. */
export type Changed = {
  readonly done: readonly Message[];
  /** Worth trying again: SQS said that it is at fault itself, or did not answer. */
  readonly again: readonly Message[];
  /** Of no use to try again: the receipt is no longer good. */
  readonly refused: readonly Message[];
  /** Why a call as a whole failed, or null. */
  readonly failure: unknown;
};

export type Depth = { readonly waiting: number; readonly inFlight: number };

export type Queue = {
  /** Its messages have an order, within each group. */
  readonly isFifo: boolean;
  /** How long a received message stays hidden from other consumers. */
  readonly visibilitySeconds: number;
  readonly receive: (
    most: number,
    waitSeconds: number,
    signal: AbortSignal,
  ) => Promise<readonly Message[]>;
  /** Deletes. Never throws: what some calls confirmed counts although others failed. */
  readonly acknowledge: (messages: readonly Message[], signal: AbortSignal) => Promise<Changed>;
  /** Keeps messages hidden for so long from now; for 0 seconds: hands them back. Never throws. */
  readonly hide: (
    messages: readonly Message[],
    seconds: number,
    signal: AbortSignal,
  ) => Promise<Changed>;
  /** Approximate, as SQS says itself: for a person to read. */
  readonly depth: (signal?: AbortSignal) => Promise<Depth>;
  readonly close: () => void;
};

/** SQS's own limit, for receiving and deleting alike. */
export const MESSAGES_PER_CALL = 10;
/** SQS's own default, for a queue that hides nothing: each message would be received on and on. */
const DEFAULT_VISIBILITY_SECONDS = 30;

/** Reaches the queue once, so that a wrong URL or missing rights show before anything starts. */
export async function openQueue(
  config: QueueConfig,
  waits: QueueWaits = QUEUE_WAITS,
): Promise<Queue> {
  const { queueAnswerMs } = waits;
  const client = new QueueClient(config, waits);
  const url = await findUrl(client, config.queue);
  const readAttributes = (names: QueueAttributeName[], signal?: AbortSignal) =>
    client.call("read the queue's attributes", async ({ sdk }) => {
      const command = new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: names });
      const limits = { requestTimeout: queueAnswerMs, ...(signal && { abortSignal: signal }) };
      return (await sdk.send(command, limits)).Attributes ?? {};
    });
  const { VisibilityTimeout } = await readAttributes(["VisibilityTimeout"]);
  const visibilitySeconds = Number(VisibilityTimeout ?? 0) || DEFAULT_VISIBILITY_SECONDS;
  return {
    isFifo: url.endsWith(".fifo"), // as all of their names have to, and no other's does
    visibilitySeconds,
    receive: (most, waitSeconds, signal) => {
      const input: ReceiveMessageCommandInput = {
        // In the order in which the client writes them: both ways, the same bytes are sent.
        QueueUrl: url,
        MessageSystemAttributeNames: ["SentTimestamp"],
        MaxNumberOfMessages: Math.min(most, MESSAGES_PER_CALL),
        // The queue's own value, said: it may be changed while this runs.
        VisibilityTimeout: visibilitySeconds,
        WaitTimeSeconds: waitSeconds,
      };
      const timeoutMs = waitSeconds * 1000 + queueAnswerMs;
      return client.call("receive messages", async ({ sdk, fast }) => {
        const answer: ReceiveAnswer =
          (await fast("ReceiveMessage", input, { signal, timeoutMs })) ??
          (await sdk.send(new ReceiveMessageCommand(input), limit(signal, timeoutMs)));
        return (answer.Messages ?? []).map(readMessage);
      });
    },
    acknowledge: (messages, signal) =>
      changeInTens(messages, (entries) => {
        const input = { QueueUrl: url, Entries: entries };
        return client.call("delete stored messages", async ({ sdk, fast }) => {
          const answer: BatchAnswer =
            (await fast("DeleteMessageBatch", input, { signal, timeoutMs: queueAnswerMs })) ??
            (await sdk.send(new DeleteMessageBatchCommand(input), limit(signal, queueAnswerMs)));
          return answer;
        });
      }),
    hide: (messages, seconds, signal) =>
      changeInTens(messages, (entries) => {
        const hidden = entries.map((entry) => ({ ...entry, VisibilityTimeout: seconds }));
        const command = { QueueUrl: url, Entries: hidden };
        return client.call("change messages' visibility", ({ sdk }) =>
          sdk.send(new ChangeMessageVisibilityBatchCommand(command), limit(signal, queueAnswerMs)),
        );
      }),
    depth: async (signal) => {
      const names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
      ] as const;
      const depth = await readAttributes([...names], signal);
      return {
        waiting: Number(depth.ApproximateNumberOfMessages ?? 0),
        inFlight: Number(depth.ApproximateNumberOfMessagesNotVisible ?? 0),
      };
    },
    close: () => client.close(),
  };
}

const limit = (abortSignal: AbortSignal, requestTimeout: number) => ({
  abortSignal,
  requestTimeout,
});

/** What QUEUE_URL says, or where the queue of that name is. */
async function findUrl(client: QueueClient, queue: string): Promise<string> {
  if (/^https?:\/\//i.test(queue)) return queue;
  return await client.call("look up the queue", async ({ sdk }) => {
    const { QueueUrl } = await sdk.send(new GetQueueUrlCommand({ QueueName: queue }));
    if (QueueUrl) return QueueUrl;
    throw failed("SQS answered without the queue's URL", "give the URL as QUEUE_URL");
  });
}

type Entry = { readonly Id: string; readonly ReceiptHandle: string };

/** One call for each ten messages, all at once. */
async function changeInTens(
  messages: readonly Message[],
  send: (entries: Entry[]) => Promise<BatchAnswer>,
): Promise<Changed> {
  const calls: Promise<Changed>[] = [];
  for (let i = 0; i < messages.length; i += MESSAGES_PER_CALL) {
    const ten = messages.slice(i, i + MESSAGES_PER_CALL);
    // The entries' ids are positions: one batch may hold two deliveries of one message.
    const entries = ten.map(({ receipt }, n) => ({ Id: String(n), ReceiptHandle: receipt }));
    calls.push(
      send(entries).then(
        (answer) => readChanged(ten, answer),
        (failure) => ({ done: [], again: ten, refused: [], failure }),
      ),
    );
  }
  const all = await Promise.all(calls);
  const failures = all.flatMap(({ failure }) => (failure === null ? [] : [failure]));
  return {
    done: all.flatMap(({ done }) => done),
    again: all.flatMap(({ again }) => again),
    refused: all.flatMap(({ refused }) => refused),
    // What cannot pass by itself counts before what can.
    failure: failures.find((failure) => !isQueueOutage(failure)) ?? failures[0] ?? null,
  };
}

type BatchAnswer = {
  readonly Successful?: readonly { readonly Id?: string | undefined }[] | undefined;
  readonly Failed?:
    | readonly { readonly Id?: string | undefined; readonly SenderFault?: boolean | undefined }[]
    | undefined;
};

/** What SQS does not mention was not done. */
function readChanged(ten: readonly Message[], { Successful, Failed }: BatchAnswer): Changed {
  const successful = new Set(Successful?.map(({ Id }) => Id));
  const refused = new Set(Failed?.filter((entry) => entry.SenderFault).map(({ Id }) => Id));
  const isIn = (ids: Set<string | undefined>) => (_: Message, n: number) => ids.has(String(n));
  return {
    done: ten.filter(isIn(successful)),
    refused: ten.filter((_, n) => refused.has(String(n)) && !successful.has(String(n))),
    again: ten.filter((_, n) => !refused.has(String(n)) && !successful.has(String(n))),
    failure: null,
  };
}

type ReceiveAnswer = { readonly Messages?: readonly SqsMessage[] | undefined };

type SqsMessage = {
  readonly MessageId?: string | undefined;
  readonly Body?: string | undefined;
  readonly ReceiptHandle?: string | undefined;
  readonly Attributes?: Partial<Record<string, string>> | undefined;
};

function readMessage(message: SqsMessage): Message {
  const { MessageId, Body, ReceiptHandle } = message;
  const sent = message.Attributes?.SentTimestamp;
  if (MessageId === undefined || Body === undefined || ReceiptHandle === undefined) {
    throw failed(
      "SQS answered with a message that lacks its id, body or receipt handle",
      "is the endpoint a complete SQS?",
    );
  }
  // Never "today" instead: a backlog or a replay would change dates.
  if (sent === undefined || !/^[0-9]{1,13}$/.test(sent)) {
    throw failed(
      "SQS answered with a message that lacks its SentTimestamp",
      "veil asks for it in MessageSystemAttributeNames: is the endpoint a complete SQS?",
    );
  }
  return { id: MessageId, body: Body, receipt: ReceiptHandle, sentAt: new Date(Number(sent)) };
}
