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
  SQSClient,
  type SQSClientConfig,
} from "@aws-sdk/client-sqs";
import type { QueueConfig } from "../config/queue-url.ts";
import { failed } from "../failure.ts";
import { describe, hostOf, isExpired, isMistimed, isQueueOutage } from "./errors.ts";
import { openWire } from "./fast-calls.ts";

export type Message = {
  readonly id: string;
  readonly body: string;
  readonly sentAt: Date;
  readonly receipt: string;
};

/** What became of each of the messages that a change was asked for. */
export type Outcome = {
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
  readonly acknowledge: (messages: readonly Message[], signal: AbortSignal) => Promise<Outcome>;
  /** Keeps messages hidden for so long from now; for 0 seconds: hands them back. Never throws. */
  readonly hide: (
    messages: readonly Message[],
    seconds: number,
    signal: AbortSignal,
  ) => Promise<Outcome>;
  /** Approximate, as SQS says itself: for a person to read. */
  readonly depth: (signal?: AbortSignal) => Promise<Depth>;
  readonly close: () => void;
};

/** SQS's own limit, for receiving and deleting alike. */
export const MESSAGES_PER_CALL = 10;
const LONGEST_POLL_SECONDS = 20;
/** SQS's own default, for a queue that hides nothing: each message would be received on and on. */
const DEFAULT_VISIBILITY_SECONDS = 30;
const ATTEMPTS = 3;

/** How long a queue is waited for. */
export type QueueWaits = {
  /** For an answer; a long poll has so much more than the time that it asks for. */
  readonly queueAnswerMs: number;
  /** For a connection. */
  readonly queueConnectMs: number;
};

export const QUEUE_WAITS: QueueWaits = { queueAnswerMs: 10_000, queueConnectMs: 5_000 };

