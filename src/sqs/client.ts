// The SDK's client as veil uses it: renewed when its credentials have expired, asked again when its clock was
// wrong, and its failures put into words.
import { SQSClient, type SQSClientConfig } from "@aws-sdk/client-sqs";
import type { QueueConfig } from "../config/queue-url.ts";
import { describe, hostOf, isExpired, isMistimed } from "./errors.ts";
import { type FastCall, openFastCalls } from "./fast-calls.ts";

/** How long a queue is waited for. */
export type QueueWaits = {
  /** For an answer; a long poll has so much more than the time that it asks for. */
  readonly queueAnswerMs: number;
  /** For a connection. */
  readonly queueConnectMs: number;
};

export const QUEUE_WAITS: QueueWaits = { queueAnswerMs: 10_000, queueConnectMs: 5_000 };

export const LONGEST_POLL_SECONDS = 20;
const ATTEMPTS = 3;

type Connection = {
  readonly sdk: SQSClient;
  /** Null where it cannot help: then the SDK is asked. */
  readonly fast: FastCall;
};

/** State: the client in use, and whether it has worked yet. */
export class QueueClient {
  readonly #config: QueueConfig;
  readonly #waits: QueueWaits;
  readonly #host: string;
  #connection: Connection;
  #hasWorked = false;

  constructor(config: QueueConfig, waits: QueueWaits) {
    this.#config = config;
    this.#waits = waits;
    this.#host = hostOf(config.queue, config.endpoint);
    this.#connection = this.#connect();
  }

  /** `what` names the call where it fails, as `receive messages`. Throws a `Failure` that may be shown. */
  async call<T>(what: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    const used = this.#connection;
    try {
      const answer = await work(used).catch((error) => {
        // By now the client knows the server's time. It asks again by itself only where that is far from
        // this host's, not where a clock that was wrong has been set right.
        if (!isMistimed(error)) throw error;
        return work(used);
      });
      this.#hasWorked = true;
      return answer;
    } catch (error) {
      if (isExpired(error) && this.#connection === used) this.#renew();
      throw describe(error, { what, host: this.#host, hasWorked: this.#hasWorked });
    }
  }

  close(): void {
    this.#connection.sdk.destroy();
  }

  /** Credentials have expired before their time: a new client asks their provider again. */
  #renew(): void {
    const { sdk: old } = this.#connection;
    // Not from what the SDK remembers of files: somebody else may have renewed them.
    const credentials = old.config.credentialDefaultProvider({
      ...old.config,
      parentClientConfig: old.config,
      ignoreCache: true,
    });
    this.#connection = this.#connect(credentials);
    const pollsEndMs = LONGEST_POLL_SECONDS * 1000 + this.#waits.queueAnswerMs;
    setTimeout(() => old.destroy(), pollsEndMs).unref();
  }

  #connect(provider?: SQSClientConfig["credentials"]): Connection {
    const { endpoint, region, credentials = null } = this.#config;
    const given = credentials ?? provider;
    const sdk = new SQSClient({
      ...(endpoint === null ? {} : { endpoint }),
      ...(region === null ? {} : { region }),
      ...(given === undefined ? {} : { credentials: given }),
      maxAttempts: ATTEMPTS,
      requestHandler: {
        connectionTimeout: this.#waits.queueConnectMs,
        throwOnRequestTimeout: true,
      },
    });
    return { sdk, fast: openFastCalls(sdk) };
  }
}
