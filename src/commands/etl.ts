// `veil etl`: opens queue, database and keys, runs the line, and says what was done.
import type { Subkeys } from "../../vault/keys.ts";
import { chainAudit } from "../audit/chain.ts";
import { readDatabase } from "../config/database-url.ts";
import { type LineVariables, lineVariables, withLineVariables } from "../config/environment.ts";
import { readRecipients, readTokenKey } from "../config/keys.ts";
import { type QueueConfig, readQueue } from "../config/queue-url.ts";
import { Failure, Interrupted, misuse } from "../failure.ts";
import { DataKeys } from "../keys/data-keys.ts";
import { type Counts, newCounts } from "../line/counts.ts";
import { housekeep, warnIfVolatile } from "../line/housekeeping.ts";
import { LOADS, runLine } from "../line/line.ts";
import { requireTokenKey } from "../line/load.ts";
import { waitForServers } from "../line/wait-for-servers.ts";
import { LINE_WAITS } from "../line/waits.ts";
import { type Database, openDatabase } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";
import { reaching, requireSchema, START_WAITS } from "../postgres/schema.ts";
import { QUEUE_WAITS } from "../sqs/client.ts";
import { openQueue, type Queue } from "../sqs/queue.ts";
import { describeVersion } from "../version.ts";
import { autoWorkers, type Crew, requireWorkers, runWorkers } from "../workers/parent.ts";
import { EtlScreen, type LogFormat } from "./etl-screen.ts";
import { jsonSummary, type Ran, textSummary } from "./etl-summary.ts";
import { type Context, type Servers, type Waits, withServers } from "./servers.ts";

export type EtlCommand = {
  readonly follow: boolean;
  readonly maxMessages: number | null;
  readonly json: boolean;
  readonly log: LogFormat;
  readonly resetLocal: boolean;
  /** How long a stop may take. */
  readonly graceSeconds: number;
  readonly workers: number | "auto";
};

const REPORT_MS = 60_000;
const HOUSEKEEPING_MS = 60 * 60_000;
const LAST_LOOK_MS = 2_000;

export async function runEtl(context: Context, command: EtlCommand): Promise<void> {
  const startedAt = performance.now();
  const counts = newCounts();
  const workers = command.workers === "auto" ? autoWorkers() : command.workers;
  if (workers > 1) requireWorkers();
  const crew: Crew = { workers, replaced: 0 };
  const needs = {
    roles: ["veil_etl"],
    queue: true,
    endsItself: true,
    reset: command.resetLocal,
    variables: ["VEIL_TOKEN_KEY", "VEIL_RECIPIENTS"],
  } as const;
  let inFlight = 0;
  let servers: Servers | null = null;
  let failure: unknown = null;
  try {
    await withServers(context, needs, async (opened) => {
      servers = opened;
      inFlight = await runPrepared(await prepare(context, opened, command, counts), crew);
    });
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
    servers,
  };
  if (command.json) context.terminal.out(jsonSummary(ran));
  else if (failure === null || counts.received + counts.handedBack > 0)
    context.terminal.out(textSummary(ran));
  if (failure !== null) throw failure;
}

/** All that a run is made of, before the first connection. */
type Run = {
  readonly command: EtlCommand;
  readonly servers: Servers;
  readonly interrupt: AbortSignal;
  readonly waits: Waits;
  readonly counts: Counts;
  readonly screen: EtlScreen;
  readonly variables: LineVariables;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
  readonly queueConfig: QueueConfig;
  /** Not connected yet. */
  readonly database: Database;
};

/** Reads all of the configuration, and each file once. */
async function prepare(
  context: Context,
  servers: Servers,
  command: EtlCommand,
  counts: Counts,
): Promise<Run> {
  const variables = lineVariables(servers.env);
  const env = withLineVariables(servers.env, variables);
  const subkeys = readTokenKey(env);
  const recipients = readRecipients(env);
  const queueConfig = servers.local?.queue ?? readQueue(env);
  const dataKeys = new DataKeys(subkeys, recipients);
  await dataKeys.take(0).catch(() => {
    throw misuse(
      "nothing can be sealed for VEIL_RECIPIENTS: one of them is no point of its curve",
      "take the recipients from recipients.txt as `veil keys generate` wrote it",
    );
  });
  return {
    command,
    servers,
    interrupt: context.interrupt,
    waits: { ...LINE_WAITS, ...QUEUE_WAITS, ...START_WAITS, ...context.waits },
    counts,
    screen: new EtlScreen(servers.terminal, command.log, counts),
    variables,
    subkeys,
    dataKeys,
    queueConfig,
    database: openDatabase(readDatabase(env), LOADS + 1), // one more for housekeeping
  };
}