/** Reaches the queue once, so that a wrong URL or missing rights show before anything starts. */
export async function openQueue(
  config: QueueConfig,
  { queueAnswerMs, queueConnectMs }: QueueWaits = QUEUE_WAITS,
): Promise<Queue> {
  const host = hostOf(config.queue, config.endpoint);
  const open = (provider?: SQSClientConfig["credentials"]) =>
    connect(config, queueConnectMs, provider);
  let client = open();
  let wire = openWire(client);
  let hasWorked = false;
  const call = async <T>(what: string, work: (client: SQSClient) => Promise<T>): Promise<T> => {
    const used = client;
    try {
      const answer = await work(used).catch((error) => {
        // By now the client knows the server's time. It asks again by itself only where that is far from
        // this host's, not where a clock that was wrong has been set right.
        if (!isMistimed(error)) throw error;
        return work(used);
      });
      hasWorked = true;
      return answer;
    } catch (error) {
      // Credentials that have expired before their time: a new client asks their provider again.
      if (isExpired(error) && client === used) {
        // Not from what the SDK remembers of files: somebody else may have renewed them.
        const credentials = used.config.credentialDefaultProvider({
          ...used.config,
          ...{ parentClientConfig: used.config, ignoreCache: true },
        });
        client = open(credentials);
        wire = openWire(client);
        setTimeout(() => used.destroy(), LONGEST_POLL_SECONDS * 1000 + queueAnswerMs).unref();
      }
      throw describe(error, { what, host, hasWorked });
    }
  };
  const url = /^https?:\/\//i.test(config.queue)
    ? config.queue
    : await call("look up the queue", async (sqs) => {
        const answer = await sqs.send(new GetQueueUrlCommand({ QueueName: config.queue }));
        if (!answer.QueueUrl)
          throw failed("SQS answered without the queue's URL", "give the URL as QUEUE_URL");
        return answer.QueueUrl;
      });
  const attributes = (names: QueueAttributeName[], signal?: AbortSignal) =>
    call("read the queue's attributes", async (sqs) => {
      const command = new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: names });
      const limits = { requestTimeout: queueAnswerMs, ...(signal && { abortSignal: signal }) };
      return (await sqs.send(command, limits)).Attributes ?? {};
    });

  /** One call for each ten. */
  const change = async (
    messages: readonly Message[],
    what: string,
    send: (sqs: SQSClient, entries: Entry[]) => Promise<BatchAnswer>,
  ): Promise<Outcome> => {
    const outcomes: Promise<Outcome>[] = [];
    for (let i = 0; i < messages.length; i += MESSAGES_PER_CALL) {
      const ten = messages.slice(i, i + MESSAGES_PER_CALL);
      // The entries' ids are positions: one batch may hold two deliveries of one message.
      const entries = ten.map(({ receipt }, n) => ({ Id: String(n), ReceiptHandle: receipt }));
      outcomes.push(
        call(what, (sqs) => send(sqs, entries)).then(
          (answer) => ({ ...readOutcome(ten, answer), failure: null }),
          (failure) => ({ done: [], again: ten, refused: [], failure }),
        ),
      );
    }
    const all = await Promise.all(outcomes);
    return {
      done: all.flatMap(({ done }) => done),
      again: all.flatMap(({ again }) => again),
      refused: all.flatMap(({ refused }) => refused),
      // What cannot pass by itself counts before what can.
      failure:
        all.find(({ failure }) => failure !== null && !isQueueOutage(failure))?.failure ??
        all.find(({ failure }) => failure !== null)?.failure ??
        null,
    };
  };

  const { VisibilityTimeout } = await attributes(["VisibilityTimeout"]);
  const visibilitySeconds = Number(VisibilityTimeout ?? 0) || DEFAULT_VISIBILITY_SECONDS;
  return {
    isFifo: url.endsWith(".fifo"), // as all of their names have to, and no other's does
    visibilitySeconds,
    receive: (most, waitSeconds, signal) =>
      call("receive messages", async (sqs) => {
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
        const answer =
          (await wire("ReceiveMessage", input, { signal, timeoutMs })) ??
          (await sqs.send(new ReceiveMessageCommand(input), options(signal, timeoutMs)));
        return ((answer as ReceiveAnswer).Messages ?? []).map(readMessage);
      }),
    acknowledge: (messages, signal) =>
      change(messages, "delete stored messages", async (sqs, Entries) => {
        const input = { QueueUrl: url, Entries };
        const answer =
          (await wire("DeleteMessageBatch", input, { signal, timeoutMs: queueAnswerMs })) ??
          (await sqs.send(new DeleteMessageBatchCommand(input), options(signal, queueAnswerMs)));
        return answer as BatchAnswer;
      }),
    hide: (messages, seconds, signal) =>
      change(messages, "change messages' visibility", (sqs, entries) =>
        sqs.send(
          new ChangeMessageVisibilityBatchCommand({
            QueueUrl: url,
            Entries: entries.map((entry) => ({ ...entry, VisibilityTimeout: seconds })),
          }),
          options(signal, queueAnswerMs),
        ),
      ),
    depth: async (signal) => {
      const depth = await attributes(
        ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        signal,
      );
      return {
        waiting: Number(depth.ApproximateNumberOfMessages ?? 0),
        inFlight: Number(depth.ApproximateNumberOfMessagesNotVisible ?? 0),
      };
    },
    close: () => client.destroy(),
  };
}

const options = (abortSignal: AbortSignal, requestTimeout: number) => ({
  abortSignal,
  requestTimeout,
});

const connect = (
  config: QueueConfig,
  connectionTimeout: number,
  provider?: SQSClientConfig["credentials"],
): SQSClient => {
  const credentials = config.credentials ?? provider;
  return new SQSClient({
    ...(config.endpoint === null ? {} : { endpoint: config.endpoint }),
    ...(config.region === null ? {} : { region: config.region }),
    ...(credentials === undefined ? {} : { credentials }),
    maxAttempts: ATTEMPTS,
    requestHandler: { connectionTimeout, throwOnRequestTimeout: true },
  });
};

type Entry = { readonly Id: string; readonly ReceiptHandle: string };

type BatchAnswer = {
  readonly Successful?: readonly { readonly Id?: string | undefined }[] | undefined;
  readonly Failed?:
    | readonly { readonly Id?: string | undefined; readonly SenderFault?: boolean | undefined }[]
    | undefined;
};

/** What SQS does not mention was not done. */
function readOutcome(ten: readonly Message[], { Successful, Failed }: BatchAnswer) {
  const successful = new Set(Successful?.map(({ Id }) => Id));
  const refused = new Set(Failed?.filter((entry) => entry.SenderFault).map(({ Id }) => Id));
  const isIn = (ids: Set<string | undefined>) => (_: Message, n: number) => ids.has(String(n));
  return {
    done: ten.filter(isIn(successful)),
    refused: ten.filter((_, n) => refused.has(String(n)) && !successful.has(String(n))),
    again: ten.filter((_, n) => !refused.has(String(n)) && !successful.has(String(n))),
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
