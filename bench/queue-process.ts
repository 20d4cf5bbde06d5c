// The queue server of the benchmarks, a process of its own: fauxqs' queues and request handlers behind
// Bun's HTTP server. With fauxqs' own (Fastify on node:http) a message costs it 20 µs of CPU instead of
// 13, and it would be the limit of what is measured here. Filled, watched and timed from inside, which
// slows no client down: what a run took is known from its first receive to its last deletion.
//
// Takes orders from the process that started it, and ends with it.
import { startFauxqs } from "fauxqs";
import { type LoginKind, loginBody } from "./logins.ts";

export type Order =
  /** A new queue, holding logins of these numbers; counting and timing start over. */
  | { do: "fill"; kind: LoginKind; from: number; count: number; expected?: number }
  /** Sends logins at this rate from now on; each one's user id begins with when it was sent. */
  | { do: "pace"; from: number; count: number; perSecond: number }
  | { do: "figures" };

export type QueueFigures = {
  readonly deleted: number;
  /** From the first receive that was asked for to the last deletion. */
  readonly seconds: number;
  /** Of this process, in that time. */
  readonly cpuMicros: number;
  /** By action: before the first receive, and from it on. */
  readonly startRequests: Readonly<Record<string, number>>;
  readonly requests: Readonly<Record<string, number>>;
};

export type QueueEvent =
  | { event: "listening"; endpoint: string }
  | { event: "answer"; answer: { url: string } | QueueFigures | null }
  /** Something asked for messages for the first time. */
  | { event: "receiving" }
  /** Every so many, and when all that were expected are gone. */
  | { event: "deleted"; deleted: number };

const MILESTONE = 100_000;
const TIMERS_MS = 500;
const PACE_MS = 5;

/** As much of fauxqs' insides as is used here. */
type FauxqsQueue = {
  processTimers: () => void;
  dequeue: (...values: unknown[]) => unknown[];
  deleteMessage: (receipt: string) => boolean;
};
type Handled = { headers: Record<string, string>; body: unknown };
type Reply = { status: (code: number) => void; header: (name: string, value: string) => void };
type Router = { handle: (request: Handled, reply: Reply) => Promise<unknown> };
type Class<T> = { readonly prototype: T };

const inside = async (path: string) =>
  await import(new URL(path, import.meta.resolve("fauxqs")).href);
const { SqsStore } = (await inside("./sqs/sqsStore.js")) as {
  SqsStore: Class<{ createQueue: (...values: unknown[]) => FauxqsQueue }>;
};
const { SqsRouter } = (await inside("./sqs/sqsRouter.js")) as {
  SqsRouter: Class<{ register: (this: Router, ...values: unknown[]) => void }>;
};

/** The current queue. Polls of those who are gone may still end at the one before. */
let made: FauxqsQueue | null = null;
const { createQueue } = SqsStore.prototype;
SqsStore.prototype.createQueue = function (...values) {
  made = createQueue.apply(this, values);
  return made;
};
let router: Router | null = null;
const { register } = SqsRouter.prototype;
SqsRouter.prototype.register = function (...values) {
  router = this;
  register.apply(this, values);
};

const fauxqs = await startFauxqs({ port: 0, logger: false, host: "localhost" });
let queues = 0;
let name = "";
let deleted = 0;
let expected = 0;
let startedAt: number | null = null;
let lastAt = 0;
let cpuAtStart = process.cpuUsage();
let cpuAtEnd = cpuAtStart;
let startRequests: Record<string, number> = {};
let requests: Record<string, number> = {};

function open(): string {
  fauxqs.deleteQueue(name);
  name = `logins-${++queues}`;
  const { queueUrl } = fauxqs.createQueue(name, { attributes: { VisibilityTimeout: "120" } });
  const url = new URL(new URL(queueUrl).pathname, front.url).href;
  watch(made!);
  [deleted, expected, startedAt] = [0, 0, null];
  [startRequests, requests] = [{}, {}];
  return url;
}

function watch(queue: FauxqsQueue): void {
  const { processTimers, dequeue, deleteMessage } = queue;
  let timersAt = 0;
  // It looks through all that is in flight, at every receive: whoever holds thousands would slow it down.
  queue.processTimers = () => {
    if (performance.now() - timersAt < TIMERS_MS) return;
    timersAt = performance.now();
    processTimers.call(queue);
  };
  queue.dequeue = (...values) => {
    if (startedAt === null && queue === made) {
      startedAt = performance.now();
      cpuAtStart = process.cpuUsage();
      tell({ event: "receiving" });
    }
    return dequeue.apply(queue, values);
  };
  queue.deleteMessage = (receipt) => {
    const isDone = deleteMessage.call(queue, receipt);
    if (isDone && queue === made) {
      deleted++;
      lastAt = performance.now();
      if (deleted === expected) cpuAtEnd = process.cpuUsage();
      if (deleted % MILESTONE === 0 || deleted === expected) tell({ event: "deleted", deleted });
    }
    return isDone;
  };
}

/** In small portions, as many as are due: a producer's timer is no finer. */
function pace(from: number, count: number, perSecond: number): void {
  const begun = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.min(count, ((performance.now() - begun) / 1000) * perSecond);
    for (; sent < due; sent++) {
      const n = from + sent;
      fauxqs.sendMessage(name, loginBody("new", n, `${Date.now()}-${n}`));
    }
    if (sent === count) clearInterval(timer);
  }, PACE_MS);
}

function answer(order: Order): { url: string } | QueueFigures | null {
  if (order.do === "fill") {
    const url = open();
    for (let i = 0; i < order.count; i++) {
      fauxqs.sendMessage(name, loginBody(order.kind, order.from + i));
    }
    expected = order.expected ?? order.count;
    return { url };
  }
  if (order.do === "pace") {
    pace(order.from, order.count, order.perSecond);
    return null;
  }
  const cpu = cpuAtEnd.user + cpuAtEnd.system - cpuAtStart.user - cpuAtStart.system;
  return {
    ...{ deleted, startRequests, requests },
    seconds: startedAt === null || deleted === 0 ? 0 : (lastAt - startedAt) / 1000,
    cpuMicros: deleted === expected ? cpu : 0,
  };
}

const tell = (event: QueueEvent) => process.send?.(event);

const front = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  idleTimeout: 120, // longer than any poll
  fetch: async (request) => {
    const target = request.headers.get("x-amz-target") ?? "";
    const body: unknown = await request.json();
    let status = 200;
    const headers: Record<string, string> = {};
    const done = router!.handle(
      { headers: { "x-amz-target": target }, body },
      {
        status: (code) => {
          status = code;
        },
        header: (name, value) => {
          headers[name] = value;
        },
      },
    );
    // Counted once the handler has begun: it is what says that receiving has.
    const counted = startedAt === null ? startRequests : requests;
    const action = target.replace("AmazonSQS.", "");
    counted[action] = (counted[action] ?? 0) + 1;
    return new Response(JSON.stringify(await done), { status, headers });
  },
});

process.on("message", (order: Order) => tell({ event: "answer", answer: answer(order) }));
process.on("disconnect", () => process.exit(0));
tell({ event: "listening", endpoint: front.url.origin });
