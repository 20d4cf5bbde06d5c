// The happy path of a call to SQS, at a quarter of what the SDK's client spends on it: the request that the
// client would send, signed by the client's own signer with its own credentials and clock, by plain fetch.
// Whatever does not end in an answer of 200 is left to the client, which retries, tells errors apart,
// corrects the clock and asks for new credentials; what it learns is used here from then on.
import { createHash } from "node:crypto";
import type { SQSClient } from "@aws-sdk/client-sqs";

export type WireOptions = { readonly signal: AbortSignal; readonly timeoutMs: number };

/** The answer of a call, or null: ask the client. Never throws. */
export type Wire = (
  action: "ReceiveMessage" | "DeleteMessageBatch" | "ChangeMessageVisibilityBatch",
  input: object,
  options: WireOptions,
) => Promise<unknown>;

/** After so many calls in a row that only the client could help, it is asked at once for a while. */
const MOST_FAILURES = 3;
const REST_MS = 30_000;

export function openWire(client: SQSClient): Wire {
  let prepared: Promise<{ readonly signer: Signer; readonly endpoint: Endpoint }> | null = null;
  let failures = 0;
  let restsUntil = 0;
  const call: Wire = async (action, input, { signal, timeoutMs }) => {
    prepared ??= prepare(client);
    const { signer, endpoint } = await prepared;
    const { protocol, hostname, port, path } = endpoint;
    const host = port === undefined ? hostname : `${hostname}:${port}`;
    const body = JSON.stringify(input);
    const headers = {
      host,
      "content-type": "application/x-amz-json-1.0",
      "content-length": String(Buffer.byteLength(body)),
      "x-amz-target": `AmazonSQS.${action}`,
      "x-amzn-query-mode": "true",
    };
    const request = { method: "POST", protocol, hostname, path, query: {}, headers, body };
    const signingDate = new Date(Date.now() + client.config.systemClockOffset);
    const signed = await signer.sign(request, { signingDate });
    if (signal.aborted) return null;
    const late = new AbortController();
    const leave = () => late.abort();
    const timer = setTimeout(leave, timeoutMs);
    signal.addEventListener("abort", leave, { once: true });
    try {
      const answer = await fetch(`${protocol}//${host}${path}`, {
        method: "POST",
        headers: signed.headers,
        body,
        redirect: "error",
        signal: late.signal,
      });
      const text = await answer.text();
      if (answer.status !== 200) return null;
      const said: unknown = JSON.parse(text);
      return action !== "ReceiveMessage" || isUndamaged(said as Received) ? said : null;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
    }
  };
  return async (action, input, options) => {
    if (performance.now() < restsUntil) return null;
    const answer = await call(action, input, options).catch(() => null);
    failures = answer === null && !options.signal.aborted ? failures + 1 : 0;
    if (failures >= MOST_FAILURES) {
      restsUntil = performance.now() + REST_MS;
      prepared = null;
    }
    return answer;
  };
}

type Signer = {
  readonly sign: (
    request: object,
    options: { readonly signingDate: Date },
  ) => Promise<{ readonly headers: Record<string, string> }>;
};

type Endpoint = {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly path: string;
};

async function prepare(client: SQSClient) {
  const { config } = client;
  const signer = (await config.signer()) as Signer;
  if (config.endpoint !== undefined) return { signer, endpoint: await config.endpoint() };
  const { url } = config.endpointProvider({
    Region: await config.region(),
    UseDualStack: await config.useDualstackEndpoint(),
    UseFIPS: await config.useFipsEndpoint(),
  });
  const port = url.port === "" ? undefined : Number(url.port);
  return {
    signer,
    endpoint: { protocol: url.protocol, hostname: url.hostname, port, path: url.pathname },
  };
}

type Received = {
  readonly Messages?: readonly { readonly Body?: string; readonly MD5OfBody?: string }[];
};

/** As the client checks it: what stands between here and SQS may change bodies. */
const isUndamaged = ({ Messages = [] }: Received): boolean =>
  Messages.every(
    ({ Body = "", MD5OfBody }) =>
      createHash("md5").update(Body, "utf8").digest("hex") === MD5OfBody,
  );
