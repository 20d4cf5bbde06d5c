// The queue server's process, as the benchmarks give it orders.
import { fileURLToPath } from "node:url";
import type { LoginKind } from "./logins.ts";
import type { Order, QueueEvent, QueueFigures } from "./queue-process.ts";

export type BenchQueue = {
  readonly endpoint: string;
  /** Makes a queue that holds so many logins, and says its URL; counting and timing start over. */
  readonly fill: (logins: {
    readonly kind: LoginKind;
    readonly from: number;
    readonly count: number;
    /** How many are to be deleted in the end, where more will be sent. */
    readonly expected?: number;
  }) => Promise<string>;
  readonly pace: (sending: {
    readonly from: number;
    readonly count: number;
    readonly perSecond: number;
  }) => Promise<void>;
  readonly figures: () => Promise<QueueFigures>;
  /** Calls back with everything that happens, until the function that it returns is called. */
  readonly on: (listener: (event: QueueEvent) => void) => () => void;
  readonly stop: () => void;
};

export async function startQueue(): Promise<BenchQueue> {
  const listeners = new Set<(event: QueueEvent) => void>();
  const script = fileURLToPath(new URL("./queue-process.ts", import.meta.url));
  const next = <E extends QueueEvent["event"]>(kind: E) =>
    new Promise<Extract<QueueEvent, { event: E }>>((resolve) => {
      const listener = (event: QueueEvent) => {
        if (event.event !== kind) return;
        listeners.delete(listener);
        resolve(event as Extract<QueueEvent, { event: E }>);
      };
      listeners.add(listener);
    });
  const listening = next("listening");
  const child = Bun.spawn([process.execPath, "--no-env-file", script], {
    ipc: (event: QueueEvent) => {
      for (const listener of [...listeners]) listener(event);
    },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const died = child.exited.then((code): never => {
    throw new Error(`the queue server ended (${code})`);
  });
  died.catch(() => {});
  const ask = async (order: Order) => {
    const answered = next("answer");
    child.send(order);
    return (await Promise.race([answered, died])).answer;
  };
  const { endpoint } = await Promise.race([listening, died]);
  return {
    endpoint,
    fill: async (logins) => ((await ask({ do: "fill", ...logins })) as { url: string }).url,
    pace: async (sending) => {
      await ask({ do: "pace", ...sending });
    },
    figures: async () => (await ask({ do: "figures" })) as QueueFigures,
    on: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    stop: () => child.kill("SIGKILL"),
  };
}
