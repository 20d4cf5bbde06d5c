// Rounds: every program in turn, again and again, and what their figures come to. Ratios are of the same
// round, so that what slows the machine down for a while slows both down.
import { PROGRAMS, type Program } from "./programs.ts";
import { type Figures, measure } from "./run.ts";
import type { Servers } from "./servers.ts";
import { type Spread, spreadOf } from "./spread.ts";

type Ratios = { readonly messagesPerSecond: Spread; readonly cpuMicros: Spread };
type Measured = Exclude<
  { [K in keyof Figures]: Figures[K] extends number ? K : never }[keyof Figures],
  never
>;

export type Result = {
  readonly name: string;
  readonly title: string;
  readonly figures: Readonly<Record<Measured, Spread>>;
  /** To those that it is compared with, where they took part. */
  readonly ratios: Readonly<Record<string, Ratios>>;
  /** By action, of the last round. */
  readonly requests: Readonly<Record<string, number>>;
  readonly rounds: readonly Figures[];
};

const MEASURED = [
  "messagesPerSecond",
  "cpuMicros",
  "wholeCpuMicros",
  "startCpuMillis",
  "peakRssMiB",
  "requestsPer1000",
  "queueCores",
  "postgresMicros",
  "walBytes",
  "fullPageImages",
] as const satisfies readonly Measured[];

const WARM_UP_MESSAGES = 20_000;

export type Series = {
  readonly programs: readonly Program[];
  readonly messages: number;
  readonly rounds: number;
  readonly onProgress: (text: string) => void;
};

/** Numbers logins, so that no two runs have one in common. */
export type Numbers = (count: number) => number;

export function newNumbers(): Numbers {
  let next = 0;
  return (count) => {
    next += count;
    return next - count;
  };
}

export async function runSeries(
  servers: Servers,
  { programs, messages, rounds, onProgress }: Series,
  numbers: Numbers,
): Promise<Result[]> {
  // The queue server's code gets fast while it runs: not at the cost of whoever comes first.
  onProgress("warming up");
  const warmUp = Math.min(messages, WARM_UP_MESSAGES);
  await measure(servers, PROGRAMS.limit, warmUp, numbers(warmUp + 1));
  const figures = new Map<string, Figures[]>(programs.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const program of programs) {
      onProgress(`round ${round} of ${rounds}: ${program.title}`);
      const measured = await measure(servers, program, messages, numbers(messages + 1));
      figures.get(program.name)!.push(measured);
    }
  }
  return programs.map((program) => resultOf(program, figures));
}

function resultOf(
  { name, title, bases }: Program,
  figures: ReadonlyMap<string, readonly Figures[]>,
): Result {
  const rounds = figures.get(name)!;
  const spread = (key: Measured) => spreadOf(rounds.map((round) => round[key]))!;
  const ratio = (base: readonly Figures[], key: Measured) =>
    spreadOf(rounds.map((round, i) => round[key] / base[i]![key]))!;
  return {
    ...{ name, title, rounds },
    figures: Object.fromEntries(MEASURED.map((key) => [key, spread(key)])) as Result["figures"],
    ratios: Object.fromEntries(
      bases
        .filter((base) => figures.has(base))
        .map((base) => [
          base,
          {
            messagesPerSecond: ratio(figures.get(base)!, "messagesPerSecond"),
            cpuMicros: ratio(figures.get(base)!, "cpuMicros"),
          },
        ]),
    ),
    requests: rounds.at(-1)!.requests,
  };
}
