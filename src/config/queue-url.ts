// QUEUE_URL and the AWS variables → which queue, and how it is reached. The SDK finds the
// credentials itself.
import { misuse } from "../failure.ts";
import type { Environment } from "./environment.ts";

export type QueueConfig = {
  /** A full URL, or a name to look up. */
  readonly queue: string;
  readonly endpoint: string | null;
  readonly region: string | null;
  /** Null: the SDK's default provider chain. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | null;
};

export function readQueue(env: Environment): QueueConfig {
  const text = env.QUEUE_URL?.trim();
  if (!text) throw misuse("QUEUE_URL is not set", "expected a queue's URL, or its name");
  const endpoint =
    readEndpoint(env, "AWS_ENDPOINT_URL_SQS") ?? readEndpoint(env, "AWS_ENDPOINT_URL");
  if (!/^https?:\/\//i.test(text)) {
    if (/^[A-Za-z0-9_-]{1,75}(\.fifo)?$/.test(text)) {
      return { queue: text, endpoint, region: null, credentials: null };
    }
    throw misuse("QUEUE_URL is malformed", "expected a queue's URL, or its name");
  }
  if (!URL.canParse(text) || new URL(text).pathname === "/") {
    throw misuse(
      "QUEUE_URL is malformed",
      "expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
    );
  }
  const { hostname, origin } = new URL(text);
  const isAws = /(^|\.)(amazonaws\.com(\.cn)?|api\.aws)$/.test(hostname);
  const named = /^(?:sqs|[\w-]+\.sqs)\.([a-z]{2}(?:-[a-z]+)+-[0-9])\./.exec(hostname)?.[1] ?? null;
  return {
    queue: text,
    // An emulator's URL is its own endpoint. AWS's is not: the SDK would then sign without a
    // region.
    endpoint: endpoint ?? (isAws ? null : origin),
    // The queue's own region comes before a default of the profile. An emulator takes any region.
    region: named ?? (env.AWS_REGION || env.AWS_DEFAULT_REGION || isAws ? null : "us-east-1"),
    credentials: null,
  };
}

function readEndpoint(env: Environment, name: string): string | null {
  const text = env[name];
  if (!text) return null;
  if (/^https?:\/\//i.test(text) && URL.canParse(text)) return text;
  throw misuse(`${name} is malformed`, "expected a URL such as http://host:port");
}
