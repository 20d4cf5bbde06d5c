// `veil etl`: opens queue, database and keys, runs the line, and says what was done.
import { chainAudit } from "../audit/chain.ts";
import { readDatabase } from "../config/database-url.ts";
import { lineVariables, withLineVariables } from "../config/environment.ts";
import { readRecipients, readTokenKey } from "../config/keys.ts";
import { readQueue } from "../config/queue-url.ts";
import { Failure, Interrupted, misuse } from "../failure.ts";
import { DataKeys } from "../keys/data-keys.ts";
import { Availability, type Notice } from "../line/availability.ts";
import { type Counts, newCounts } from "../line/counts.ts";
import { KnownOriginals } from "../line/known-originals.ts";
import { etl, LOADS } from "../line/line.ts";
import { requireTokenKey } from "../line/load.ts";
import { type Database, openDatabase } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";
import { reaching, requireSchema } from "../postgres/schema.ts";
import { isQueueOutage } from "../sqs/errors.ts";
import { openQueue, type Queue } from "../sqs/queue.ts";
import { Progress } from "../terminal/terminal.ts";
import { describeVersion } from "../version.ts";
import { autoWorkers, type Crew, requireWorkers, runWorkers } from "../workers/parent.ts";
import { type Context, type Servers, withServers } from "./servers.ts";
import { formatNotice, formatReport, jsonSummary, type Ran, textSummary } from "./summary.ts";

export type EtlCommand = {
  readonly follow: boolean;
  readonly maxMessages: number | null;
  readonly json: boolean;
  readonly log: "text" | "json";
  readonly resetLocal: boolean;
  /** How long a stop may take. */
  readonly graceSeconds: number;
  readonly workers: number | "auto";
};

const REPORT_MS = 60_000;
const HOUSEKEEPING_MS = 60 * 60_000;
const LAST_LOOK_MS = 2_000;
/** How long an answer is waited for while starting. */
const START_MS = 12_000;
const HOUSEKEEP = "select from etl.housekeep()";

export async function runEtl(context: Context, command: EtlCommand): Promise<void> {
  const startedAt = performance.now();
  const counts = newCounts();
  const workers = command.workers === "auto" ? autoWorkers() : command.workers;
  if (workers > 1) requireWorkers();
  const crew: Crew = { workers, replaced: 0 };
  let inFlight = 0;
  let session: Servers | null = null;
  let failure: unknown = null;
  try {
    await withServers(
      context,
      {
        login: "local_etl",
        queue: true,
        endsItself: true,
        reset: command.resetLocal,
        variables: ["VEIL_TOKEN_KEY", "VEIL_RECIPIENTS"],
      },
      async (opened) => {
        session = opened;
        inFlight = await run(opened, command, context.interrupt, counts, crew);
      },
    );
  } catch (error) {
    // Wrong configuration: nothing was started, there is nothing to sum up.
    if (error instanceof Failure && error.exitCode === 2) throw error;
    // Stopped before anything was received: done, like every stop.
    if (!(error instanceof Interrupted)) failure = error;
  }
  const ran: Ran = {
    counts,
    crew,
    inFlight,
    seconds: Math.round((performance.now() - startedAt) / 10) / 100,
    isStopped: context.interrupt.aborted,
    isFailed: failure !== null,
    session,
  };
  if (command.json) context.terminal.out(jsonSummary(ran));
  else if (failure === null || counts.received + counts.handedBack > 0)
    context.terminal.out(textSummary(ran));
  if (failure !== null) throw failure;
}

