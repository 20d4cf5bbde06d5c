// The queue of the embedded default: a server that commands share, filled with the sample messages
// that have no row yet.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { QueueConfig } from "../config/queue-url.ts";
import { failed } from "../failure.ts";
import { checkout, home, run } from "./places.ts";
import { sampleBodies } from "./sample.ts";

type QueueState = {
  readonly pid: number;
  readonly endpoint: string;
  readonly url: string;
  readonly sent: readonly (readonly [number, string])[];
};

const queueFile = join(run, "queue.json");

function readQueue(file = queueFile): QueueState | null {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as QueueState;
  } catch {
    return null;
  }
}

/**
 * The queue that another command runs, or a new one with the sample messages that have no row yet.
 * `alone`: a queue that still runs was left behind, and its messages are in flight to nobody.
 */
export async function shareQueue(
  alone: boolean,
  storedIds: () => Promise<ReadonlySet<string>>,
): Promise<QueueConfig> {
  const running = readQueue();
  if (!alone && running !== null && (await answers(running.endpoint))) return asConfig(running);
  await stopQueue();
  const idsFile = join(home, "sample.json");
  const ids: Record<string, string[]> = existsSync(idsFile)
    ? JSON.parse(readFileSync(idsFile, "utf8"))
    : {};
  const stored = await storedIds();
  const pending = sampleBodies()
    .map((_, index) => index)
    .filter((index) => !(ids[index] ?? []).some((id) => stored.has(id)));
  // A name of its own. A server whose starter was killed may still come up and write its own file.
  const own = join(run, `queue-${randomUUID()}.json`);
  const queue = await startQueue(own, pending);
  // Written before the first message can be received.
  for (const [index, id] of queue.sent) ids[index] = [...(ids[index] ?? []), id];
  writeFileSync(`${idsFile}.new`, JSON.stringify(ids));
  renameSync(`${idsFile}.new`, idsFile);
  renameSync(own, queueFile);
  return asConfig(queue);
}

const asConfig = ({ url, endpoint }: QueueState): QueueConfig => ({
  queue: url,
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "local", secretAccessKey: "local" },
});

async function startQueue(file: string, pending: readonly number[]): Promise<QueueState> {
  const script = fileURLToPath(new URL("./queue-server.ts", import.meta.url));
  const log = openSync(join(run, "queue.log"), "w", 0o600);
  const deno = "deno" in process.versions ? ["run", "--allow-all"] : [];
  const server = spawn(
    process.execPath,
    [...deno, script, run, basename(file), ...pending.map(String)],
    {
      cwd: checkout,
      detached: true,
      stdio: ["ignore", log, log],
      env: { PATH: "/usr/bin:/bin" },
    },
  );
  let ended = false;
  server.once("error", () => (ended = true));
  server.once("exit", () => (ended = true));
  server.unref();
  for (let waited = 0; waited < 30_000 && !ended; waited += 25) {
    const queue = readQueue(file);
    if (queue !== null) return queue;
    await sleep(25);
  }
  throw failed(
    `the local queue did not start; its log is ${join(run, "queue.log")}`,
    "bun run etl --reset-local starts over; or set QUEUE_URL and DATABASE_URL",
  );
}

/**
 * Stops the server that commands share, and those whose starter was killed before they were shared.
 */
export async function stopQueue(): Promise<void> {
  for (const name of readdirSync(run)) {
    if (!/^queue.*\.json$/.test(name)) continue;
    const queue = readQueue(join(run, name));
    rmSync(join(run, name), { force: true });
    if (queue !== null) await stopServer(queue);
  }
}

async function stopServer(queue: QueueState): Promise<void> {
  if (!(await answers(queue.endpoint))) return;
  try {
    process.kill(queue.pid, "SIGTERM");
    for (let waited = 0; waited < 3000; waited += 20) {
      process.kill(queue.pid, 0);
      await sleep(20);
    }
    process.kill(queue.pid, "SIGKILL");
  } catch {
    // It is gone.
  }
}

/**
 * Whether our server listens there. After a reboot its process id may belong to another program.
 */
async function answers(endpoint: string): Promise<boolean> {
  try {
    return (await fetch(`${endpoint}/health`, { signal: AbortSignal.timeout(1000) })).ok;
  } catch {
    return false;
  }
}
