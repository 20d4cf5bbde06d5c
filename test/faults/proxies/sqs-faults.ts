// The faults of SQS, each as SQS words it in its JSON protocol: status, `__type`, and for the errors that
// had another name in the query protocol the header `x-amzn-query-error`.
import { randomUUID } from "node:crypto";
import type { HttpReply } from "./http-wire.ts";

/**
 * `reset-before`: reset, and the queue was not asked. The queue acts on all that stand after it but gives
 * no good answer: `reset-after` none, `reset-half` half of one, `truncated` half of the JSON as if it were
 * whole, `partial` every other entry of a batch as failed (and not done), `lose` a batch as done (and
 * nothing is), `empty` a receive without messages, and `silence` never answers.
 */
export const SQS_FAULTS = [
  "throttled",
  "request-throttled",
  "internal-error",
  "unavailable",
  "expired-token",
  "access-denied",
  "queue-deleted",
  "reset-before",
  "silence",
  "empty",
  "reset-after",
  "reset-half",
  "truncated",
  "partial",
  "lose",
] as const;
export type SqsFault = (typeof SQS_FAULTS)[number];

type Refusal = {
  readonly status: number;
  readonly type: string;
  readonly message: string;
  readonly query?: string;
};

const REFUSALS: Partial<Record<SqsFault, Refusal>> = {
  throttled: {
    status: 400,
    type: "com.amazon.coral.availability#ThrottlingException",
    message: "Rate exceeded",
    query: "ThrottlingException;Sender",
  },
  "request-throttled": {
    status: 400,
    type: "com.amazonaws.sqs#RequestThrottled",
    message: "Request is throttled.",
    query: "RequestThrottled;Sender",
  },
  "internal-error": {
    status: 500,
    type: "com.amazonaws.sqs#InternalFailure",
    message: "We encountered an internal error. Please try again.",
    query: "InternalFailure;Receiver",
  },
  unavailable: {
    status: 503,
    type: "com.amazonaws.sqs#ServiceUnavailable",
    message: "Service is unavailable",
    query: "ServiceUnavailable;Receiver",
  },
  "expired-token": {
    status: 403,
    type: "com.amazon.coral.service#ExpiredTokenException",
    message: "The security token included in the request is expired",
    query: "ExpiredToken;Sender",
  },
  "access-denied": {
    status: 403,
    type: "com.amazon.coral.service#AccessDeniedException",
    message: "Access to the resource is denied.",
    query: "AccessDenied;Sender",
  },
  "queue-deleted": {
    status: 400,
    type: "com.amazonaws.sqs#QueueDoesNotExist",
    message: "The specified queue does not exist.",
    query: "AWS.SimpleQueueService.NonExistentQueue;Sender",
  },
};

/** Null where the fault is none that SQS words. */
export function refusalOf(fault: SqsFault): HttpReply | null {
  const refusal = REFUSALS[fault];
  return refusal === undefined ? null : write(refusal);
}

const write = ({ status, type, message, query }: Refusal): HttpReply => ({
  status,
  headers: {
    "content-type": "application/x-amz-json-1.0",
    "x-amzn-requestid": randomUUID(),
    ...(query === undefined ? {} : { "x-amzn-query-error": query }),
  },
  body: JSON.stringify({ __type: type, message }),
});

const TOLERANCE_MS = 5 * 60_000;

/**
 * What a server whose clock says `now` thinks of a request: AWS refuses one that was signed more than five
 * minutes from its own clock, and its Date header tells the client what that clock says.
 */
export function skewRefusal(signedAt: string | undefined, now: number): HttpReply | null {
  const [, date, time] = /^(\d{8})T(\d{6})Z$/.exec(signedAt ?? "") ?? [];
  if (date === undefined || time === undefined) return null;
  const iso = `${date.replace(/(....)(..)/, "$1-$2-")}T${time.replace(/(..)(..)/, "$1:$2:")}Z`;
  if (Math.abs(Date.parse(iso) - now) <= TOLERANCE_MS) return null;
  const [is, bound] = Date.parse(iso) < now ? ["expired", "+"] : ["not yet current", "-"];
  return write({
    status: 403,
    type: "com.amazon.coral.service#InvalidSignatureException",
    message: `Signature ${is}: ${signedAt} is too far from the server's time (${bound} 5 min.)`,
    query: "InvalidSignatureException;Sender",
  });
}
