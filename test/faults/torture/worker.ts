// One veil process after another, each life behind the same two proxies. A kill at a named point happens
// inside the proxy, before the bytes that lead away from that point go on.

import { endsWithUs } from "../../support/ends-with-us.ts";
import { PG_POINTS, type PgPoint } from "../proxies/pg-control.ts";
import { type PgProxy, startPgProxy } from "../proxies/pg-proxy.ts";
import { SQS_POINTS, type SqsPoint, type SqsProxy, startSqsProxy } from "../proxies/sqs-proxy.ts";
import type { SharedQueue } from "../proxies/sqs-shared.ts";
import type { Servers } from "./servers.ts";

export type Point = PgPoint | SqsPoint;
export const POINTS: readonly Point[] = [...PG_POINTS, ...SQS_POINTS];

export type WorkerOptions = {
  readonly program: readonly string[];
  readonly servers: Servers;
  readonly shared: SharedQueue;
  /** What its connections to the database wait for at a point. */
  readonly gate?: (point: PgPoint) => Promise<void> | null;
  /** More variables of its environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** A file that Bun loads before the program; not for a compiled binary. */
  readonly preload?: string;
  /** Each line that it writes to stderr. */
  readonly onLine?: (line: string) => void;
};

/** How a life ended. */
export type End = {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  /** The last of it. */
  readonly stderr: string;
  /** Whether it had come so far as to connect to the database. */
  readonly touched: boolean;
};

export type Worker = {
  readonly pg: PgProxy;
  readonly sqs: SqsProxy;
  /** Starts the next life; answers when that has ended. */
  readonly live: () => Promise<End>;
  readonly pid: () => number | null;
  /** False where there is no process to send it to. */
  readonly signal: (name: "SIGKILL" | "SIGTERM" | "SIGSTOP" | "SIGCONT") => boolean;
  /** Kills at the next such point; false where it does not come to it in time. */
  readonly killAt: (point: Point, withinMs: number) => Promise<boolean>;
  /** How often its lives have come to this point. */
  readonly passed: (point: Point) => number;
  /** Runs `args` with this worker's environment, by way of its proxies. */
  readonly run: (args: readonly string[]) => Promise<End>;
  readonly stop: () => Promise<void>;
};

const KEPT_CHARACTERS = 4000;
const FOLLOW = ["etl", "--follow", "--json", "--log", "json"];

export async function startWorker(options: WorkerOptions): Promise<Worker> {
  let armed: { readonly point: Point; readonly strike: () => void } | null = null;
  let touched = false;
  const onPoint = (point: Point) => {
    if (point === "connect") touched = true;
    if (armed?.point !== point) return;
    const { strike } = armed;
    armed = null;
    strike();
  };
  const { servers, shared } = options;
  const [bun = "", ...rest] = options.program;
  const preload = options.preload === undefined ? [] : ["--preload", options.preload];
  const program = [bun, ...preload, ...rest];
  const pg = await startPgProxy({
    port: servers.databasePort,
    onPoint,
    ...(options.gate === undefined ? {} : { gate: options.gate }),
  });
  const sqs = await startSqsProxy(shared, { onPoint });
  const env = {
    PATH: process.env.PATH ?? "",
    HOME: "/",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
    QUEUE_URL: servers.queue.url,
    DATABASE_URL: pg.url(servers.etlUrl),
    VEIL_TOKEN_KEY: servers.keys.VEIL_TOKEN_KEY,
    VEIL_RECIPIENTS: servers.keys.VEIL_RECIPIENTS,
    ...sqs.env,
    ...options.env,
  };
  const spawn = (args: readonly string[]) =>
    Bun.spawn(endsWithUs([...program, ...args]), {
      cwd: "/",
      env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
  const follow = async (process: ReturnType<typeof spawn>): Promise<End> => {
    const [stdout, stderr] = await Promise.all([
      readTail(process.stdout),
      readTail(process.stderr, options.onLine),
      process.exited,
    ]);
    const signal = process.signalCode === null ? null : String(process.signalCode);
    return { code: process.exitCode, signal, stdout, stderr, touched };
  };
  let child: ReturnType<typeof spawn> | null = null;
  const signal: Worker["signal"] = (name) => {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return false;
    child.kill(name);
    return true;
  };
  // Nothing of a run that is interrupted goes on without its proxies.
  const abandon = () => void signal("SIGKILL");
  process.on("exit", abandon);
  return {
    pg,
    sqs,
    live: async () => {
      touched = false;
      child = spawn(FOLLOW);
      const end = await follow(child);
      child = null;
      return end;
    },
    pid: () => child?.pid ?? null,
    signal,
    killAt: (point, withinMs) =>
      new Promise((resolve) => {
        const late = setTimeout(() => {
          armed = null;
          resolve(false);
        }, withinMs);
        armed = {
          point,
          strike: () => {
            clearTimeout(late);
            resolve(signal("SIGKILL"));
          },
        };
      }),
    passed: (point) => ({ ...pg.counts, ...sqs.counts })[point],
    run: (args) => follow(spawn(args)),
    stop: async () => {
      process.removeListener("exit", abandon);
      signal("SIGKILL");
      await Promise.all([pg.stop(), sqs.stop()]);
    },
  };
}

async function readTail(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  onLine: (line: string) => void = () => {},
): Promise<string> {
  let kept = "";
  let line = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    kept = (kept + text).slice(-KEPT_CHARACTERS);
    const lines = (line + text).split("\n");
    line = lines.pop() ?? "";
    for (const whole of lines) onLine(whole);
  }
  return kept;
}
