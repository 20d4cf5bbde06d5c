// A PostgreSQL server of one's own: made, started, found running, stopped. The embedded default and
// the tests run on it.
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { failed } from "../failure.ts";
import { type Account, SERVER_ENV } from "./binaries.ts";

export type Cluster = {
  /** The folder of postgres, initdb and pg_ctl. */
  readonly binaries: string;
  readonly data: string;
  readonly log: string;
  /** The user that the server runs as where we are root: it refuses to run as root. */
  readonly account: Account | null;
};

/** Makes the data folder, or leaves it as it is. The superuser is `postgres`. `more` is for initdb. */
export function initCluster(cluster: Cluster, superuserPassword: string, ...more: string[]): void {
  if (existsSync(join(cluster.data, "PG_VERSION"))) {
    requireOwner(cluster);
    return;
  }
  rmSync(cluster.data, { recursive: true, force: true }); // half of a removal
  // Where we are root, the folder around it is root's. In a folder of the server's account, that
  // account could lay a link which makes us write, or give away, any file of the machine.
  const folder = dirname(cluster.data);
  for (const left of readdirSync(folder)) {
    if (!left.startsWith("new-")) continue;
    try {
      rmSync(join(folder, left), { recursive: true, force: true });
    } catch {
      // An initdb whose starter was killed is still writing there; the next first run removes it.
    }
  }
  // Made beside and renamed, so that an interrupted run leaves no half of a database. It has a
  // folder of its own, because the initdb of such a run may still be at work in another.
  const workplace = mkdtempSync(join(folder, "new-"));
  const fresh = join(workplace, "data");
  const passwordFile = join(workplace, "password");
  try {
    chmodSync(workplace, 0o755);
    mkdirSync(fresh, { mode: 0o700 });
    writeFileSync(passwordFile, `${superuserPassword}\n`, { mode: 0o600, flag: "wx" });
    if (cluster.account !== null) {
      const { uid, gid } = cluster.account;
      for (const path of [fresh, passwordFile]) chownSync(path, uid, gid);
    }
    const made = run(cluster, "initdb", [
      `--pgdata=${fresh}`,
      "--username=postgres",
      `--pwfile=${passwordFile}`,
      "--auth=scram-sha-256",
      "--encoding=UTF8",
      "--locale=C",
      ...more,
    ]);
    if (made.status !== 0) throw serverFailure("initdb failed", made.error?.message ?? made.stderr);
    renameSync(fresh, cluster.data);
  } finally {
    rmSync(workplace, { recursive: true, force: true });
  }
}

function requireOwner(cluster: Cluster): void {
  const owner = statSync(cluster.data).uid;
  const wanted = cluster.account?.uid ?? process.getuid?.() ?? owner;
  if (owner === wanted) return;
  throw failed(
    `the embedded database belongs to user ${owner}, and PostgreSQL would run as user ${wanted} here`,
    "run as the user who ran veil here first, or set DATABASE_URL",
  );
}

/**
 * Starts the server on a free loopback port, without Unix sockets, and answers when it is ready.
 */
export async function startCluster(
  cluster: Cluster,
  settings: Readonly<Record<string, string>> = {},
): Promise<number> {
  if (/["$`\\\n]/.test(cluster.data)) {
    throw failed(
      'PostgreSQL does not start in a folder whose path holds ", $, ` or \\',
      "move the checkout, or set DATABASE_URL",
    );
  }
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const all = {
      listen_addresses: "127.0.0.1",
      port: String(port),
      unix_socket_directories: "",
      ...settings,
    };
    const options = Object.entries(all).map(([name, value]) => `-c ${name}='${value}'`);
    const log = cluster.log;
    const started = run(cluster, "pg_ctl", [
      "start",
      "--wait",
      "--silent",
      `--pgdata=${cluster.data}`,
      `--log=${log}`,
      `--options=${options.join(" ")}`,
    ]);
    if (started.status === 0) return port;
    // Another program may have taken the port after it was chosen.
    if (attempt === 3) throw serverFailure("PostgreSQL did not start", readTail(log));
  }
}

/**
 * The port of the server that runs on this data folder, or null. Removes what a crash left behind.
 */
export function runningPort(cluster: Cluster): number | null {
  const pidFile = join(cluster.data, "postmaster.pid");
  let lines: string[];
  try {
    lines = readFileSync(pidFile, "utf8").split("\n");
  } catch {
    return null;
  }
  const pid = Number(lines[0]);
  if (isServer(pid, cluster.data)) return Number(lines[3]);
  // After a reboot the process id may belong to another program, and PostgreSQL would refuse to
  // start. It clears away the file of a dead process itself, after looking for that server's
  // orphans.
  if (isAlive(pid)) rmSync(pidFile, { force: true });
  return null;
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

function isServer(pid: number, data: string): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(data);
  } catch {
    const listed = spawnSync("ps", ["-p", String(pid), "-o", "command="], {
      encoding: "utf8",
      env: SERVER_ENV,
    });
    return listed.status === 0 && listed.stdout.includes(data);
  }
}

export function stopCluster(cluster: Cluster, mode: "fast" | "immediate" = "fast"): void {
  run(cluster, "pg_ctl", [
    "stop",
    "--wait",
    "--silent",
    `--mode=${mode}`,
    `--pgdata=${cluster.data}`,
  ]);
}

function run(cluster: Cluster, program: string, args: string[]): SpawnSyncReturns<string> {
  return spawnSync(join(cluster.binaries, program), args, {
    encoding: "utf8",
    cwd: dirname(cluster.data),
    env: SERVER_ENV,
    ...(cluster.account ?? {}),
  });
}

const serverFailure = (what: string, detail: string) =>
  failed(
    `the embedded PostgreSQL: ${what}: ${detail.trim().split("\n").slice(-3).join(" / ")}`,
    "`bun run etl --reset-local` starts over; or set DATABASE_URL to use a server of your own",
  );

function readTail(file: string): string {
  try {
    if (!lstatSync(file).isFile()) return "its log is no file";
    return readFileSync(file, "utf8").slice(-600);
  } catch {
    return "it wrote no log";
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        typeof address === "object" && address !== null
          ? resolve(address.port)
          : reject(failed("no free port on the loopback interface")),
      );
    });
  });
}