/** Returns how many messages are in flight elsewhere at the end. */
async function runPrepared(run: Run, crew: Crew): Promise<number> {
  const { command, interrupt, screen, database } = run;
  let queue: Queue | null = null;
  let endFollowing = () => {};
  try {
    await checkDatabase(run);
    // What others have put on record, in psql say. Not awaited: the line waits for nobody's backlog.
    void chainAudit(database, interrupt);
    const opened = await starting(run, () => openQueue(run.queueConfig, run.waits));
    queue = opened;
    const { waiting, inFlight } = await starting(run, () => opened.depth());
    screen.expect(Math.min(waiting + inFlight, command.maxMessages ?? Number.POSITIVE_INFINITY));
    if (command.follow) endFollowing = beginFollowing(run);
    if (crew.workers === 1) await runAlone(run, queue);
    else await runCrew(run, crew);
    screen.clear();
    // After a stop there may be no time left to ask.
    if (interrupt.aborted) return 0;
    const last = await queue.depth(AbortSignal.timeout(LAST_LOOK_MS)).catch(() => null);
    return last?.inFlight ?? 0;
  } finally {
    screen.clear();
    endFollowing();
    queue?.close();
    await database.close(interrupt.aborted ? 0 : undefined);
  }
}

/** Tries again where a server is not up yet: for a few seconds, or for ever where the run is to follow. */
function starting<T>({ command, interrupt, screen, waits }: Run, work: () => Promise<T>) {
  const reached = () => reaching(work, interrupt, waits);
  return command.follow ? waitForServers(reached, screen.notify, interrupt) : reached();
}

/** Throws unless the database is at this program's schema and knows this token key. */
async function checkDatabase(run: Run): Promise<void> {
  const { database, subkeys, interrupt, waits, screen } = run;
  const { startAnswerMs } = waits;
  const reached = (work: () => Promise<void>) => reaching(work, interrupt, waits);
  const check = async () => {
    await requireSchema(database, interrupt, waits);
    await reached(() => requireTokenKey(database, subkeys));
    await reached(() => housekeep(database, startAnswerMs));
    await reached(() => warnIfVolatile(database, startAnswerMs, screen.notify));
  };
  await (run.command.follow ? waitForServers(check, screen.notify, interrupt) : check());
}

const runAlone = (run: Run, queue: Queue): Promise<void> => {
  const { command, database, subkeys, dataKeys, counts, waits } = run;
  const { follow, graceSeconds } = command;
  const options = { ...lineOptions(run), follow, graceSeconds, waits };
  return runLine({ queue, database, subkeys, dataKeys }, options, counts);
};

const runCrew = (run: Run, crew: Crew): Promise<void> => {
  const { command, servers, variables, queueConfig, counts } = run;
  const start = {
    version: describeVersion(),
    variables,
    follow: command.follow,
    queue: queueConfig,
    isLocal: servers.local !== null,
    graceSeconds: command.graceSeconds,
  };
  return runWorkers(crew, { ...lineOptions(run), start }, counts);
};

const lineOptions = ({ command, interrupt, screen }: Run) => ({
  maxMessages: command.maxMessages,
  signal: interrupt,
  onProgress: screen.showProgress,
  onNotice: screen.notify,
});

/** What a run that goes on does besides: it keeps house and reports. Returns what ends that. */
function beginFollowing(run: Run): () => void {
  const { servers, screen, queueConfig } = run;
  const { terminal, local } = servers;
  const timers = [setInterval(() => keepHouse(run), HOUSEKEEPING_MS)];
  if (!terminal.isStderrTerminal) timers.push(setInterval(screen.report, REPORT_MS));
  if (local !== null) {
    terminal.err(
      `following; Ctrl-C stops. Send logins to ${queueConfig.queue}\n` +
        `(endpoint ${queueConfig.endpoint}, any credentials); analysts connect to ` +
        `${local.analystUrl}\n(the password is in .veil/keys/passwords.json)\n`,
    );
  }
  return () => {
    for (const timer of timers) clearInterval(timer);
  };
}

async function keepHouse({ database, interrupt, screen }: Run): Promise<void> {
  try {
    await housekeep(database);
    await chainAudit(database, interrupt);
  } catch (error) {
    // An outage is the line's to tell of, and the next hour is soon enough: partitions are a week ahead.
    if (isOutage(error)) return;
    const why = error instanceof Failure ? error.message : "for an unknown reason";
    screen.notify({ event: "warning", message: `housekeeping failed: ${why}` });
  }
}
