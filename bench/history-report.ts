// What was found with years in the database, as a table: beside an empty one, and beside what is asked.
import type { ExpiryReport } from "./expire.ts";
import type { HistoryReport, Size } from "./history.ts";
import type { LoadFigures } from "./loads.ts";
import { type Place, placeOf } from "./report.ts";
import type { Result } from "./series.ts";
import type { Spread } from "./spread.ts";
import { count, number, spread, table, text } from "./table.ts";

export type StoreReport = Place & {
  readonly messages: number;
  readonly rounds: number;
  readonly history: HistoryReport | null;
  readonly expiry: ExpiryReport | null;
};

type Row = readonly string[];

const MEGABYTE = 1e6;

export function formatStoreReport(report: StoreReport): string {
  const { history, expiry, messages, rounds } = report;
  return text([
    ...placeOf(report),
    ...(history === null
      ? []
      : [
          `${count(history.logins)} logins and originals there, ${count(history.inCurrent)} of them in today's period ` +
            `(filled in ${count(history.fillSeconds)} s)`,
          `${count(messages)} logins a run after a checkpoint, two new originals each; medians of ` +
            `${count(rounds)} rounds (smallest–largest)`,
          "",
          ...costs(history),
          "",
          ...sizes(history.sizes),
          "",
        ]),
    ...(expiry === null ? [] : [...expiring(expiry), ""]),
    ...table([["", "here", "asked", ""], ...goals(report)]),
  ]);
}

function costs({ line, loads, ratios }: HistoryReport): string[] {
  const ofLine = (title: string, { figures }: Result): Row => [
    title,
    spread(figures.messagesPerSecond, 0),
    spread(figures.postgresMicros, 1),
    spread(figures.walBytes, 0),
    spread(figures.fullPageImages, 2),
  ];
  const ofLoads = (title: string, of: Readonly<Record<keyof LoadFigures, Spread>>): Row => [
    title,
    spread(of.rowsPerSecond, 0),
    spread(of.postgresMicros, 1),
    spread(of.walBytes, 0),
    spread(of.fullPageImages, 2),
  ];
  const times = (title: string, of: Readonly<Record<keyof LoadFigures, Spread>>): Row => [
    title,
    spread(of.medianMs, 0),
    spread(of.p99Ms, 0),
    spread(of.longestMs, 0),
  ];
  return [
    ...table([
      ["", "logins/s", "PostgreSQL", "WAL", "full-page"],
      ["", "", "CPU µs/login", "bytes/login", "images/login"],
      ofLine("the whole line, empty", line.empty),
      ofLine("the whole line, with history", line.history),
      ofLoads("loads alone, empty", loads.empty.figures),
      ofLoads("loads alone, with history", loads.history.figures),
    ]),
    "",
    ...table([
      ["ratios of the same round", "logins/s", "PostgreSQL CPU", "WAL"],
      [
        "the whole line",
        spread(ratios.line.messagesPerSecond, 2),
        spread(ratios.line.postgresMicros, 2),
        spread(ratios.line.walBytes, 2),
      ],
      [
        "loads alone",
        spread(ratios.loads.rowsPerSecond, 2),
        spread(ratios.loads.postgresMicros, 2),
        spread(ratios.loads.walBytes, 2),
      ],
    ]),
    "",
    ...table([
      ["loads of 1,000, one after another", "median ms", "99th percentile ms", "longest ms"],
      times("empty", loads.empty.figures),
      times("with history", loads.history.figures),
    ]),
  ];
}

const sizes = (all: readonly Size[]): string[] =>
  table([
    ["on disk, MB", "all periods", "today's"],
    ...all.map((size) => [
      `${size.table}${size.index === null ? "" : `, ${size.index}`}`,
      number(size.bytes / MEGABYTE, 1),
      number(size.currentBytes / MEGABYTE, 1),
    ]),
    [
      "all of it",
      number(all.reduce((sum, { bytes }) => sum + bytes, 0) / MEGABYTE, 1),
      number(all.reduce((sum, { currentBytes }) => sum + currentBytes, 0) / MEGABYTE, 1),
    ],
  ]);

const expiring = ({ originals, beside, alone, ...whole }: ExpiryReport): string[] => [
  `a period of ${count(originals)} originals and rows expired in ${number(whole.seconds, 2)} s, with ` +
    `${number(whole.walBytes / MEGABYTE, 1)} MB of WAL`,
  `loads of 100 beside it: ${count(beside.loads)}, 99th percentile ${count(beside.p99Ms)} ms, longest ${count(beside.longestMs)} ms; ` +
    `before it: ${count(alone.loads)}, ${count(alone.p99Ms)} ms, ${count(alone.longestMs)} ms`,
];

/** Speed is judged here and nowhere else, and by a reader. */
function goals({ history, expiry }: StoreReport): Row[] {
  const row = (
    what: string,
    here: number,
    digits: number,
    unit: string,
    [sign, asked]: Goal,
  ): Row => [
    what,
    `${number(here, digits)}${unit}`,
    `${sign} ${number(asked, digits)}${unit}`,
    (sign === "≥" ? here >= asked : here <= asked) ? "met" : "missed",
  ];
  const rows: Row[] = [];
  if (history !== null) {
    const { ratios, line, loads } = history;
    const { messagesPerSecond, postgresMicros } = ratios.line;
    rows.push(
      row("throughput against an empty database", messagesPerSecond.median, 2, "", ["≥", 0.85]),
      row("WAL a login", line.history.figures.walBytes.median, 0, " B", ["≤", 4000]),
      row("CPU of PostgreSQL a login against an empty database", postgresMicros.median, 2, "", [
        ...(["≤", 1.2] as const),
      ]),
      row("99th percentile of a load of 1,000", loads.history.figures.p99Ms.median, 0, " ms", [
        ...(["≤", 100] as const),
      ]),
    );
  }
  if (expiry !== null) {
    rows.push(
      row("expiring a period: time", expiry.seconds, 1, " s", ["≤", 5]),
      row("expiring a period: WAL", expiry.walBytes / MEGABYTE, 1, " MB", ["≤", 5]),
      row("expiring a period: longest load beside it", expiry.beside.longestMs, 0, " ms", [
        "≤",
        250,
      ]),
    );
  }
  return rows;
}

type Goal = readonly ["≥" | "≤", number];
