// The happy path of a call to SQS, at a fraction of what the SDK's client spends on it: the request that the
// client would send, with the client's own endpoint, credentials and clock, by plain fetch. An answer that is
// not 200, and whatever else is not plain, is left to the client, which retries, tells errors apart, corrects
// the clock and asks for new credentials; what it learns is used here from then on.
import { hash } from "node:crypto";
import type { SQSClient } from "@aws-sdk/client-sqs";
import { type Credentials, makeSigner, type Signable, type Signature } from "./signature.ts";

export type Action = "ReceiveMessage" | "DeleteMessageBatch";
export type WireOptions = { readonly signal: AbortSignal; readonly timeoutMs: number };

export type Input = { readonly QueueUrl: string | undefined };

/** The answer of a call, or null: ask the client. Throws for nothing but a server that does not answer. */
export type Wire = (action: Action, input: Input, options: WireOptions) => Promise<unknown>;

/** After so many calls in a row that only the client could help, it is asked at once for a while. */
const MOST_FAILURES = 3;

/** `restMs`: how long only the client is asked then. */
export function openWire(client: SQSClient, restMs = 30_000): Wire {
  const destinationOf = watchDestination(client);
  let signer: Promise<Signer> | null = null;
  let failures = 0;
  let restsUntil = 0;
  const call = async (
    { protocol, host, path }: Destination,
    action: Action,
    input: Input,
    { signal, timeoutMs }: WireOptions,
  ) => {
    signer ??= makeCheckedSigner(client);
    const sign = await signer;
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
    if (signal.aborted) return null;
    const late = new AbortController();
    let isLate = false;
    const leave = () => late.abort();
    const timer = setTimeout(() => {
      isLate = true;
      leave();
    }, timeoutMs);
    signal.addEventListener("abort", leave, { once: true });
    try {
      const answer = await fetch(`${protocol}//${host}${path}`, {
        method: "POST",
        headers,
        body,
        redirect: "error",
        // Bun's fetch would obey HTTP_PROXY and the like, which the client does not.
        proxy: false,
        signal: late.signal,
      });
      if (answer.status !== 200) return null;
      const said: unknown = await answer.json();
      return action !== "ReceiveMessage" || isUndamaged(said as Received) ? said : null;
    } catch {
      // The client would only wait as long again.
      if (isLate) throw new Silence("no answer in time");
      return null;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
    }
  };
  return async (action, input, options) => {
    const destination = destinationOf(input);
    if (destination === null || performance.now() < restsUntil) return null;
    let answer: unknown = null;
    try {
      answer = await call(destination, action, input, options);
      return answer;
    } catch (error) {
      if (error instanceof Silence) throw error;
      return null;
    } finally {
      failures = answer === null && !options.signal.aborted ? failures + 1 : 0;
      if (failures >= MOST_FAILURES) {
        restsUntil = performance.now() + restMs;
        signer = null;
      }
    }
  };
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

type Signer = (request: Signable) => Promise<Readonly<Record<string, string>>>;

type SdkSigner = {
  readonly sign: (
    request: object,
    options: { readonly signingDate: Date },
  ) => Promise<{ readonly headers: Record<string, string> }>;
};

/** Signs the first request with each new credentials both ways: if they differ, the SDK's way from then on. */
async function makeCheckedSigner({ config }: SQSClient): Promise<Signer> {
  const region = await config.region();
  const sdk = (await config.signer()) as SdkSigner;
  let known: Credentials | null = null;
  let lean: Signature | null = null;
  return async (request) => {
    const date = new Date(Date.now() + config.systemClockOffset);
    const credentials = (await config.credentials()) as Credentials;
    const isKnown =
      known !== null &&
      known.accessKeyId === credentials.accessKeyId &&
      known.secretAccessKey === credentials.secretAccessKey &&
      known.sessionToken === credentials.sessionToken;
    if (isKnown && lean !== null) return lean(request, date);
    const signed = await sdk.sign({ method: "POST", query: {}, ...request }, { signingDate: date });
    if (!isKnown) {
      const candidate = makeSigner(credentials, region);
      const agrees = candidate(request, date).authorization === signed.headers.authorization;
      [known, lean] = [credentials, agrees ? candidate : null];
    }
    return signed.headers;
  };
}

type Received = {
  readonly Messages?: readonly { readonly Body?: string; readonly MD5OfBody?: string }[];
};

/** As the client checks it: what stands between here and SQS may change bodies. */
const isUndamaged = ({ Messages = [] }: Received): boolean =>
  Messages.every(({ Body = "", MD5OfBody }) => hash("md5", Body, "hex") === MD5OfBody);
