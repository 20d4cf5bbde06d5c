// What `veil etl --follow` does when the queue is not full: how it idles, and how long a login takes from
// being sent to being committed.
import { setTimeout as sleep } from "node:timers/promises";
import { cpuMicros } from "./processes.ts";
import { environmentOf, PROGRAMS, start } from "./programs.ts";
import type { QueueEvent } from "./queue-process.ts";
import { type Servers, veil, withConnection } from "./servers.ts";

export type Idle = {
  readonly seconds: number;
  /** On a queue that was empty from the start, its first receive included. */
  readonly fromStart: Rest;
  /** After some messages came. */
  readonly afterLoad: Rest;
};

type Rest = { readonly requests: number; readonly cpuMillis: number };

export type Latency = {
  /** Asked for, and what came of it. */
  readonly perSecond: number;
  readonly sentPerSecond: number;
  readonly messages: number;
  /** From when a login was sent to when its row was committed. */
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** With the first second, in which the program warms up. */
  readonly p99MsFromStart: number;
  readonly requestsPer1000: number;
};

const WARM_UP_MS = 1000;
export const IDLE_MESSAGES = 2000;

/** Idles for so long, loads some messages, and idles for as long again. */
export function measureIdle(servers: Servers, seconds: number, from: number): Promise<Idle> {
  return following(servers, IDLE_MESSAGES, async (pid) => {
    const rest = async (counted: number): Promise<Rest> => {
      const before = cpuMicros(pid);
      await sleep(seconds * 1000);
      const cpuMillis = (cpuMicros(pid) - before) / 1000;
      return { cpuMillis, requests: (await countRequests(servers)) - counted };
    };
    const fromStart = await rest(0);
    const deleted = until(servers, 60_000, isDeleted(IDLE_MESSAGES));
    await servers.queue.pace({ from, count: IDLE_MESSAGES, perSecond: IDLE_MESSAGES });
    await deleted;
    return { seconds, fromStart, afterLoad: await rest(await countRequests(servers)) };
  });
}

/** Sends so many logins at an even rate; those of the first second warm it up, and do not count. */
export function measureLatency(
  servers: Servers,
  messages: number,
  perSecond: number,
  from: number,
): Promise<Latency> {
  const count = messages + Math.ceil((perSecond * WARM_UP_MS) / 1000);
  return following(servers, count, async (_, database) => {
    const patience = 60_000 + (count / perSecond) * 3000;
    const deleted = until(servers, patience, isDeleted(count));
    await servers.queue.pace({ from, count, perSecond });
    await deleted;
    const asked = await countRequests(servers);
    const row = await withConnection(servers.connect(database), async (sql) => {
      const [first] = await sql`
        with timed as (
          select
            split_part(user_id, '-', 1)::float8 as sent,
            extract(epoch from pg_xact_commit_timestamp(xmin))::float8 * 1000 as committed
          from public.user_logins
        ), warm as (
          select * from timed where sent >= (select min(sent) + ${WARM_UP_MS} from timed)
        )
        select
          count(*)::integer as messages,
          percentile_cont(0.5) within group (order by committed - sent) as median,
          percentile_cont(0.99) within group (order by committed - sent) as p99,
          max(committed - sent) as max,
          (select percentile_cont(0.99) within group (order by committed - sent) from timed) as from_start,
          count(*) / greatest(max(sent) - min(sent), 1) * 1000 as rate
        from warm`;
      return first;
    });
    return {
      perSecond,
      sentPerSecond: Number(row?.rate),
      messages: Number(row?.messages),
      medianMs: Number(row?.median),
      p99Ms: Number(row?.p99),
      maxMs: Number(row?.max),
      p99MsFromStart: Number(row?.from_start),
      requestsPer1000: (asked / count) * 1000,
    };
  });
}

/** Starts veil on an empty queue, does the work once it receives, and ends it. */
async function following<T>(
  servers: Servers,
  expected: number,
  work: (pid: number, database: string) => Promise<T>,
): Promise<T> {
  const url = await servers.queue.fill({ kind: "new", from: 0, count: 0, expected });
  const database = await servers.copy("veil");
  const receiving = until(servers, 60_000, (event) => event.event === "receiving");
  const env = environmentOf(servers, PROGRAMS.new, url, database);
  const child = start(veil("etl", "--follow"), env);
  const died = child.exited.then(async (code): Promise<never> => {
    throw new Error(`veil etl --follow ended (${code})\n${(await child.errors).slice(0, 2000)}`);
  });
  died.catch(() => {});
  try {
    await Promise.race([receiving, died]);
    return await Promise.race([work(child.pid, database), died]);
  } finally {
    child.kill("SIGTERM");
    const hangs = setTimeout(() => child.kill("SIGKILL"), 30_000);
    await child.exited;
    clearTimeout(hangs);
  }
}

/** From the first receive on. */
async function countRequests({ queue }: Servers): Promise<number> {
  const { requests } = await queue.figures();
  return Object.values(requests).reduce((sum, times) => sum + times, 0);
}

const isDeleted = (count: number) => (event: QueueEvent) =>
  event.event === "deleted" && event.deleted === count;

function until(
  { queue }: Servers,
  milliseconds: number,
  isIt: (event: QueueEvent) => boolean,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const tired = setTimeout(
    () => reject(new Error(`veil did nothing of it within ${milliseconds / 1000} s`)),
    milliseconds,
  );
  const forget = queue.on((event) => {
    if (isIt(event)) resolve();
  });
  const happened = promise.finally(() => {
    forget();
    clearTimeout(tired);
  });
  happened.catch(() => {}); // whoever waits for it may have failed meanwhile
  return happened;
}
