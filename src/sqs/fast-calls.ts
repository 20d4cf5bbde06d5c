// Every message pays for two calls, receive and delete. They are sent by plain fetch here, at a fraction of what
// the SDK's client spends on them. The request is the one that the client would send, with its endpoint,
// credentials and clock. Any answer but a plain 200 is left to the client: it retries, tells errors apart,
// corrects the clock and asks for new credentials. What it learns is used here from then on.
import { hash } from "node:crypto";
import type { SQSClient } from "@aws-sdk/client-sqs";
import { makeCheckedSigner, type Signer } from "./signer.ts";

export type FastAction = "ReceiveMessage" | "DeleteMessageBatch";
type Limits = { readonly signal: AbortSignal; readonly timeoutMs: number };
type Input = { readonly QueueUrl: string | undefined };

/** The answer of a call, or null: ask the client. Throws for nothing but a server that does not answer. */
export type FastCall = (action: FastAction, input: Input, limits: Limits) => Promise<object | null>;

/** After so many calls in a row that only the client could help, it is asked at once for a while. */
const MOST_FAILURES = 3;

/** `restMs`: how long only the client is asked then. */
export function openFastCalls(client: SQSClient, restMs = 30_000): FastCall {
  const destinationOf = watchDestination(client);
  let signer: Promise<Signer> | null = null;
  let failures = 0;
  let restsUntil = 0;
  return async (action, input, limits) => {
    const destination = destinationOf(input);
    if (destination === null || performance.now() < restsUntil) return null;
    let answer: object | null = null;
    try {
      signer ??= makeCheckedSigner(client);
      const request = await signRequest(await signer, destination, action, input);
      if (limits.signal.aborted) return null;
      const said = await send(request, limits);
      if (said !== null && (action !== "ReceiveMessage" || isUndamaged(said))) answer = said;
      return answer;
    } catch (error) {
      if (error instanceof Silence) throw error;
      return null;
    } finally {
      failures = answer === null && !limits.signal.aborted ? failures + 1 : 0;
      if (failures >= MOST_FAILURES) {
        restsUntil = performance.now() + restMs;
        signer = null;
      }
    }
  };
}

type SignedRequest = {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

async function signRequest(
  sign: Signer,
  { protocol, host, path }: Destination,
  action: FastAction,
  input: Input,
): Promise<SignedRequest> {
  const body = JSON.stringify(input);
  const headers = await sign({
    path,
    headers: {
      "content-length": String(Buffer.byteLength(body)),
      "content-type": "application/x-amz-json-1.0",
      host,
      "x-amz-target": `AmazonSQS.${action}`,
      "x-amzn-query-mode": "true",
    },
    body,
  });
  return { url: `${protocol}//${host}${path}`, headers, body };
}

/** What a 200 carries, or null for anything else but silence. */
async function send(
  { url, headers, body }: SignedRequest,
  { signal, timeoutMs }: Limits,
): Promise<object | null> {
  const ends = new AbortController();
  let isLate = false;
  const end = () => ends.abort();
  const timer = setTimeout(() => {
    isLate = true;
    end();
  }, timeoutMs);
  signal.addEventListener("abort", end, { once: true });
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers,
      body,
      redirect: "error",
      // Bun's fetch would obey HTTP_PROXY and the like, which the client does not.
      proxy: false,
      signal: ends.signal,
    });
    return answer.status === 200 ? ((await answer.json()) as object) : null;
  } catch {
    // The client would only wait as long again.
    if (isLate) throw new Silence("no answer in time");
    return null;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
  }
}

/** The server's, named as the SDK names it; a provider of credentials has time-outs of its own. */
class Silence extends Error {
  override readonly name = "TimeoutError";
}

type Destination = {
  readonly queueUrl: string;
  readonly protocol: string;
  readonly host: string;
  readonly path: string;
};

/**
 * Where the client sent its last request about a queue, or null before it sent one. Not computed here: a
 * custom endpoint, the region's rules and the queue's own URL (a VPC endpoint's, say) all have a say.
 */
function watchDestination({ middlewareStack }: SQSClient) {
  let last: Destination | null = null;
  middlewareStack.add(
    (next) => (args) => {
      const { QueueUrl: queueUrl } = args.input as Partial<Input>;
      const { protocol, path, headers } = args.request as SdkRequest;
      if (queueUrl !== undefined) last = { queueUrl, protocol, host: headers.host, path };
      return next(args);
    },
    { step: "finalizeRequest" },
  );
  return ({ QueueUrl }: Input) => (last !== null && last.queueUrl === QueueUrl ? last : null);
}

type SdkRequest = {
  readonly protocol: string;
  readonly path: string;
  readonly headers: { readonly host: string };
};

type Received = {
  readonly Messages?: readonly { readonly Body?: string; readonly MD5OfBody?: string }[];
};

/** As the client checks it: what stands between here and SQS may change bodies. */
const isUndamaged = ({ Messages = [] }: Received): boolean =>
  Messages.every(({ Body = "", MD5OfBody }) => hash("md5", Body, "hex") === MD5OfBody);
