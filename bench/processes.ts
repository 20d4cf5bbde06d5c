// What processes take, read from /proc: CPU time and peak memory of one and of all that it has started.
import { readdirSync, readFileSync } from "node:fs";

/** The USER_HZ of /proc, which is the same on every Linux that Bun runs on. */
const MICROS_PER_TICK = 10_000;
const SAMPLE_MS = 20;
const TREE_EVERY = 10;

/** Of the processes of a tree that run now, and of those among them that have ended. */
export function cpuMicros(pid: number): number {
  let ticks = 0;
  for (const member of tree(pid)) {
    const fields = read(`/proc/${member}/stat`).split(") ")[1]?.split(" ") ?? [];
    // utime, stime, and those of children that were waited for: fields 14 to 17 of proc(5).
    for (const field of fields.slice(11, 15)) ticks += Number(field);
  }
  return ticks * MICROS_PER_TICK;
}

export type MemoryWatch = {
  /** The peaks of a process and of all that it has started so far, added up. */
  readonly peakBytes: () => number;
  readonly stop: () => void;
};

/**
 * Asks for VmHWM, the kernel's own high-water mark, until the process is gone. Not ru_maxrss: that one
 * begins with the size of the process that forked.
 */
export function watchMemory(pid: number): MemoryWatch {
  const peaks = new Map<number, number>();
  let members = [pid];
  let round = 0;
  const sample = () => {
    if (round++ % TREE_EVERY === 0) members = tree(pid);
    for (const member of members) {
      const peak = /^VmHWM:\s+(\d+) kB/m.exec(read(`/proc/${member}/status`))?.[1];
      if (peak !== undefined) peaks.set(member, Number(peak) * 1024);
    }
  };
  sample();
  const timer = setInterval(sample, SAMPLE_MS);
  return {
    peakBytes: () => {
      sample();
      return [...peaks.values()].reduce((sum, peak) => sum + peak, 0);
    },
    stop: () => clearInterval(timer),
  };
}

function tree(pid: number): number[] {
  const children = list(`/proc/${pid}/task`).flatMap((task) =>
    read(`/proc/${pid}/task/${task}/children`).split(" ").filter(Boolean).map(Number),
  );
  return [pid, ...children.flatMap(tree)];
}

/** A process may end while it is looked at. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
