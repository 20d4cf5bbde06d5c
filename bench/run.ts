// One run of one program: a full queue, loaded to the last message, and what that took. A run that did not
// store and delete every message is a failure, not a figure.

import { cpuMicros, watchMemory } from "./processes.ts";
import { environmentOf, type Program, start } from "./programs.ts";
import { type Servers, withConnection } from "./servers.ts";
import { walOf, walSince } from "./wal.ts";

export type Figures = {
  /** From the first receive that the queue server saw to the last deletion. */
  readonly messagesPerSecond: number;
  /** Of the process and its own children, user and system, less what the run of one message took. */
  readonly cpuMicros: number;
  /** The same with starting up and ending. */
  readonly wholeCpuMicros: number;
  /** The CPU time of a run of one message. */
  readonly startCpuMillis: number;
  readonly peakRssMiB: number;
  /** The peak when the first 100,000 messages were deleted; null in a shorter run. */
  readonly peakRssMiBAt100k: number | null;
  /** From the first receive on. */
  readonly requestsPer1000: number;
  /** How much of one core the queue server used in that time. */
  readonly queueCores: number;
  /** CPU time of PostgreSQL, all of its processes, per message. */
  readonly postgresMicros: number;
  /** What is logged, by the whole server, per message: bytes, and pages that are logged whole. */
  readonly walBytes: number;
  readonly fullPageImages: number;
  readonly requests: Readonly<Record<string, number>>;
};

const MIB = 2 ** 20;

/** `from` is the first of `messages` + 1 login numbers that nothing else has used. */
export async function measure(
  servers: Servers,
  program: Program,
  messages: number,
  from: number,
): Promise<Figures> {
  const one = await run(servers, program, 1, from + messages, async () => {});
  const { queue, wal, ...whole } = await run(servers, program, messages, from, program.prepare);
  const requests = Object.values(queue.requests).reduce((sum, times) => sum + times, 0);
  return {
    messagesPerSecond: messages / queue.seconds,
    cpuMicros: (whole.cpuMicros - one.cpuMicros) / Math.max(1, messages - 1),
    wholeCpuMicros: whole.cpuMicros / messages,
    startCpuMillis: one.cpuMicros / 1000,
    peakRssMiB: whole.peakBytes / MIB,
    peakRssMiBAt100k: whole.peakBytesAt100k === null ? null : whole.peakBytesAt100k / MIB,
    requestsPer1000: (requests / messages) * 1000,
    queueCores: queue.cpuMicros / 1e6 / queue.seconds,
    postgresMicros: whole.postgresMicros / messages,
    walBytes: wal.bytes / messages,
    fullPageImages: wal.fullPageImages / messages,
    requests: queue.requests,
  };
}

async function run(
  servers: Servers,
  program: Program,
  messages: number,
  from: number,
  prepare: Program["prepare"],
) {
  const url = await servers.queue.fill({ kind: program.logins, from, count: messages });
  const database = await servers.copy(program.template);
  await prepare?.(database);
  const before = await countRows(servers, database);
  const walBefore = await walOf(servers);
  const postgresBefore = cpuMicros(servers.postmaster);
  const child = start(
    program.command(messages),
    environmentOf(servers, program, url, database),
    120_000 + messages * 2, // longer than that, it hangs
  );
  const memory = watchMemory(child.pid);
  let peakBytesAt100k: number | null = null;
  const forget = servers.queue.on((event) => {
    if (event.event === "deleted" && event.deleted === 100_000) {
      peakBytesAt100k = memory.peakBytes();
    }
  });
  const [code, errors] = await Promise.all([child.exited, child.errors]);
  forget();
  memory.stop();
  const postgresMicros = cpuMicros(servers.postmaster) - postgresBefore;
  const wal = walSince(walBefore, await walOf(servers));
  const queue = await servers.queue.figures();
  const rows = (await countRows(servers, database)) - before;
  if (code !== 0 || rows !== messages || queue.deleted !== messages) {
    throw new Error(
      `${program.title}: exit code ${code}, ${rows} rows and ${queue.deleted} deletions of ` +
        `${messages} messages\n${errors.slice(0, 2000)}`,
    );
  }
  return {
    ...{ queue, wal, postgresMicros, peakBytesAt100k },
    cpuMicros: child.cpuMicros(),
    peakBytes: memory.peakBytes(),
  };
}

/** Of what is sent now: the rows of years are not counted each time. */
const countRows = (servers: Servers, database: string): Promise<number> =>
  withConnection(servers.connect(database), async (sql) => {
    const [row] = await sql`
      select count(*)::integer as rows from public.user_logins
      where create_date >= (now() at time zone 'UTC')::date - 1`;
    return Number(row?.rows);
  });
