// Programs that tests and benchmarks start, and that would run for ever if nobody stopped them.
import { spawnSync } from "node:child_process";

// Linux only: the kernel is told to kill the program when this process dies.
const PREFIX = ["setpriv", "--pdeathsig", "KILL", "--"];
const isPossible =
  process.platform === "linux" &&
  spawnSync(PREFIX[0]!, [...PREFIX.slice(1), "true"], { stdio: "ignore" }).status === 0;

/** The same command, which ends when this process ends, `kill -9` included. It keeps its process id. */
export const endsWithUs = (command: readonly string[]): string[] =>
  isPossible ? [...PREFIX, ...command] : [...command];
