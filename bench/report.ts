// What the benchmarks found, as one object and as a table.
import type { Idle, Latency } from "./follow.ts";
import type { describeVersions, Machine } from "./machine.ts";
import type { Figures } from "./run.ts";
import type { Result } from "./series.ts";
import { count, list, spread, table, text } from "./table.ts";

export type Place = {
  readonly machine: Machine;
  readonly versions: Awaited<ReturnType<typeof describeVersions>>;
  /** Of PostgreSQL, where they are not its defaults. */
  readonly settings: Readonly<Record<string, string>>;
};

export type Report = Place & {
  readonly messages: number;
  readonly rounds: number;
  readonly programs: readonly Result[];
  readonly idle: Idle | null;
  readonly latency: Latency | null;
  readonly memory: (Figures & { readonly messages: number }) | null;
  /** What was asked for and cannot be measured, and why. */
  readonly skipped: readonly string[];
};

/** Amazon's list price of a million requests, standard queue, us-east-1. */
const DOLLARS_PER_MILLION_REQUESTS = 0.4;

export function formatReport(report: Report): string {
  const { messages, rounds, programs } = report;
  return text([
    ...placeOf(report),
    `${count(messages)} messages a run; medians of ${count(rounds)} rounds (smallest–largest)`,
    "",
    ...table([
      ["", "messages/s", "CPU µs/message", "peak RSS MiB", "requests/1,000"],
      ...programs.map(({ title, figures }) => [
        title,
        spread(figures.messagesPerSecond, 0),
        spread(figures.cpuMicros, 1),
        spread(figures.peakRssMiB, 0),
        spread(figures.requestsPer1000, 1),
      ]),
    ]),
    "",
    ...ratiosOf(programs),
    ...table([
      ["", "CPU ms to start", "CPU µs/message", "PostgreSQL", "queue server"],
      ["", "and end", "with that", "CPU µs/message", "cores busy"],
      ...programs.map(({ title, figures }) => [
        title,
        spread(figures.startCpuMillis, 0),
        spread(figures.wholeCpuMicros, 1),
        spread(figures.postgresMicros, 1),
        spread(figures.queueCores, 2),
      ]),
    ]),
    "",
    ...notes(report),
  ]);
}

/** What the figures belong to. */
export const placeOf = ({ machine, versions, settings }: Place): string[] => [
  `${machine.date}: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}`,
  list(versions),
  `PostgreSQL: ${list(settings)}, all else its defaults`,
];

function ratiosOf(programs: readonly Result[]): string[] {
  const rows = programs.flatMap(({ title, ratios }) =>
    Object.entries(ratios).map(([base, ratio]) => [
      `${title} / ${programs.find(({ name }) => name === base)!.title.split(":")[0]}`,
      spread(ratio.messagesPerSecond, 2),
      spread(ratio.cpuMicros, 2),
    ]),
  );
  if (rows.length === 0) return [];
  return [...table([["ratios of the same round", "messages/s", "CPU µs/message"], ...rows]), ""];
}

function notes({ programs, idle, latency, memory, skipped }: Report): string[] {
  const costs = programs
    .filter(({ name }) => name === "new" || name === "consumer")
    .map(({ title, figures }) => {
      const dollars = figures.requestsPer1000.median * 1e-3 * DOLLARS_PER_MILLION_REQUESTS;
      return `a million logins at SQS's list price, full queue, ${title}: $${dollars.toFixed(4)}`;
    });
  return [
    ...costs,
    ...(idle === null
      ? []
      : [
          `idle for ${idle.seconds} s: ${rest(idle.fromStart)}; for as long after a load: ${rest(idle.afterLoad)}`,
        ]),
    ...(latency === null
      ? []
      : [
          `send to commit at ${count(latency.sentPerSecond)} messages/s: median ${count(latency.medianMs)} ms, ` +
            `99th percentile ${count(latency.p99Ms)} ms, longest ${count(latency.maxMs)} ms ` +
            `(99th with the first second ${count(latency.p99MsFromStart)} ms), ` +
            `${count(latency.requestsPer1000)} requests/1,000`,
        ]),
    ...(memory === null
      ? []
      : [
          `${count(memory.messages)} messages in one run: peak RSS ${count(memory.peakRssMiB)} MiB, ` +
            `after the first 100,000 ${memory.peakRssMiBAt100k === null ? "not reached" : `${count(memory.peakRssMiBAt100k)} MiB`}, ` +
            `${count(memory.messagesPerSecond)} messages/s`,
        ]),
    ...skipped,
  ];
}

const rest = ({ requests, cpuMillis }: Idle["fromStart"]): string =>
  `${count(requests)} requests, ${count(cpuMillis)} ms CPU`;
