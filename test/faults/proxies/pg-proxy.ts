// A proxy between veil and PostgreSQL that reads the protocol, so that a fault strikes where a test wants
// it: before a load, in the middle of it, between its commit and its answer. It knows a load by its words,
// not by how many messages a driver needs for it, and lets the SCRAM handshake through untouched.
import { connect, type Server, type Socket } from "node:net";
import { listen, portOf } from "./listen.ts";
import { PgConnection } from "./pg-connection.ts";
import {
  type Paused,
  type PausedAll,
  PG_POINTS,
  type PgAnswer,
  type PgControl,
  type PgMode,
  type PgPoint,
} from "./pg-control.ts";

export type { Paused, PausedAll, PgAnswer, PgMode, PgPoint } from "./pg-control.ts";

export type PgProxyOptions = {
  readonly host?: string;
  /** The server's. */
  readonly port: number;
  /** Called at each point, before the bytes that lead away from it go on. */
  readonly onPoint?: (point: PgPoint) => void;
  /** After `onPoint`: what is to be waited for before those bytes go on; null for nothing. */
  readonly gate?: (point: PgPoint) => Promise<void> | null;
};

export type PgProxy = {
  readonly port: number;
  /** A database's URL, by way of this proxy. */
  readonly url: (url: string) => string;
  /** Until the next call. Refusing leaves open connections alone: see `dropAll`. */
  readonly set: (mode: PgMode) => Promise<void>;
  /** Resets connections as they come to this point, so often; the server acts on what had gone through. */
  readonly cutNext: (point: PgPoint, times?: number) => void;
  /** Answers when a connection has come to this point, and keeps it there. */
  readonly pauseNext: (point: PgPoint) => Promise<Paused>;
  /** From now on keeps every connection that comes to this point. */
  readonly pauseAll: (point: PgPoint) => PausedAll;
  readonly answerNext: (answer: PgAnswer, times?: number) => void;
  /** The next load gets the answer of the load before it; its own is dropped, or never comes to be. */
  readonly swapNext: (how?: "ran" | "unran") => void;
  /** Nothing of cutNext, pauseNext, pauseAll, answerNext and swapNext is left to happen. */
  readonly disarm: () => void;
  /** Whether something of them still is. */
  readonly armed: () => boolean;
  /** Resets every open connection; answers with how many. */
  readonly dropAll: () => number;
  readonly connections: () => number;
  readonly counts: Readonly<Record<PgPoint, number>>;
  readonly stop: () => Promise<void>;
};

export async function startPgProxy(options: PgProxyOptions): Promise<PgProxy> {
  const control: PgControl = {
    mode: { kind: "pass" },
    changed: Promise.withResolvers(),
    cuts: new Map(),
    pauses: new Map(),
    barriers: new Map(),
    answers: [],
    swap: null,
    lastAnswer: null,
    counts: Object.fromEntries(PG_POINTS.map((point) => [point, 0])) as Record<PgPoint, number>,
    onPoint: options.onPoint ?? (() => {}),
    gate: options.gate ?? (() => null),
  };
  const open = new Set<PgConnection>();
  const accept = (client: Socket) => {
    if (control.mode.kind === "refuse") {
      client.on("error", () => {});
      client.destroy();
      return;
    }
    const server = connect(options.port, options.host ?? "127.0.0.1");
    const connection = new PgConnection(client, server, control, () => open.delete(connection));
    open.add(connection);
  };
  let listener: Server | null = await listen(0, accept);
  const port = portOf(listener);
  const set = async (mode: PgMode) => {
    control.mode = mode;
    control.changed.resolve();
    control.changed = Promise.withResolvers();
    const closed = mode.kind === "refuse" && mode.how === "closed";
    if (closed) {
      listener?.close();
      listener = null;
    } else listener ??= await listen(port, accept);
  };
  const dropAll = () => {
    const connections = [...open];
    for (const connection of connections) connection.cut();
    return connections.length;
  };
  return {
    port,
    url: (text) => {
      const url = new URL(text);
      url.hostname = "127.0.0.1";
      url.port = String(port);
      return url.href;
    },
    set,
    cutNext: (point, times = 1) => control.cuts.set(point, times),
    pauseNext: (point) => new Promise((resolve) => control.pauses.set(point, resolve)),
    pauseAll: (point) => pauseAll(control, point),
    answerNext: (answer, times = 1) => control.answers.push({ answer, times }),
    swapNext: (how = "ran") => {
      control.swap = how;
    },
    disarm: () => {
      control.cuts.clear();
      control.pauses.clear();
      control.barriers.clear();
      control.answers = [];
      control.swap = null;
    },
    armed: () =>
      control.swap !== null ||
      control.cuts.size + control.pauses.size + control.barriers.size + control.answers.length > 0,
    dropAll,
    connections: () => open.size,
    counts: control.counts,
    stop: async () => {
      await set({ kind: "refuse", how: "closed" });
      dropAll();
    },
  };
}

function pauseAll({ barriers }: PgControl, point: PgPoint): PausedAll {
  const reached = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<"resume" | "cut">();
  const barrier = { reach: reached.resolve, opened: opened.promise };
  barriers.set(point, barrier);
  const open = (how: "resume" | "cut") => {
    if (barriers.get(point) === barrier) barriers.delete(point);
    opened.resolve(how);
  };
  return {
    reached: reached.promise,
    resume: () => open("resume"),
    cut: () => open("cut"),
  };
}
