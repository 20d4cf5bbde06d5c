// What goes wrong at SQS, told apart and made safe to show.
import { Failure, failed } from "../failure.ts";

/** Failures of the queue that may pass by themselves: throttling, its own errors, the network, a token. */
export const isQueueOutage = (error: unknown): error is Failure =>
  error instanceof Failure && error.code === QUEUE_AWAY;

const QUEUE_AWAY = "QUEUE_AWAY";

/** The credentials are, whatever their provider thinks. */
export const isExpired = (error: unknown): boolean =>
  error instanceof Error && /^(ExpiredToken|ExpiredTokenException)$/.test(error.name);

/** Signed too long ago, or for a time that has yet to come, by the server's clock. */
export const isMistimed = (error: unknown): boolean =>
  error instanceof Error && /^Signature (expired|not yet current)\b/.test(error.message);

/** Names of SQS's and AWS's errors that pass by themselves, whatever status they come with. */
const PASSING =
  /^(Throttl|RequestThrottled|TooManyRequests|RequestLimitExceeded|SlowDown|RequestTimeout|RequestExpired|RequestTimeTooSkewed|ExpiredToken|OverLimit|ServiceUnavailable|KmsThrottled|PriorRequestNotComplete)/;

export type Attempt = {
  /** `receive messages` */
  readonly what: string;
  readonly host: string;
  /** Whether a call has succeeded before this one. */
  readonly hasWorked: boolean;
};

/** What happened at the queue, with no part of a message or a credential in it. */
export function describe(error: unknown, { what, host, hasWorked }: Attempt): unknown {
  if (error instanceof Failure || !(error instanceof Error)) return error;
  if (error.name === "AbortError") return error;
  const code = "code" in error && typeof error.code === "string" ? error.code : error.name;
  const away = (message: string, hint: string) => new Failure(1, message, hint, QUEUE_AWAY);
  if (/Credentials?Provider|CredentialsError|TokenProvider/.test(error.name)) {
    const message = `no AWS credentials to ${what} (${host})`;
    const hint =
      "give them as every AWS SDK takes them; an emulator accepts any, " +
      "such as AWS_ACCESS_KEY_ID=test and AWS_SECRET_ACCESS_KEY=test";
    // A provider that gave some before may do so again.
    return hasWorked ? away(message, hint) : failed(message, hint);
  }
  if (/^(QueueDoesNotExist|AWS\.SimpleQueueService\.NonExistentQueue)$/.test(error.name)) {
    return failed(
      `cannot ${what}: the queue does not exist at ${host}`,
      "check QUEUE_URL (an emulator may know the queue only by the exact URL that it handed out)",
    );
  }
  if (error.message.startsWith("Invalid MD5 checksum")) {
    return away(
      `cannot ${what}: what ${host} answered was damaged on its way`,
      "it comes again; does something between here and there change bodies?",
    );
  }
  const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
  if (status !== undefined) {
    const message = `cannot ${what}: ${host} answered ${status} (${code})`;
    if (PASSING.test(code)) {
      return away(message, "the queue, or whoever gives out its credentials, asks for patience");
    }
    return status >= 500 || status === 429 || status < 300
      ? away(message, "that is the queue's own trouble; does it have a status page?")
      : failed(message, "check the queue's policy, the credentials' rights, and the region");
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
  const unreachable = [
    `cannot ${what}: cannot reach ${host} (${code})`,
    "is QUEUE_URL right, and AWS_ENDPOINT_URL_SQS if it is set?",
  ] as const;
  // The network's failures have a code, or are called a timeout; anything else would fail again.
  return "code" in error || /Timeout/.test(code) ? away(...unreachable) : failed(...unreachable);
}

/** How messages name the queue's server. */
export function hostOf(queue: string, endpoint: string | null): string {
  const url = endpoint ?? (/^https?:/i.test(queue) ? queue : null);
  return url === null ? "SQS" : new URL(url).host;
}
