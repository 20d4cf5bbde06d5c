// A PostgreSQL of one's own, for tests, harnesses and benchmarks: in a temporary folder, on a free loopback
// port. It and its folder are gone after `stop`, and at the latest when the process ends, by a kill too.
import { spawn } from "node:child_process";
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findBinaries, serverAccount } from "../../src/local/binaries.ts";
import { type Cluster, initCluster, startCluster, stopCluster } from "../../src/local/cluster.ts";
import { makeOwnFolder } from "./own-folder.ts";

/** The superuser's, and that of every login that `urlOf` is asked for. */
export const SCRATCH_PASSWORD = "test-superuser";

export type ScratchCluster = {
  readonly cluster: Cluster;
  /** Holds the data and the log, and takes what else is to be gone with them. */
  readonly folder: string;
  readonly port: number;
  /** The superuser's, on the database `postgres`. */
  readonly url: string;
  readonly urlOf: (login: string, database?: string) => string;
  /** Stops the server and starts it again on the same port; one restart waits for another. */
  readonly restart: (mode: "fast" | "immediate", awayMs?: number) => Promise<void>;
  /** Synchronous, so that it can be done while the process exits; does nothing the second time. */
  readonly stop: () => void;
};

const running = new Set<() => void>();
process.on("exit", () => {
  for (const stop of running) stop();
});

/** `name` is for the folder's; `packageName` names other binaries than those of this platform. */
export async function startScratchCluster(
  name: string,
  settings: Readonly<Record<string, string>> = {},
  packageName?: string,
): Promise<ScratchCluster> {
  const account = serverAccount();
  const binaries = await findBinaries(account, packageName);
  const { path: folder, remove } = makeOwnFolder(name);
  const cluster: Cluster = {
    ...{ binaries, account },
    data: join(folder, "data"),
    log: join(folder, "server.log"),
  };
  const stop = () => {
    if (!running.delete(stop)) return;
    stopCluster(cluster, "immediate");
    remove();
  };
  running.add(stop);
  try {
    // The server's account writes its log there.
    chmodSync(folder, 0o777);
    // Thrown away before the machine could lose it.
    initCluster(cluster, SCRATCH_PASSWORD, "--no-sync");
    const port = await startCluster(cluster, settings);
    const urlOf = (login: string, database = "postgres") =>
      `postgres://${login}:${SCRATCH_PASSWORD}@127.0.0.1:${port}/${database}`;
    let last = Promise.resolve();
    const restart: ScratchCluster["restart"] = (mode, awayMs = 0) => {
      const done = last.then(async () => {
        await control(cluster, "stop", "--mode", mode);
        await sleep(awayMs);
        const options = optionsOf({ ...settings, port: String(port) });
        await control(cluster, "start", "--log", cluster.log, "--options", options);
      });
      last = done.catch(() => {});
      return done;
    };
    return { cluster, folder, port, url: urlOf("postgres"), urlOf, restart, stop };
  } catch (error) {
    stop();
    throw error;
  }
}

function optionsOf(settings: Readonly<Record<string, string>>): string {
  const all = { listen_addresses: "127.0.0.1", unix_socket_directories: "", ...settings };
  return Object.entries(all)
    .map(([name, value]) => `-c ${name}='${value}'`)
    .join(" ");
}

/** Not by the cluster's own functions: those wait, and queues and proxies may live in this process. */
function control({ binaries, data, account }: Cluster, ...args: string[]): Promise<void> {
  const child = spawn(join(binaries, "pg_ctl"), [...args, "--wait", "--silent", "--pgdata", data], {
    cwd: "/",
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", TZ: "UTC" },
    stdio: "ignore",
    ...(account ?? {}),
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`pg_ctl ${args[0]} failed with ${code}`));
    });
  });
}
