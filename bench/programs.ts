// The programs that are compared, each a process of its own: how it is started, on which logins and on
// what kind of database.
import { fileURLToPath } from "node:url";
import { endsWithUs } from "../test/support/ends-with-us.ts";
import type { LoginKind } from "./logins.ts";
import { type Servers, type Template, veil } from "./servers.ts";

export type Program = {
  readonly name: string;
  readonly title: string;
  readonly logins: LoginKind;
  readonly template: Template;
  /** What is run to load so many messages, and ends by itself after exactly that. */
  readonly command: (messages: number) => readonly string[];
  readonly isVeil: boolean;
  /** Whom it is compared with, by name. */
  readonly bases: readonly string[];
  /** What is done to its database right before a run that counts. */
  readonly prepare?: (database: string) => Promise<void>;
};

export const PROGRAM_NAMES = ["limit", "consumer", "new", "repeating"] as const;
export type ProgramName = (typeof PROGRAM_NAMES)[number];

const script = (name: string) => [
  ...[process.execPath, "--no-env-file"],
  fileURLToPath(new URL(name, import.meta.url)),
];

const etl = (messages: number, ...more: string[]): string[] =>
  veil("etl", "--max-messages", String(messages), "--json", ...more);

const OTHERS = ["limit", "consumer"];
const ours = { logins: "new", template: "veil", isVeil: true, bases: OTHERS } as const;
const other = { logins: "new", template: "bare", isVeil: false } as const;

export const PROGRAMS: Record<ProgramName, Program> = {
  limit: {
    ...other,
    bases: [],
    name: "limit",
    title: "limit: fetch, parse, insert, delete",
    command: (messages) => [...script("./limit.ts"), String(messages)],
  },
  consumer: {
    ...other,
    bases: ["limit"],
    name: "consumer",
    title: "sqs-consumer + pg",
    command: (messages) => [...script("./consumer.ts"), String(messages)],
  },
  new: { ...ours, name: "new", title: "veil, all originals new", command: (n) => etl(n) },
  repeating: {
    ...ours,
    name: "repeating",
    title: "veil, 2,000 devices repeating",
    logins: "repeating",
    command: (n) => etl(n),
  },
};

export const withVault = (originals: number): Program => ({
  ...PROGRAMS.new,
  bases: ["new", ...OTHERS],
  name: "vault",
  title: `veil, ${originals.toLocaleString("en")} originals there`,
  template: "vault",
});

export const withWorkers = (workers: number): Program => ({
  ...PROGRAMS.new,
  bases: ["new", ...OTHERS],
  name: "workers",
  title: `veil, all new, ${workers} workers`,
  command: (messages) => etl(messages, "--workers", String(workers)),
});

/** Whether this version of veil spreads over several processes. */
export function hasWorkers(): boolean {
  const { stdout } = Bun.spawnSync(veil("etl", "--help"), { cwd: "/", env: {} });
  return stdout.toString().includes("--workers");
}

export type Running = {
  readonly pid: number;
  readonly exited: Promise<number>;
  readonly errors: Promise<string>;
  readonly kill: (signal: "SIGTERM" | "SIGKILL") => void;
  /** User and system, of it and of its own children, once it has ended. */
  readonly cpuMicros: () => number;
};

/** Started with no more than it has to know; ends with this process, however that ends. */
export function start(
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  longestMs?: number,
): Running {
  const child = Bun.spawn(endsWithUs(argv), {
    ...{ env, cwd: "/", stdio: ["ignore", "ignore", "pipe"], killSignal: "SIGKILL" },
    ...(longestMs === undefined ? {} : { timeout: longestMs }),
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  return {
    pid: child.pid,
    exited: child.exited.finally(() => process.removeListener("exit", kill)),
    errors: new Response(child.stderr).text(),
    kill: (signal) => child.kill(signal),
    cpuMicros: () => {
      const { user, system } = child.resourceUsage()!.cpuTime;
      return Number(user) + Number(system);
    },
  };
}

/** All that a program gets to know. */
export function environmentOf(
  servers: Servers,
  { isVeil }: Program,
  queueUrl: string,
  database: string,
): Record<string, string> {
  return {
    PATH: process.env.PATH ?? "",
    HOME: "/",
    QUEUE_URL: queueUrl,
    AWS_ENDPOINT_URL_SQS: servers.queue.endpoint,
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: "bench",
    AWS_SECRET_ACCESS_KEY: "bench",
    ...(isVeil
      ? {
          DATABASE_URL: servers.etlUrl(database),
          VEIL_TOKEN_KEY: servers.keys.VEIL_TOKEN_KEY,
          VEIL_RECIPIENTS: servers.keys.VEIL_RECIPIENTS,
        }
      : { DATABASE_URL: servers.superuserUrl(database) }),
  };
}
