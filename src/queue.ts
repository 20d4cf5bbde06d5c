// The one door to SQS. A message leaves it with the date on which SQS received it, and is deleted only
// by `acknowledge`, which reports what SQS confirmed and nothing else.
import {
  DeleteMessageBatchCommand,
  GetQueueAttributesCommand,
  GetQueueUrlCommand,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import { Failure, failed } from "./failure.ts";

export type QueueConfig = {
  /** A full URL, or a name to look up. */
  readonly queue: string;
  readonly endpoint: string | null;
  readonly region: string | null;
  /** Null: the SDK's default provider chain. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | null;
};

export type Message = {
  readonly id: string;
  readonly body: string;
  readonly sentAt: Date;
  readonly receipt: string;
};

export type Acknowledged = {
  /** How many deliveries SQS confirmed as deleted. The others come back, and change nothing. */
  readonly confirmed: number;
  readonly failure: unknown;
};

export type Depth = { readonly waiting: number; readonly inFlight: number };

export type Queue = {
  readonly receive: (
    most: number,
    waitSeconds: number,
    signal: AbortSignal,
  ) => Promise<readonly Message[]>;
  /** Deletes, ten a call. Never throws: what some calls confirmed counts although others failed. */
  readonly acknowledge: (messages: readonly Message[]) => Promise<Acknowledged>;
  /** Approximate, as SQS says itself: for a person to read. */
  readonly depth: () => Promise<Depth>;
  readonly close: () => void;
};

/** SQS's own limit, for receiving and deleting alike. */
export const MESSAGES_PER_CALL = 10;
const DELETE_ATTEMPTS = 3;
const LONGEST_POLL_SECONDS = 20;

/** Reaches the queue once, so that a wrong URL or missing rights show before anything starts. */
export async function openQueue(config: QueueConfig): Promise<Queue> {
  const client = new SQSClient({
    ...(config.endpoint === null ? {} : { endpoint: config.endpoint }),
    ...(config.region === null ? {} : { region: config.region }),
    ...(config.credentials === null ? {} : { credentials: config.credentials }),
    maxAttempts: 4,
    requestHandler: {
      connectionTimeout: 5_000,
      requestTimeout: (LONGEST_POLL_SECONDS + 10) * 1_000,
      throwOnRequestTimeout: true,
    },
  });
  const call = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw describe(error, what, config);
    }
  };
  const url = /^https?:\/\//i.test(config.queue)
    ? config.queue
    : await call("look up the queue", async () => {
        const answer = await client.send(new GetQueueUrlCommand({ QueueName: config.queue }));
        if (!answer.QueueUrl)
          throw failed("SQS answered without the queue's URL", "give the URL as QUEUE_URL");
        return answer.QueueUrl;
      });

  const depth = () =>
    call("read the queue's attributes", async () => {
      const { Attributes } = await client.send(
        new GetQueueAttributesCommand({
          QueueUrl: url,
          AttributeNames: ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        }),
      );
      return {
        waiting: Number(Attributes?.ApproximateNumberOfMessages ?? 0),
        inFlight: Number(Attributes?.ApproximateNumberOfMessagesNotVisible ?? 0),
      };
    });

  const deleteTen = async (messages: readonly Message[]): Promise<Acknowledged> => {
    let pending = messages;
    for (let attempt = 1; pending.length > 0 && attempt <= DELETE_ATTEMPTS; attempt++) {
      // The entries' ids are positions: one batch may hold two deliveries of one message.
      const Entries = pending.map(({ receipt }, i) => ({ Id: String(i), ReceiptHandle: receipt }));
      try {
        const answer = await call("delete stored messages", () =>
          client.send(new DeleteMessageBatchCommand({ QueueUrl: url, Entries })),
        );
        const done = new Set((answer.Successful ?? []).map((entry) => Number(entry.Id)));
        pending = pending.filter((_, i) => !done.has(i));
      } catch (failure) {
        return { confirmed: messages.length - pending.length, failure };
      }
    }
    return { confirmed: messages.length - pending.length, failure: null };
  };

  await depth();
  return {
    receive: (most, waitSeconds, signal) =>
      call("receive messages", async () => {
        const answer = await client.send(
          new ReceiveMessageCommand({
            QueueUrl: url,
            MaxNumberOfMessages: Math.min(most, MESSAGES_PER_CALL),
            WaitTimeSeconds: waitSeconds,
            MessageSystemAttributeNames: ["SentTimestamp"],
          }),
          { abortSignal: signal },
        );
        return (answer.Messages ?? []).map(readMessage);
      }),
    acknowledge: async (messages) => {
      const calls = [];
      for (let i = 0; i < messages.length; i += MESSAGES_PER_CALL) {
        calls.push(deleteTen(messages.slice(i, i + MESSAGES_PER_CALL)));
      }
      const outcomes = await Promise.all(calls);
      return {
        confirmed: outcomes.reduce((sum, outcome) => sum + outcome.confirmed, 0),
        failure: outcomes.find((outcome) => outcome.failure !== null)?.failure ?? null,
      };
    },
    depth,
    close: () => client.destroy(),
  };
}

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

/** What happened at the queue, with no part of a message or a credential in it. */
function describe(error: unknown, what: string, config: QueueConfig): unknown {
  if (error instanceof Failure || !(error instanceof Error)) return error;
  if (error.name === "AbortError") return error;
  const host = hostOf(config);
  const code = "code" in error && typeof error.code === "string" ? error.code : error.name;
  if (/Credentials?Provider|CredentialsError|TokenProvider/.test(error.name)) {
    return failed(
      `no AWS credentials to ${what} (${host})`,
      "give them as every AWS SDK takes them; an emulator accepts any, " +
        "such as AWS_ACCESS_KEY_ID=test and AWS_SECRET_ACCESS_KEY=test",
    );
  }
  if (/^(QueueDoesNotExist|AWS\.SimpleQueueService\.NonExistentQueue)$/.test(error.name)) {
    return failed(
      `cannot ${what}: the queue does not exist at ${host}`,
      "check QUEUE_URL (an emulator may know the queue only by the exact URL that it handed out)",
    );
  }
  const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
  if (status !== undefined) {
    return failed(
      `cannot ${what}: ${host} answered ${status} (${code})`,
      "check the queue's policy, the credentials' rights, and the region",
    );
  }
  if (/Region/.test(error.message)) {
    return failed(`cannot ${what}: no AWS region is set`, "set AWS_REGION");
  }
  if (code === "NotCapable") {
    return failed(
      `cannot ${what}: Deno does not permit it`,
      "grant --allow-env, --allow-sys=osRelease, and --allow-net for the queue and the database",
    );
  }
  return failed(
    `cannot ${what}: cannot reach ${host} (${code})`,
    "is QUEUE_URL right, and AWS_ENDPOINT_URL_SQS if it is set?",
  );
}

function hostOf({ endpoint, queue }: QueueConfig): string {
  const url = endpoint ?? (/^https?:/i.test(queue) ? queue : null);
  return url === null ? "SQS" : new URL(url).host;
}
