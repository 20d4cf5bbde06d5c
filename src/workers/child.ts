// A worker's process, as its parent sees it: started, spoken to, and gone.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Order } from "./channel.ts";
import { WORKER_COMMAND } from "./command.ts";

/** What a process that has ended has said is read within moments. */
const LAST_WORDS_MS = 1_000;

/** How a process ended. */
export type HowEnded =
  | { readonly signal: string }
  | { readonly exitCode: number }
  | { readonly cannotStart: string };

/** No secret among the arguments: whoever may list processes sees them. */
export function startWorker(): ChildProcess {
  const script = fileURLToPath(new URL("../cli.ts", import.meta.url));
  // A compiled binary has no source files beside it, and is the whole program itself.
  const source = existsSync(script) ? [...process.execArgv, "--no-env-file", script] : [];
  return spawn(process.execPath, [...source, WORKER_COMMAND], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
}

/** One that has died hears nothing any more, and needs to hear nothing. */
export function send(child: ChildProcess, order: Order): void {
  if (child.connected) child.send(order, () => {});
}

/** Resolves when it is gone, and all that it has said was read. */
export async function ended(child: ChildProcess): Promise<HowEnded> {
  const silent = new Promise<void>((resolve) => child.once("disconnect", resolve));
  const how = await new Promise<HowEnded>((resolve) => {
    child.once("exit", (code, signal) =>
      resolve(signal === null ? { exitCode: code ?? 1 } : { signal }),
    );
    child.on("error", (error) => {
      if (child.pid === undefined) {
        resolve({ cannotStart: "code" in error ? String(error.code) : error.name });
      }
    });
  });
  if ("cannotStart" in how) return how;
  const lastWords = new AbortController();
  const { signal } = lastWords;
  await Promise.race([silent, sleep(LAST_WORDS_MS, undefined, { signal }).catch(() => {})]);
  lastWords.abort();
  return how;
}
