// The two hot calls, as the SDK's client makes them and as the lean transport does.
import {
  DeleteMessageBatchCommand,
  type DeleteMessageBatchCommandInput,
  ReceiveMessageCommand,
  type ReceiveMessageCommandInput,
  type SQSClient,
} from "@aws-sdk/client-sqs";
import type { FastCall } from "../../src/sqs/fast-calls.ts";

export const CREDENTIALS = { accessKeyId: "AKIATEST", secretAccessKey: "not+so/secret" };
export const SESSION = { ...CREDENTIALS, sessionToken: "FwoGZXIvYXdzE+/token==" };

export type Call =
  | readonly ["ReceiveMessage", ReceiveMessageCommandInput & { readonly QueueUrl: string }]
  | readonly ["DeleteMessageBatch", DeleteMessageBatchCommandInput & { readonly QueueUrl: string }];

export const bySdk = async (client: SQSClient, [action, input]: Call): Promise<unknown> =>
  action === "ReceiveMessage"
    ? await client.send(new ReceiveMessageCommand(input))
    : await client.send(new DeleteMessageBatchCommand(input));

export const byFetch = (
  fast: FastCall,
  [action, input]: Call,
  timeoutMs = 10_000,
): Promise<unknown> => fast(action, input, { signal: new AbortController().signal, timeoutMs });

export const calls = (QueueUrl: string) =>
  ({
    receive: [
      "ReceiveMessage",
      // The SDK writes fields in its schema's order.
      {
        QueueUrl,
        MessageSystemAttributeNames: ["SentTimestamp"],
        MaxNumberOfMessages: 10,
        VisibilityTimeout: 30,
        WaitTimeSeconds: 20,
      },
    ],
    remove: [
      "DeleteMessageBatch",
      {
        QueueUrl,
        Entries: [
          { Id: "0", ReceiptHandle: "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a+/==" },
          { Id: "1", ReceiptHandle: 'ä "quoted" \\ </> \u2028 \u0000 😀' },
        ],
      },
    ],
  }) satisfies Record<string, Call>;
