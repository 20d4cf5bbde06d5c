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
  /** How many logins another database holds already, and how many of them in today's period; null for none. */
  readonly history: { readonly logins: number; readonly inCurrent: number } | null;
  /** PostgreSQL's, where a history is measured; its default otherwise. */
  readonly sharedBuffers: string;
  /** Of how many originals and rows a period is that expires while loads run; null for none. */
  readonly expire: number | null;
  readonly latency: boolean;
  readonly idleSeconds: number;
  readonly json: boolean;
};

export const USAGE = `Usage: bun run bench [options]

  --messages <n>    messages of each run (100000; with --history or --expire 1000000)
  --rounds <n>      rounds, of which medians are taken (5; with --history or --expire 3)
  --only <names>    some of ${PROGRAM_NAMES.join(",")}
  --idle <seconds>  how long veil idles on an empty queue, before and after a load (60; 0: not at all)
  --workers <n>     also veil with so many processes
  --vault <n>       also veil with so many originals in the vault already
  --latency         also the time from send to commit, at half of veil's full rate
  --memory <n>      also one run of so many messages, for its memory
  --history <n>     instead of all that: veil with n logins and originals there, beside an empty database
  --current-share <n>  how many of those are in today's period (a thirtieth)
  --shared-buffers <size>  of PostgreSQL, with --history or --expire (1GB)
  --expire <n>      instead of all that, or with --history: a period of n originals and rows expires
  --all             all of these: --workers 2 --vault 5000000 --latency --memory 1000000
  --json            one object instead of a table
`;

/** Throws, with what was expected, for options that there are not. */
export function readOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      messages: { type: "string" },
      rounds: { type: "string" },
      only: { type: "string", default: PROGRAM_NAMES.join(",") },
      idle: { type: "string", default: "60" },
      workers: { type: "string" },
      vault: { type: "string" },
      memory: { type: "string" },
      history: { type: "string" },
      "current-share": { type: "string" },
      "shared-buffers": { type: "string", default: "1GB" },
      expire: { type: "string" },
      latency: { type: "boolean", default: false },
      all: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
    },
  });
  const optional = (name: "workers" | "vault" | "memory", ofAll: string) => {
    const text = values[name] ?? (values.all ? ofAll : null);
    return text === null ? null : whole(name, text, 1);
  };
  const given = (name: "history" | "expire") =>
    values[name] === undefined ? null : whole(name, values[name], 1);
  const [logins, expire] = [given("history"), given("expire")];
  const isOfHistory = logins !== null || expire !== null;
  return {
    messages: whole("messages", values.messages ?? (isOfHistory ? "1000000" : "100000"), 1),
    rounds: whole("rounds", values.rounds ?? (isOfHistory ? "3" : "5"), 1),
    history: logins === null ? null : { logins, inCurrent: share(logins, values["current-share"]) },
    sharedBuffers: memory(values["shared-buffers"]),
    expire,
    only: programNames(values.only),
    workers: optional("workers", "2"),
    vault: optional("vault", "5000000"),
    memory: optional("memory", "1000000"),
    latency: values.latency || values.all,
    idleSeconds: whole("idle", values.idle, 0),
    json: values.json,
  };
}

function share(logins: number, text: string | undefined): number {
  const inCurrent = text === undefined ? Math.ceil(logins / 30) : whole("current-share", text, 1);
  if (inCurrent > logins) throw new Error("--current-share: expected no more than --history");
  return inCurrent;
}

function memory(text: string): string {
  if (!/^[0-9]+(MB|GB)$/.test(text))
    throw new Error("--shared-buffers: expected such as 128MB or 1GB");
  return text;
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