/** Returns how many messages are in flight elsewhere at the end. */
async function run(
  session: Servers,
  command: EtlCommand,
  interrupt: AbortSignal,
  counts: Counts,
  crew: Crew,
): Promise<number> {
  const { terminal } = session;
  // All of the configuration before the first connection, and each file read once.
  const variables = lineVariables(session.env);
  const env = withLineVariables(session.env, variables);
  const subkeys = readTokenKey(env);
  const recipients = readRecipients(env);
  const queueConfig = session.local?.queue ?? readQueue(env);
  const dataKeys = new DataKeys(subkeys, recipients);
  await dataKeys.take(0).catch(() => {
    throw misuse(
      "nothing can be sealed for VEIL_RECIPIENTS: one of them is no point of its curve",
      "take the recipients from recipients.txt as `veil keys generate` wrote it",
    );
  });
  let progress: Progress | null = null;
  const notify = (notice: Notice) => {
    progress?.clear();
    terminal.err(formatNotice(notice, command.log));
  };
  const starting = <T>(work: () => Promise<T>) =>
    command.follow ? patiently(work, notify, interrupt) : work();

  const database = openDatabase(readDatabase(env), LOADS + 1); // one more for housekeeping
  let queue: Queue | null = null;
  let endHousekeeping = () => {};
  const timers: ReturnType<typeof setInterval>[] = [];
  try {
    await starting(async () => {
      await requireSchema(database, interrupt);
      await reaching(() => requireTokenKey(database, subkeys), interrupt);
      await reaching(() => database.query(HOUSEKEEP, [], START_MS), interrupt);
      await reaching(() => warnIfVolatile(database, notify), interrupt);
    });
    // What others have put on record, in psql say. Not awaited: the line waits for nobody's backlog.
    void chainAudit(database, interrupt);
    const opened = await starting(() => reaching(() => openQueue(queueConfig), interrupt));
    queue = opened;
    const { waiting, inFlight } = await starting(() => reaching(() => opened.depth(), interrupt));
    const total = Math.min(waiting + inFlight, command.maxMessages ?? Number.POSITIVE_INFINITY);
    const bar = new Progress(terminal, total);
    progress = bar;
    if (command.follow) {
      endHousekeeping = housekeepHourly(database, notify, interrupt);
      if (!terminal.isStderrTerminal) {
        const report = () => terminal.err(formatReport(counts, command.log));
        timers.push(setInterval(report, REPORT_MS));
      }
      if (session.local !== null) {
        terminal.err(
          `following; Ctrl-C stops. Send logins to ${queueConfig.queue}\n` +
            `(endpoint ${queueConfig.endpoint}, any credentials); analysts connect to ` +
            `${session.local.analystUrl}\n(the password is in .veil/keys/passwords.json)\n`,
        );
      }
    }
    const line = {
      maxMessages: command.maxMessages,
      signal: interrupt,
      onProgress: () => bar.show(counts.acknowledged, `${counts.quarantined} quarantined`),
      onNotice: notify,
    };
    const { follow, graceSeconds } = command;
    if (crew.workers === 1) {
      const known = new KnownOriginals();
      await etl(
        { queue: opened, database, subkeys, dataKeys, known },
        { ...line, follow, graceSeconds },
        counts,
      );
    } else {
      const start = {
        ...{ version: describeVersion(), variables, follow },
        ...{ queue: queueConfig, isLocal: session.local !== null, graceSeconds },
      };
      await runWorkers(crew, { ...line, start }, counts);
    }
    progress.clear();
    // After a stop there may be no time left to ask.
    if (interrupt.aborted) return 0;
    const last = await queue.depth(AbortSignal.timeout(LAST_LOOK_MS)).catch(() => null);
    return last?.inFlight ?? 0;
  } finally {
    progress?.clear();
    endHousekeeping();
    for (const timer of timers) clearInterval(timer);
    queue?.close();
    await database.close(interrupt.aborted ? 0 : undefined);
  }
}

/** A process that is to run for ever waits for its servers from the start. */
export async function patiently<T>(
  work: () => Promise<T>,
  notify: (notice: Notice) => void,
  signal: AbortSignal,
): Promise<T> {
  const patience = { milliseconds: Number.POSITIVE_INFINITY, signal };
  const available = new Availability("it can be reached", patience, notify);
  for (;;) {
    try {
      const done = await work();
      available.worked();
      return done;
    } catch (error) {
      if (!isOutage(error) && !isQueueOutage(error)) throw error;
      await available.pause(error).catch(() => {
        throw new Interrupted();
      });
    }
  }
}

/** Nothing that is asked for here can keep the promise on a server that forgets what it has committed. */
async function warnIfVolatile(database: Database, notify: (notice: Notice) => void) {
  const [row] = await database.query(
    "select pg_catalog.current_setting('fsync') as fsync",
    [],
    START_MS,
  );
  if (row?.fsync !== "off") return;
  notify({
    event: "warning",
    message:
      "the database runs with fsync=off: if its host fails, rows can be lost " +
      "whose messages are deleted already; set fsync=on",
  });
}

function housekeepHourly(
  database: Database,
  notify: (notice: Notice) => void,
  signal: AbortSignal,
): () => void {
  const housekeep = async () => {
    try {
      await database.query(HOUSEKEEP);
      await chainAudit(database, signal);
    } catch (error) {
      // An outage is the line's to tell of, and the next hour is soon enough: partitions are a week ahead.
      if (isOutage(error)) return;
      const why = error instanceof Failure ? error.message : "for an unknown reason";
      notify({ event: "warning", message: `housekeeping failed: ${why}` });
    }
  };
  const timer = setInterval(housekeep, HOUSEKEEPING_MS);
  return () => clearInterval(timer);
}
