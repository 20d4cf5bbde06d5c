// What `veil etl` says of a run at its end.
import type { Counts } from "../line/counts.ts";
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
  readonly servers: Servers | null;
};

/** The counts that a report and the summary both give. */
export const totals = (counts: Counts) => ({
  received: counts.received,
  loaded: counts.loaded,
  duplicates: counts.duplicates,
  quarantined: counts.quarantined,
  acknowledged: counts.acknowledged,
  newOriginals: counts.newOriginals,
  retries: counts.retries,
});

export const jsonSummary = ({ counts, crew, inFlight, seconds }: Ran): string => {
  const { handedBack } = counts;
  return `${JSON.stringify({ ...totals(counts), handedBack, inFlight, seconds, ...crew })}\n`;
};

export function textSummary(ran: Ran): string {
  const { counts } = ran;
  return counts.received === 0 && counts.handedBack === 0 ? nothingCame(ran) : whatCame(ran);
}

const inFlightElsewhere = ({ inFlight }: Ran): string =>
  inFlight > 0
    ? `${inFlight} messages are in flight elsewhere (another consumer, or one that ended a moment ago)\n`
    : "";

const programOf = ({ servers }: Ran): string => servers?.program ?? "veil";

function nothingCame(ran: Ran): string {
  const { seconds, isStopped, inFlight, servers } = ran;
  const elsewhere = inFlightElsewhere(ran);
  if (isStopped) return `stopped after ${seconds} s; no message came\n${elsewhere}`;
  const program = programOf(ran);
  const hint =
    servers?.local && inFlight === 0
      ? `the samples are in the database already: try ${program} quarantine list, or start over with ${program} etl --reset-local\n`
      : "";
  return `the queue is empty: nothing to do (${seconds} s)\n${elsewhere}${hint}`;
}

function whatCame(ran: Ran): string {
  const { counts, crew, seconds, isStopped, isFailed } = ran;
  const program = programOf(ran);
  const replaced = crew.replaced === 0 ? "" : ` (${crew.replaced} replaced)`;
  const by = crew.workers === 1 ? "" : ` by ${crew.workers} workers${replaced}`;
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
    ...reasonLines(counts),
    line("acknowledged", counts.acknowledged, "deleted from the queue"),
    unconfirmed > 0
      ? note(`SQS did not confirm ${unconfirmed}: they come again, and change nothing`)
      : "",
    counts.handedBack > 0
      ? line("handed back", counts.handedBack, "not stored; the queue delivers them again at once")
      : "",
    line("new originals", counts.newOriginals, "tokens that are new in their period"),
    inFlightElsewhere(ran),
    ...(hints.length === 0 ? [] : [`next: ${hints.join("\n      ")}\n`]),
  ].join("");
}

const line = (name: string, value: number, meaning: string): string =>
  `${`  ${name.padEnd(14)}${String(value).padStart(9)}  ${meaning}`.trimEnd()}\n`;

/** Below a line, under its meaning. */
const note = (text: string): string => `${" ".repeat(27)}${text}\n`;

/** Why messages were quarantined, the most frequent reason first. */
const reasonLines = ({ quarantined, reasons }: Counts): readonly string[] =>
  quarantined === 0
    ? []
    : [...reasons]
        .sort(([, a], [, b]) => b - a)
        .map(([reason, times]) => note(`${times} × ${reason}`));
