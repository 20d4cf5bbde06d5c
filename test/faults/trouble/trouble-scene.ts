// What each of the trouble tests has for itself: a migrated database and a queue, each behind its proxy,
// and a list of what was sent. Whatever the test does to its servers, nobody else's are touched.
import { setTimeout as sleep } from "node:timers/promises";
import type { Waits } from "../../../src/commands/servers.ts";
import { LOADS } from "../../../src/line/line.ts";
import { comeBack } from "../../line/stored.ts";
import { createDatabase } from "../../support/database.ts";
import { makeKeys, type TestKeys } from "../../support/keys.ts";
import { createQueue, useSqs } from "../../support/servers.ts";
import type { PgPoint } from "../proxies/pg-control.ts";
import { type PgProxy, startPgProxy } from "../proxies/pg-proxy.ts";
import { type SqsPoint, type SqsProxy, startSqsProxy } from "../proxies/sqs-proxy.ts";
import { type SharedOptions, type SharedQueue, shareQueue } from "../proxies/sqs-shared.ts";
import type { TroubleDatabase } from "./trouble-cluster.ts";
import { eventually, type Running, startRun } from "./trouble-run.ts";
import { judge, type SentMessage, type Verdict } from "./trouble-verdict.ts";

/** What a queue says of itself: half of it later, veil asks for more. */
const VISIBILITY_SECONDS = 2;
/** A queue's time goes by so much more slowly, so that nothing is late because the machine is busy. */
const SLOWER = 100;

/** Longer than messages stay hidden by themselves in `REAL_TIME`. */
export const EXPIRED_MS = 3_000;
export const REAL_TIME = { visibilitySeconds: 2, slower: 1 };

/** Much longer than a test takes: what can be received before has been handed back. */
export const LONG = { visibilitySeconds: 600 };

/** More than all loads that are under way at a time can take, of at most a thousand each. */
export const MORE_THAN_LOADS_TAKE = LOADS * 1000 + 1500;

/** Whether every combination is run, or one of each kind, as in CI. */
export const everyKind = process.env.TEST_FAULTS === "all";

export type SceneOptions = {
  readonly visibilitySeconds?: number;
  readonly slower?: number;
  readonly queue?: Partial<SharedOptions>;
  /** In place of a database on the tests' common server. */
  readonly database?: TroubleDatabase;
};

export type Scene = {
  readonly database: TroubleDatabase;
  readonly queueName: string;
  readonly keys: TestKeys;
  readonly env: Readonly<Record<string, string>>;
  readonly pg: PgProxy;
  readonly sqs: SqsProxy;
  readonly shared: SharedQueue;
  /** Called when the proxies pass a point. */
  readonly at: Partial<Record<PgPoint | SqsPoint, () => void>>;
  /** One in fifty is broken. Each has so many bytes besides, of which veil takes no notice. */
  readonly send: (count: number, bytes?: number) => void;
  readonly sent: readonly SentMessage[];
  readonly start: (
    args: readonly string[],
    env?: Readonly<Record<string, string>>,
    waits?: Partial<Waits>,
  ) => Running;
  /** Waits until all that was sent is stored and deleted. */
  readonly settled: () => Promise<void>;
  readonly stored: () => Promise<number>;
  /** Waits until more time was asked for, for each message that is with a consumer. */
  readonly keptHidden: () => Promise<void>;
  /** What a worker held that is gone is in the queue again, as if its time were over. */
  readonly comeBack: () => Promise<void>;
  readonly queued: () => { readonly ready: number; readonly inFlight: number };
  /** Of the messages in the queue, how often the one that was received most often was. */
  readonly mostReceived: () => number;
  readonly verdict: () => Promise<Verdict>;
  /** How many messages were delivered more than once, or never. */
  readonly deliveredOtherThanOnce: () => number;
};

/** `url`, with so long to connect: when a connection is given up, others go with it. */
export function connecting(url: string, seconds: number): string {
  const changed = new URL(url);
  changed.searchParams.set("connect_timeout", String(seconds));
  return changed.href;
}

/** An hour that is no edge of anything; the same for all messages of a run. */
const SENT_AT = Math.floor(Date.now() / 86_400_000) * 86_400_000 - 12 * 3_600_000;

/** Runs a test on servers of its own, and puts away all that it started, also after a failure. */
export async function withScene(
  options: SceneOptions,
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const undo: (() => unknown)[] = [];
  try {
    await work(await stage(options, undo));
  } finally {
    for (const step of undo.reverse()) await step();
  }
}

