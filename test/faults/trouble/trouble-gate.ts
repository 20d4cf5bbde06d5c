// A gate in front of an SQS that lets a caller in by the access key of its signature, as AWS does while
// temporary credentials are good; and that a test can close for some calls for good.
import { refusalOf, type SqsFault } from "../proxies/sqs-faults.ts";

/** What a balancer says in the place of a queue. */
export type Page = { readonly status: number; readonly body: string };

export type Gate = {
  readonly env: { readonly AWS_ENDPOINT_URL_SQS: string };
  /** From now on only this key is good; those of before have expired. */
  readonly allow: (accessKeyId: string) => void;
  /** The keys with which calls were signed, those of refused calls included. */
  readonly seen: ReadonlySet<string>;
  /** How calls of this name (`ReceiveMessage`) are refused, after so many more; null lets them in. */
  readonly refuse: (name: string, fault: SqsFault | Page | null, after?: number) => void;
  readonly refused: (name: string) => number;
  /** How many entries each batch of this name had. */
  readonly entries: (name: string) => readonly number[];
  readonly stop: () => Promise<void>;
};

export async function withGate(
  address: string,
  accessKeyId: string,
  work: (gate: Gate) => Promise<void>,
): Promise<void> {
  const gate = startGate(address, accessKeyId);
  try {
    await work(gate);
  } finally {
    await gate.stop();
  }
}

function startGate(address: string, accessKeyId: string): Gate {
  let good = accessKeyId;
  const seen = new Set<string>();
  const refusals = new Map<string, { readonly fault: SqsFault | Page; after: number }>();
  const counts = new Map<string, number>();
  const batches: { readonly name: string; readonly entries: number }[] = [];
  const answer = (fault: SqsFault | Page) => {
    if (typeof fault === "object") {
      const headers = { "content-type": "text/html" };
      return new Response(fault.body, { status: fault.status, headers });
    }
    const { status, headers, body } = refusalOf(fault)!;
    return new Response(body, { status, headers });
  };
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 60,
    fetch: async (request) => {
      const key = /Credential=([^/]+)\//.exec(request.headers.get("authorization") ?? "")?.[1];
      if (key !== undefined) seen.add(key);
      const name = request.headers.get("x-amz-target")?.split(".").at(-1) ?? "";
      const refusal = refusals.get(name);
      const isRefused = refusal !== undefined && refusal.after-- <= 0;
      const fault = isRefused ? refusal.fault : key === good ? null : "expired-token";
      if (fault !== null) {
        counts.set(name, (counts.get(name) ?? 0) + 1);
        return answer(fault);
      }
      const body = await request.text();
      batches.push({
        name,
        entries: (JSON.parse(body).Entries as unknown[] | undefined)?.length ?? 1,
      });
      const passed = await fetch(`${address}/`, {
        method: "POST",
        headers: request.headers,
        body,
      });
      const headers = new Headers(passed.headers);
      headers.delete("content-encoding");
      return new Response(await passed.text(), { status: passed.status, headers });
    },
  });
  return {
    env: { AWS_ENDPOINT_URL_SQS: `http://127.0.0.1:${server.port}` },
    allow: (key) => {
      good = key;
    },
    seen,
    refuse: (name, fault, after = 0) => {
      if (fault === null) refusals.delete(name);
      else refusals.set(name, { fault, after });
    },
    refused: (name) => counts.get(name) ?? 0,
    entries: (wanted) =>
      batches.filter(({ name }) => name === wanted).map(({ entries }) => entries),
    stop: () => server.stop(true),
  };
}
