// argv → what the benchmark is to do.
import { parseArgs } from "node:util";
import { PROGRAM_NAMES, type ProgramName } from "./programs.ts";

export type Options = {
  readonly messages: number;
  readonly rounds: number;
  readonly only: readonly ProgramName[];
  /** Null: one process is enough. */
  readonly workers: number | null;
  /** How many originals the vault of one more run holds already; null for no such run. */
  readonly vault: number | null;
  /** How many messages one more run loads, whose memory is looked at; null for no such run. */
  readonly memory: number | null;
  readonly latency: boolean;
  readonly idleSeconds: number;
  readonly json: boolean;
};

export const USAGE = `Usage: bun run bench [options]

  --messages <n>    messages of each run (100000)
  --rounds <n>      rounds, of which medians are taken (5)
  --only <names>    some of ${PROGRAM_NAMES.join(",")}
  --idle <seconds>  how long veil idles on an empty queue, before and after a load (60; 0: not at all)
  --workers <n>     also veil with so many processes
  --vault <n>       also veil with so many originals in the vault already
  --latency         also the time from send to commit, at half of veil's full rate
  --memory <n>      also one run of so many messages, for its memory
  --all             all of these: --workers 2 --vault 5000000 --latency --memory 1000000
  --json            one object instead of a table
`;

/** Throws, with what was expected, for options that there are not. */
export function readOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      messages: { type: "string", default: "100000" },
      rounds: { type: "string", default: "5" },
      only: { type: "string", default: PROGRAM_NAMES.join(",") },
      idle: { type: "string", default: "60" },
      workers: { type: "string" },
      vault: { type: "string" },
      memory: { type: "string" },
      latency: { type: "boolean", default: false },
      all: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
    },
  });
  const optional = (name: "workers" | "vault" | "memory", ofAll: string) => {
    const text = values[name] ?? (values.all ? ofAll : null);
    return text === null ? null : whole(name, text, 1);
  };
  return {
    messages: whole("messages", values.messages, 1),
    rounds: whole("rounds", values.rounds, 1),
    only: programNames(values.only),
    workers: optional("workers", "2"),
    vault: optional("vault", "5000000"),
    memory: optional("memory", "1000000"),
    latency: values.latency || values.all,
    idleSeconds: whole("idle", values.idle, 0),
    json: values.json,
  };
}

function whole(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!/^[0-9]+$/.test(text) || value < least) {
    throw new Error(`--${name}: expected a whole number of ${least} or more`);
  }
  return value;
}

function programNames(text: string): ProgramName[] {
  const names = text.split(",");
  const unknown = names.some((name) => !PROGRAM_NAMES.some((known) => known === name));
  if (unknown) throw new Error(`--only: expected some of ${PROGRAM_NAMES.join(",")}`);
  return PROGRAM_NAMES.filter((name) => names.includes(name));
}
