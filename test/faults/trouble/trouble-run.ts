// A real `veil etl` that a test watches while it runs: what it has said so far, and how it ended.
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Waits } from "../../../src/commands/servers.ts";
import type { Summary } from "../../line/stored.ts";
import { startVeil } from "../../support/veil.ts";

export type TroubleSummary = Summary & { readonly handedBack: number; readonly retries: number };

export type Ended = {
  readonly code: number;
  /** Whole lines of stderr. */
  readonly said: readonly string[];
  /** Null where stdout was empty; throws where it is anything but one line of JSON. */
  readonly summary: () => TroubleSummary;
  readonly stdout: string;
};

export type Running = {
  readonly pid: number;
  readonly said: () => readonly string[];
  /** Waits until so many lines match. */
  readonly says: (pattern: RegExp, times?: number) => Promise<void>;
  readonly signal: (name: "SIGTERM" | "SIGINT" | "SIGKILL" | "SIGSTOP" | "SIGCONT") => void;
  readonly isRunning: () => boolean;
  /** Waits until a signal would reach the program, and not just end the process. */
  readonly listens: () => Promise<void>;
  readonly ended: Promise<Ended>;
};

/** What --follow says once a minute, whatever happens. */
const REPORT = /^[0-9-]{10}T[0-9:.]+Z received=[0-9]+ /;

/** What is said of an outage, of the database or the queue; and at the end of one of the database. */
export const AWAY = /^warning: .+; waiting for it, nothing is lost$/;
export const BACK = /^the database stores again after [0-9]+ s$/;

/** That it ended well and told of one outage of the database, once that it began and once that it ended. */
export async function expectOneOutage(run: Running): Promise<Ended> {
  const ended = await run.ended;
  expect({ code: ended.code, said: ended.said }).toEqual({
    code: 0,
    said: [expect.stringMatching(AWAY), expect.stringMatching(BACK)],
  });
  return ended;
}

/** Far beyond what anything here takes on a slow machine: what is not there by then never comes. */
const LONGEST_WAIT_MS = 600_000;

/**
 * A server that is only slow, because the machine is busy, is no trouble. A load has its usual minute: that helps
 * where the driver forgets a query (3.4.9, one that is sent between a socket's error and its close).
 */
const PATIENT: Partial<Waits> = {
  ...{ stalledMs: 600_000, outageMs: 600_000 },
  ...{ queueAnswerMs: 600_000, queueConnectMs: 600_000, startAnswerMs: 600_000 },
};

/** A veil whose first argument says how long it waits. */
export const PROGRAM = fileURLToPath(new URL("./trouble-veil.ts", import.meta.url));
/** For a queue that is a single server's: what a poll does not find at once is not there. */
export const DRAINS_AT_ONCE = JSON.stringify({ drainPollSeconds: 0 });

/** Waits for something that another process brings about; throws, naming it, if it never does. */
export async function eventually(
  what: string | (() => string),
  holds: () => Promise<boolean> | boolean,
): Promise<void> {
  for (const start = Date.now(); Date.now() - start < LONGEST_WAIT_MS; await Bun.sleep(25)) {
    if (await holds()) return;
  }
  throw new Error(`never happened: ${typeof what === "string" ? what : what()}`);
}

/** It waits for what `waits` does not say as if the machine had all the time in the world. */
export function startRun(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  waits: Partial<Waits> = {},
): Running {
  const all = JSON.stringify({ ...PATIENT, ...waits });
  const child = startVeil([all, ...args], { env, program: PROGRAM });
  let text = "";
  const reading = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) text += decoder.decode(chunk, { stream: true });
  })();
  const said = () => text.split("\n").slice(0, -1);
  const ended = (async (): Promise<Ended> => {
    const [stdout, code] = await Promise.all([
      new Response(child.stdout).text(),
      child.exited,
      reading,
    ]);
    return {
      code,
      stdout,
      said: text.split("\n").filter((line) => line !== "" && !REPORT.test(line)),
      summary: () => {
        if (!/^\{[^\n]*\}\n$/.test(stdout)) {
          throw new Error(`expected one line of JSON, got ${stdout}; stderr: ${text}`);
        }
        return JSON.parse(stdout) as TroubleSummary;
      },
    };
  })();
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  return {
    pid: child.pid,
    said,
    says: async (pattern, times = 1) => {
      const matching = () => said().filter((line) => pattern.test(line)).length;
      const what = () => `stderr says ${pattern}, ${times} times; it says: ${text}`;
      await eventually(what, () => {
        if (matching() >= times) return true;
        if (isRunning()) return false;
        throw new Error(`it ended without saying ${pattern}; it said: ${text}`);
      });
    },
    signal: (name) => child.kill(name),
    isRunning,
    listens: () =>
      eventually("it listens to signals", () => !isRunning() || catchesSigterm(child.pid)),
    ended,
  };
}

/** By the kernel's account. */
function catchesSigterm(pid: number): boolean {
  const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return ((BigInt(`0x${caught}`) >> 14n) & 1n) === 1n;
}