async function stage(options: SceneOptions, undo: (() => unknown)[]): Promise<Scene> {
  const { visibilitySeconds = VISIBILITY_SECONDS, slower = SLOWER } = options;
  const database = options.database ?? (await onCommonServer(undo));
  const [queue, keys, server] = await Promise.all([
    createQueue({ VisibilityTimeout: String(visibilitySeconds) }),
    makeKeys(),
    useSqs(),
  ]);
  const address = queue.env.AWS_ENDPOINT_URL_SQS ?? "";
  const shared = shareQueue({ address, sentAt: () => SENT_AT, slower, ...options.queue });
  const at: Scene["at"] = {};
  const onPoint = (point: PgPoint | SqsPoint) => at[point]?.();
  const sqs = await startSqsProxy(shared, { onPoint });
  const pg = await startPgProxy({ port: Number(new URL(database.etlUrl).port), onPoint });
  undo.push(() => Promise.all([sqs.stop(), pg.stop()]));

  const env = {
    ...queue.env,
    ...sqs.env,
    ...{ VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY, VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS },
    DATABASE_URL: connecting(pg.url(database.etlUrl), 600),
  };
  const sent: SentMessage[] = [];
  const send = (count: number, bytes = 0) => {
    for (let i = 0; i < count; i++) {
      const n = sent.length;
      const login = {
        user_id: `u${n}`,
        app_version: `2.3.${n % 1000}`,
        device_type: n % 2 === 0 ? "ios" : null,
        ip: `198.51.100.${n % 200}`,
        locale: "de",
        device_id: `device-${n}`,
      };
      const broken = n % 50 === 49;
      const filled = bytes === 0 ? login : { ...login, filling: "x".repeat(bytes) };
      const body = JSON.stringify(broken ? { ...filled, locale: 5 } : filled);
      sent.push({ id: queue.send(body), body, login: broken ? null : login });
    }
  };
  const inspect = () => {
    const found = server.inspectQueue(queue.name);
    if (found === undefined) throw new Error(`there is no queue ${queue.name}`);
    return found.messages;
  };
  const stored = async () => {
    const [row] = await database.sql`select count(*)::integer as count from etl.ledger`;
    return Number(row?.count);
  };
  return {
    ...{ database, queueName: queue.name, keys, env, pg, sqs, shared, at },
    ...{ send, sent, stored },
    start: (args, extra = {}, waits = {}) => {
      const run = startRun(args, { ...env, ...extra }, waits);
      undo.push(async () => {
        if (run.isRunning()) run.signal("SIGKILL");
        await run.ended;
      });
      return run;
    },
    settled: async () => {
      await eventually("all is stored", async () => (await stored()) === sent.length);
      await eventually("all is deleted", () => {
        const { ready, delayed, inflight } = inspect();
        return ready.length + delayed.length + inflight.length === 0;
      });
    },
    keptHidden: () =>
      eventually("what is held is kept hidden", () =>
        inspect().inflight.every(
          ({ message, visibilityDeadline }) =>
            // What was in an answer that a busy machine brought too late is held by nobody, and its time runs out.
            shared.hidden.has(message.messageId) || visibilityDeadline < Date.now(),
        ),
      ),
    comeBack: () =>
      eventually("what was held is back", async () => {
        await sqs.idle(); // the calls that it had open, polls above all
        await comeBack(queue.name).catch(() => {}); // one of those may have deleted it
        await sleep(100);
        return inspect().inflight.length === 0;
      }),
    queued: () => ({ ready: inspect().ready.length, inFlight: inspect().inflight.length }),
    mostReceived: () => {
      const { ready, inflight } = inspect();
      const messages = [...ready, ...inflight.map(({ message }) => message)];
      return Math.max(0, ...messages.map((one) => one.approximateReceiveCount));
    },
    verdict: () => judge(database.sql, sent, SENT_AT, keys),
    deliveredOtherThanOnce: () => sent.filter(({ id }) => shared.deliveries.get(id) !== 1).length,
  };
}

async function onCommonServer(undo: (() => unknown)[]): Promise<TroubleDatabase> {
  const database = await createDatabase();
  undo.push(() => database.drop());
  return {
    name: database.name,
    sql: database.sql(database.ownerUrl, { max: 2 }),
    login: database.login("etl"),
    etlUrl: database.url("etl"),
    another: () => database.sql(database.ownerUrl),
  };
}
