// `bun bench/profile.ts [new|repeating] [MESSAGES]`: where veil's own thread spends its time while it
// loads a full queue, and what it took. Sampled by Bun (--cpu-prof), which slows it down a little.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { makeOwnFolder } from "../test/support/own-folder.ts";
import { PROGRAMS } from "./programs.ts";
import { measure } from "./run.ts";
import { startServers } from "./servers.ts";

const MOST = 25;
const INTERVAL_MICROS = 250;

type Profile = {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
    readonly children?: readonly number[];
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
};

/** Milliseconds by function: its own, and with what it calls. */
function timesOf({ nodes, samples, timeDeltas }: Profile) {
  const nameOf = new Map<number, string>();
  const parentOf = new Map<number, number>();
  for (const { id, callFrame, children = [] } of nodes) {
    const { functionName, url, lineNumber } = callFrame;
    const place = url.replace(/^.*\/(?=[^/]+\/[^/]+$)/, "");
    nameOf.set(id, `${functionName || "(anonymous)"} ${place}${place ? `:${lineNumber + 1}` : ""}`);
    for (const child of children) parentOf.set(child, id);
  }
  const own = new Map<string, number>();
  const all = new Map<string, number>();
  const add = (times: Map<string, number>, name: string, time: number) =>
    times.set(name, (times.get(name) ?? 0) + time);
  for (const [i, sample] of samples.entries()) {
    // A sample after a wait comes with the time of the wait, which is nobody's.
    const time = Math.min(timeDeltas[i]!, 2 * INTERVAL_MICROS) / 1000;
    add(own, nameOf.get(sample)!, time);
    const names = new Set<string>();
    for (let id: number | undefined = sample; id !== undefined; id = parentOf.get(id)) {
      names.add(nameOf.get(id)!);
    }
    for (const name of names) add(all, name, time);
  }
  return { own, all };
}

const kind = process.argv[2] === "repeating" ? "repeating" : "new";
const messages = Number(process.argv[3] ?? 100_000);
const { path: folder, remove } = makeOwnFolder("profile");
const servers = await startServers();
try {
  const program = PROGRAMS[kind];
  const figures = await measure(
    servers,
    {
      ...program,
      command: (count) => {
        const [bun = "", ...rest] = program.command(count);
        return [
          bun,
          "--cpu-prof",
          `--cpu-prof-interval=${INTERVAL_MICROS}`,
          `--cpu-prof-dir=${folder}`,
          ...rest,
        ];
      },
    },
    messages,
    0,
  );
  const profiles = readdirSync(folder)
    .filter((name) => name.endsWith(".cpuprofile"))
    .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Profile)
    .sort((a, b) => b.samples.length - a.samples.length);
  const { own, all } = timesOf(profiles[0]!);
  const total = [...own.values()].reduce((sum, time) => sum + time, 0);
  const list = (title: string, times: Map<string, number>) => {
    process.stdout.write(`${title}\n`);
    for (const [name, time] of [...times].sort((a, b) => b[1] - a[1]).slice(0, MOST)) {
      const micros = ((time * 1000) / messages).toFixed(2).padStart(7);
      const part = ((time / total) * 100).toFixed(1).padStart(5);
      process.stdout.write(`${micros}  ${part} %  ${name}\n`);
    }
  };
  process.stdout.write(
    `${program.title}, ${messages} messages, profiled: ` +
      `${Math.round(figures.messagesPerSecond)} messages/s, ` +
      `${figures.cpuMicros.toFixed(1)} µs of CPU each, ${Math.round(figures.peakRssMiB)} MiB\n` +
      `sampled on the thread that runs JavaScript: ${Math.round(total)} ms; below, µs a message\n`,
  );
  list("in the function itself:", own);
  list("in it and what it calls:", all);
} finally {
  servers.stop();
  remove();
}
