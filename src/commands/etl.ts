// `veil etl`: opens queue, database and keys, runs the line, and says what was done.
import * as config from "../config.ts";
import { DataKeys } from "../data-keys.ts";
import { openDatabase } from "../database.ts";
import { type Counts, etl, newCounts } from "../etl.ts";
import { Failure, misuse } from "../failure.ts";
import { Interrupted } from "../interrupted.ts";
import { requireTokenKey } from "../load.ts";
import { openQueue, type QueueConfig } from "../queue.ts";
import { reaching, requireSchema } from "../schema.ts";
import { type Context, type Session, withSession } from "../session.ts";
import { Progress, type Terminal } from "../terminal.ts";

export type EtlCommand = {
  readonly follow: boolean;
  readonly maxMessages: number | null;
  readonly json: boolean;
  readonly log: "text" | "json";
  readonly resetLocal: boolean;
};

const REPORT_MS = 60_000;
const HOUSEKEEPING_MS = 60 * 60_000;

export async function runEtl(context: Context, command: EtlCommand): Promise<void> {
  const startedAt = performance.now();
  const counts = newCounts();
  let inFlight = 0;
  let session: Session | null = null;
  let failure: unknown = null;
  try {
    await withSession(
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
        inFlight = await run(opened, command, context.interrupt, counts);
      },
    );
  } catch (error) {
    // Wrong configuration: nothing was started, there is nothing to sum up.
    if (error instanceof Failure && error.exitCode === 2) throw error;
    // Stopped before anything was received: done, like every stop.
    if (!(error instanceof Interrupted)) failure = error;
  }
  const seconds = Math.round((performance.now() - startedAt) / 10) / 100;
  if (command.json) context.terminal.out(`${jsonSummary(counts, inFlight, seconds)}\n`);
  else if (failure === null || counts.received > 0) {
    context.terminal.out(
      textSummary(counts, inFlight, seconds, session, context.interrupt.aborted),
    );
  }
  if (failure !== null) throw failure;
}

/** Returns how many messages are in flight elsewhere at the end. */
async function run(
  session: Session,
  command: EtlCommand,
  interrupt: AbortSignal,
  counts: Counts,
): Promise<number> {
  const { env, terminal } = session;
  // All of the configuration before the first connection.
  const subkeys = config.tokenKey(env);
  const recipients = config.recipients(env);
  const queueConfig = session.local?.queue ?? config.queue(env);
  const database = openDatabase(config.database(env), 2);
  try {
    const dataKeys = new DataKeys(subkeys, recipients);
    await dataKeys.take(0).catch(() => {
      throw misuse(
        "nothing can be sealed for VEIL_RECIPIENTS: one of them is no point of its curve",
        "take the recipients from recipients.txt as `veil keys generate` wrote it",
      );
    });
    await requireSchema(database, interrupt);
    await reaching(() => requireTokenKey(database, subkeys), interrupt);
    const queue = await openQueue(queueConfig);
    const timers: ReturnType<typeof setInterval>[] = [];
    try {
      const housekeep = () => database.query("select from etl.housekeep()");
      await housekeep();
      const { waiting, inFlight } = await queue.depth();
      const total = Math.min(waiting + inFlight, command.maxMessages ?? Number.POSITIVE_INFINITY);
      const progress = new Progress(terminal, total);
      if (command.follow) {
        timers.push(setInterval(() => housekeep().catch(() => {}), HOUSEKEEPING_MS));
        if (!terminal.isStderrTerminal) {
          timers.push(setInterval(() => report(terminal, command.log, counts), REPORT_MS));
        }
        if (session.local !== null) tellAddresses(terminal, queueConfig, session.local.analystUrl);
      }
      try {
        await etl(
          { queue, database, subkeys, dataKeys },
          {
            follow: command.follow,
            maxMessages: command.maxMessages,
            signal: interrupt,
            onProgress: (now) => progress.show(now.acknowledged, `${now.quarantined} quarantined`),
          },
          counts,
        );
      } finally {
        progress.clear();
      }
      return (await queue.depth().catch(() => ({ inFlight: 0 }))).inFlight;
    } finally {
      for (const timer of timers) clearInterval(timer);
      queue.close();
    }
  } finally {
    await database.close();
  }
}

function tellAddresses(terminal: Terminal, queue: QueueConfig, analystUrl: string): void {
  terminal.err(
    `following; Ctrl-C stops. Send logins to ${queue.queue}\n` +
      `(endpoint ${queue.endpoint}, any credentials); analysts connect to ${analystUrl}\n` +
      "(the password is in .veil/keys/passwords.json)\n",
  );
}

const totals = (counts: Counts) => ({
  received: counts.received,
  loaded: counts.loaded,
  duplicates: counts.duplicates,
  quarantined: counts.quarantined,
  acknowledged: counts.acknowledged,
  newOriginals: counts.newOriginals,
});

function report(terminal: Terminal, format: "text" | "json", counts: Counts): void {
  const time = new Date().toISOString();
  const values = totals(counts);
  terminal.err(
    format === "json"
      ? `${JSON.stringify({ time, level: "info", event: "counts", ...values })}\n`
      : `${time} ${Object.entries(values)
          .map(([name, value]) => `${name}=${value}`)
          .join(" ")}\n`,
  );
}

const jsonSummary = (counts: Counts, inFlight: number, seconds: number): string =>
  JSON.stringify({ ...totals(counts), inFlight, seconds });

function textSummary(
  counts: Counts,
  inFlight: number,
  seconds: number,
  session: Session | null,
  stopped: boolean,
): string {
  const elsewhere =
    inFlight > 0
      ? `${inFlight} messages are in flight elsewhere (another consumer, or one that ended a moment ago)\n`
      : "";
  const program = session?.program ?? "veil";
  if (counts.received === 0) {
    const hint =
      session?.local && inFlight === 0
        ? `the samples are in the database already: try ${program} quarantine list, or start over with ${program} etl --reset-local\n`
        : "";
    return stopped
      ? `stopped after ${seconds} s; no message came\n${elsewhere}`
      : `the queue is empty: nothing to do (${seconds} s)\n${elsewhere}${hint}`;
  }
  const line = (name: string, value: number, note = "") =>
    `${`  ${name.padEnd(14)}${String(value).padStart(9)}  ${note}`.trimEnd()}\n`;
  const reasons = (counts.quarantined === 0 ? [] : [...counts.reasons])
    .sort(([, a], [, b]) => b - a)
    .map(([reason, times]) => `${" ".repeat(27)}${times} × ${reason}\n`);
  const unconfirmed = counts.received - counts.acknowledged;
  const hints = [
    ...(counts.exampleToken === null ? [] : [`${program} reveal ${counts.exampleToken}`]),
    ...(counts.quarantined === 0 ? [] : [`${program} quarantine list`]),
  ];
  return [
    `${stopped ? "stopped" : "done"} in ${seconds} s\n`,
    line("received", counts.received, "messages whose load committed"),
    line("became rows", counts.loaded, "in user_logins"),
    line("duplicates", counts.duplicates, "delivered before, changed nothing"),
    line("quarantined", counts.quarantined, counts.quarantined > 0 ? "because" : ""),
    ...reasons,
    line("acknowledged", counts.acknowledged, "deleted from the queue"),
    unconfirmed > 0
      ? `${" ".repeat(27)}SQS did not confirm ${unconfirmed}: they come again, and change nothing\n`
      : "",
    line("new originals", counts.newOriginals, "distinct tokens that the vault did not know"),
    elsewhere,
    ...(hints.length === 0 ? [] : [`next: ${hints.join("\n      ")}\n`]),
  ].join("");
}
