// `bun bench/profile.ts [new|repeating] [MESSAGES]`: where veil's own thread spends its time while it
// loads a full queue, and what it took. Sampled by Bun (--cpu-prof), which slows it down a little.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PROGRAMS } from "./programs.ts";
import { measure } from "./run.ts";
import { startServers } from "./servers.ts";

const MOST = 25;

type Profile = {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
};

/** Milliseconds by function, those of its callees not included. */
function selfTimes({ nodes, samples, timeDeltas }: Profile): Map<string, number> {
  const names = new Map(
    nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => [
      id,
      `${functionName || "(anonymous)"} ${url.replace(/^.*\/(?=[^/]+\/[^/]+$)/, "")}${lineNumber > 0 ? `:${lineNumber + 1}` : ""}`,
    ]),
  );
  const times = new Map<string, number>();
  for (const [i, sample] of samples.entries()) {
    const name = names.get(sample)!;
    times.set(name, (times.get(name) ?? 0) + timeDeltas[i]! / 1000);
  }
  return times;
}

const kind = process.argv[2] === "repeating" ? "repeating" : "new";
const messages = Number(process.argv[3] ?? 100_000);
const folder = mkdtempSync(join(tmpdir(), "veil-profile-"));
const servers = await startServers();
try {
  const program = PROGRAMS[kind];
  const figures = await measure(
    servers,
    {
      ...program,
      command: (count) => {
        const [bun = "", ...rest] = program.command(count);
        return [bun, "--cpu-prof", `--cpu-prof-dir=${folder}`, ...rest];
      },
    },
    messages,
    0,
  );
  const profiles = readdirSync(folder)
    .filter((name) => name.endsWith(".cpuprofile"))
    .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Profile)
    .sort((a, b) => b.samples.length - a.samples.length);
  const times = selfTimes(profiles[0]!);
  const total = [...times.values()].reduce((sum, time) => sum + time, 0);
  process.stdout.write(
    `${program.title}, ${messages} messages, profiled: ${Math.round(figures.messagesPerSecond)} messages/s, ` +
      `${figures.cpuMicros.toFixed(1)} µs of CPU each, ${Math.round(figures.peakRssMiB)} MiB\n` +
      `of ${Math.round(total)} ms sampled on the thread that runs JavaScript, µs a message, by function:\n`,
  );
  for (const [name, time] of [...times].sort((a, b) => b[1] - a[1]).slice(0, MOST)) {
    const micros = ((time * 1000) / messages).toFixed(2).padStart(7);
    process.stdout.write(`${micros}  ${((time / total) * 100).toFixed(1).padStart(5)} %  ${name}\n`);
  }
} finally {
  servers.stop();
  rmSync(folder, { recursive: true, force: true });
}
