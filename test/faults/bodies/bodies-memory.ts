// How much memory a process holds, and whether that stays so.
import { spawnSync } from "node:child_process";

export function residentMegabytes(pid: number): number {
  const { stdout } = spawnSync("ps", ["-o", "rss=", "-p", String(pid)], { encoding: "utf8" });
  return Math.round(Number(stdout) / 1024);
}

/**
 * Once warm: the last third of the samples against the one before it. A collector works when it likes, so
 * their middles are compared, and what a handful of megabyte bodies may hold for a moment is let through.
 */
export function isFlat(megabytes: readonly number[]): boolean {
  const third = Math.floor(megabytes.length / 3);
  if (third < 5) return true;
  const middle = (values: readonly number[]) => values.toSorted((a, b) => a - b)[third >> 1]!;
  const before = middle(megabytes.slice(-2 * third, -third));
  return middle(megabytes.slice(-third)) <= before * 1.15 + 32;
}
