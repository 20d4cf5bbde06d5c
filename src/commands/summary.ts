// What `veil etl` says of a run: its summary at the end, a report now and then, and notices.
import type { Notice } from "../line/availability.ts";
import type { Counts } from "../line/counts.ts";
import { printable } from "../terminal/terminal.ts";
import type { Crew } from "../workers/parent.ts";
import type { Servers } from "./servers.ts";

export type Ran = {
  readonly counts: Counts;
  readonly crew: Crew;
  /** Elsewhere, at the end. */
  readonly inFlight: number;
  readonly seconds: number;
  /** By somebody's signal. */
  readonly isStopped: boolean;
  readonly isFailed: boolean;
  /** Null if it never came to one. */
  readonly session: Servers | null;
};

const totals = (counts: Counts) => ({
  received: counts.received,
  loaded: counts.loaded,
  duplicates: counts.duplicates,
  quarantined: counts.quarantined,
  acknowledged: counts.acknowledged,
  newOriginals: counts.newOriginals,
  retries: counts.retries,
});

/** One line for a log: the counts so far. */
export function formatReport(counts: Counts, format: "text" | "json"): string {
  const time = new Date().toISOString();
  const values = totals(counts);
  if (format === "json") {
    return `${JSON.stringify({ time, level: "info", event: "counts", ...values })}\n`;
  }
  const pairs = Object.entries(values).map(([name, value]) => `${name}=${value}`);
  return `${time} ${pairs.join(" ")}\n`;
}

const LEVELS = { away: "warn", warning: "warn", back: "info" } as const;

/** One line for a person or a log. Printable: a server that is not ours may have worded it. */
export function formatNotice({ event, message }: Notice, format: "text" | "json"): string {
  const time = new Date().toISOString();
  return format === "json"
    ? `${JSON.stringify({ time, level: LEVELS[event], event, message })}\n`
    : `${event === "back" ? "" : "warning: "}${printable(message)}\n`;
}

export const jsonSummary = ({ counts, crew, inFlight, seconds }: Ran): string => {
  const { handedBack } = counts;
  return `${JSON.stringify({ ...totals(counts), handedBack, inFlight, seconds, ...crew })}\n`;
};

export function textSummary({
  counts,
  crew,
  inFlight,
  seconds,
  isStopped,
  isFailed,
  session,
}: Ran): string {
  const elsewhere =
    inFlight > 0
      ? `${inFlight} messages are in flight elsewhere (another consumer, or one that ended a moment ago)\n`
      : "";
  const replaced = crew.replaced === 0 ? "" : ` (${crew.replaced} replaced)`;
  const by = crew.workers === 1 ? "" : ` by ${crew.workers} workers${replaced}`;
  const program = session?.program ?? "veil";
  if (counts.received === 0 && counts.handedBack === 0) {
    const hint =
      session?.local && inFlight === 0
        ? `the samples are in the database already: try ${program} quarantine list, or start over with ${program} etl --reset-local\n`
        : "";
    return isStopped
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
    `${isFailed ? "failed after" : isStopped ? "stopped after" : "done in"} ${seconds} s${by}\n`,
    line("received", counts.received, "messages whose load committed"),
    line("became rows", counts.loaded, "in user_logins"),
    line("duplicates", counts.duplicates, "delivered before, changed nothing"),
    line("quarantined", counts.quarantined, counts.quarantined > 0 ? "because" : ""),
    ...reasons,
    line("acknowledged", counts.acknowledged, "deleted from the queue"),
    unconfirmed > 0
      ? `${" ".repeat(27)}SQS did not confirm ${unconfirmed}: they come again, and change nothing\n`
      : "",
    counts.handedBack > 0
      ? line("handed back", counts.handedBack, "not stored; the queue delivers them again at once")
      : "",
    line("new originals", counts.newOriginals, "distinct tokens that the vault did not know"),
    elsewhere,
    ...(hints.length === 0 ? [] : [`next: ${hints.join("\n      ")}\n`]),
  ].join("");
}
