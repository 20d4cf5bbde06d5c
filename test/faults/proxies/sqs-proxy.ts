// A front of an SQS server for one worker: passes every call on, tells the points that it passes, and puts
// faults in the way. What the workers of one queue share (redeliveries, who got what) is in sqs-shared.ts.
import { type HttpMode, type HttpReply, type Outcome, startHttp } from "./http-wire.ts";
import { refusalOf, type SqsFault, skewRefusal } from "./sqs-faults.ts";
import type { SharedQueue } from "./sqs-shared.ts";

/**
 * `sent`: the server has not seen the call yet; `answered`: it has acted, and the client does not know;
 * `delivered`: the answer has left. A receive that brings no message passes `receive-sent` only.
 */
export const SQS_POINTS = [
  "receive-sent",
  "receive-answered",
  "receive-delivered",
  "delete-sent",
  "delete-answered",
  "delete-delivered",
  "visibility-sent",
  "visibility-answered",
  "visibility-delivered",
] as const;
export type SqsPoint = (typeof SQS_POINTS)[number];

export type SqsAction = "receive" | "delete" | "visibility" | "other";

export type SqsPaused = { readonly resume: () => void };

export type SqsProxy = {
  readonly port: number;
  /** To be merged over a queue's variables. */
  readonly env: { readonly AWS_ENDPOINT_URL_SQS: string };
  /** Until the next call. Refusing leaves open connections alone: see `dropAll`. */
  readonly set: (mode: HttpMode) => Promise<void>;
  /** Strikes so many of the next calls of this action; "any" takes all four. */
  readonly failNext: (fault: SqsFault, action: SqsAction | "any", times?: number) => void;
  /** Answers when a call has come to this point, and keeps it there. */
  readonly pauseNext: (point: SqsPoint) => Promise<SqsPaused>;
  /** From now on the server's clock is off by this much; 0 is right again. */
  readonly pretendClock: (offsetMs: number) => void;
  /** Nothing of failNext and pauseNext is left to happen. */
  readonly disarm: () => void;
  readonly armed: () => boolean;
  readonly dropAll: () => number;
  readonly connections: () => number;
  readonly counts: Readonly<Record<SqsPoint, number>>;
  /** How often each fault struck. */
  readonly struck: ReadonlyMap<SqsFault | "clock", number>;
  /** When no call is under way any more, those of a consumer that was killed included. */
  readonly idle: () => Promise<void>;
  readonly stop: () => Promise<void>;
};

export type SqsProxyOptions = {
  /** Called at each point, before the bytes that lead away from it go on. */
  readonly onPoint?: (point: SqsPoint) => void;
};

const ACTIONS: Readonly<Record<string, SqsAction>> = {
  ReceiveMessage: "receive",
  DeleteMessage: "delete",
  DeleteMessageBatch: "delete",
  ChangeMessageVisibility: "visibility",
  ChangeMessageVisibilityBatch: "visibility",
};

export async function startSqsProxy(
  shared: SharedQueue,
  options: SqsProxyOptions = {},
): Promise<SqsProxy> {
  const counts = Object.fromEntries(SQS_POINTS.map((point) => [point, 0])) as Record<
    SqsPoint,
    number
  >;
  const struck = new Map<SqsFault | "clock", number>();
  const pauses = new Map<SqsPoint, (paused: SqsPaused) => void>();
  let faults: { readonly fault: SqsFault; readonly action: SqsAction | "any"; times: number }[] =
    [];
  let clockOffset = 0;
  let underWay = 0;

  const reach = async (action: SqsAction, stage: "sent" | "answered" | "delivered") => {
    if (action === "other") return;
    const point: SqsPoint = `${action}-${stage}`;
    counts[point]++;
    options.onPoint?.(point);
    const pause = pauses.get(point);
    if (pause === undefined) return;
    pauses.delete(point);
    await new Promise<void>((resume) => pause({ resume }));
  };

  const strike = (name: SqsFault | "clock") => struck.set(name, (struck.get(name) ?? 0) + 1);

  const takeFault = (action: SqsAction): SqsFault | null => {
    const found = faults.find((one) => one.action === "any" || one.action === action);
    if (found === undefined) return null;
    if (--found.times <= 0) faults = faults.filter((one) => one !== found);
    strike(found.fault);
    return found.fault;
  };

  const act = async (
    action: SqsAction,
    name: string,
    headers: ReadonlyMap<string, string>,
    body: Buffer,
  ): Promise<Outcome> => {
    const refused = skewRefusal(headers.get("x-amz-date"), Date.now() + clockOffset);
    if (clockOffset !== 0 && refused !== null) {
      strike("clock");
      return { kind: "answer", reply: refused };
    }
    const fault = takeFault(action);
    const refusal = fault === null ? null : refusalOf(fault);
    if (refusal !== null) return { kind: "answer", reply: refusal };
    if (fault === "reset-before") return { kind: "reset" };
    if (fault === "silence") return { kind: "silence" };
    await reach(action, "sent");
    const asked = JSON.parse(body.toString("utf8"));
    const wish = fault === "partial" || fault === "lose" || fault === "empty" ? fault : null;
    const { reply, messages } = await shared.call(name, asked, headers, wish);
    const passes = action !== "receive" || messages > 0;
    if (passes) await reach(action, "answered");
    if (fault !== null && LOSES.includes(fault) && messages > 0) {
      await shared.giveBack(reply);
    }
    if (fault === "reset-after") return { kind: "reset" };
    if (fault === "reset-half") return { kind: "half", reply };
    if (fault === "truncated") {
      return { kind: "answer", reply: { ...reply, body: half(reply.body) } };
    }
    return {
      kind: "answer",
      reply,
      ...(passes ? { onSent: () => void reach(action, "delivered") } : {}),
    };
  };

  const http = await startHttp(async ({ headers, body }) => {
    const name = headers.get("x-amz-target")?.split(".").at(-1) ?? "";
    const action = ACTIONS[name] ?? "other";
    underWay++;
    try {
      const outcome = await act(action, name, headers, body);
      if (clockOffset === 0 || !("reply" in outcome)) return outcome;
      return { ...outcome, reply: dated(outcome.reply, Date.now() + clockOffset) };
    } catch {
      return { kind: "reset" }; // the queue's own server is gone
    } finally {
      underWay--;
    }
  });

  return {
    port: http.port,
    env: { AWS_ENDPOINT_URL_SQS: `http://127.0.0.1:${http.port}` },
    set: http.set,
    failNext: (fault, action, times = 1) => faults.push({ fault, action, times }),
    pauseNext: (point) => new Promise((resolve) => pauses.set(point, resolve)),
    pretendClock: (offsetMs) => {
      clockOffset = offsetMs;
    },
    disarm: () => {
      faults = [];
      pauses.clear();
    },
    armed: () => faults.length + pauses.size > 0,
    dropAll: http.dropAll,
    connections: http.connections,
    counts,
    struck,
    idle: async () => {
      while (underWay > 0) await Bun.sleep(10);
    },
    stop: http.stop,
  };
}

/** Nobody gets the answer: a queue hides what was in it for a time, and nobody needs to sit that out. */
const LOSES: readonly SqsFault[] = ["reset-after", "reset-half", "truncated"];

const half = (text: string): string => text.slice(0, text.length >> 1);

const dated = (reply: HttpReply, now: number): HttpReply => ({
  ...reply,
  headers: { ...reply.headers, date: new Date(now).toUTCString() },
});
