// What a person is told of a worker that died.
import { type Failure, failed } from "../failure.ts";
import type { HowEnded } from "./child.ts";

export type Death = {
  readonly how: HowEnded;
  readonly pid: number | null;
  /** Of its share of --max-messages, what nobody knows of. */
  readonly missing: number;
};

/** Another one takes its place. */
export function describeDeath(worker: number, { how, pid, missing }: Death): string {
  const who = `worker ${worker}${pid === null ? "" : ` (process ${pid})`}`;
  const limit =
    missing === 0
      ? ""
      : `; up to ${missing} messages of --max-messages may have gone with it and are not dealt out again`;
  return `${who} ${describe(how)}; another one takes its place, nothing is lost${limit}`;
}

/** No other one takes its place any more. */
export function gaveUp(worker: number, deaths: number, { how }: Death): Failure {
  const hint =
    "signal" in how && how.signal === "SIGKILL"
      ? "SIGKILL is what the kernel sends when memory runs out: take fewer workers, or give more memory"
      : "cannotStart" in how
        ? "see the limits on processes and memory (ulimit, TasksMax), and whether the program is still there"
        : "what it wrote before it ended says why; please report it with the version of veil";
  return failed(
    `worker ${worker} died ${deaths} times in a row; the last one ${describe(how)}`,
    `${hint}. Nothing is lost: what was not stored comes again`,
  );
}

const describe = (how: HowEnded): string =>
  "signal" in how
    ? `was killed by ${how.signal}`
    : "exitCode" in how
      ? `ended unasked with exit code ${how.exitCode}`
      : `cannot be started (${how.cannotStart})`;
