// What a process takes of its machine and of the database, read from outside of it.
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Servers } from "./servers.ts";

export type Gauges = {
  readonly seconds: number;
  readonly rssMiB: number;
  readonly files: number;
  readonly sockets: number;
  /** Of veil's login, as the database counts them. */
  readonly connections: number;
  /** Null where they were not counted. */
  readonly timers: number | null;
};

/** Null for a process that is not there. */
export async function readGauges(
  servers: Servers,
  pid: number,
  seconds: number,
  timersFile: string,
): Promise<Gauges | null> {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const links = readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`));
    const [row] = await servers.sql`
      select count(*)::integer as connections from pg_stat_activity
      where usename = ${servers.etlLogin}`;
    return {
      seconds: Math.round(seconds),
      rssMiB: Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024),
      files: links.length,
      sockets: links.filter((link) => link.startsWith("socket:")).length,
      connections: Number(row?.connections ?? 0),
      timers: readTimers(timersFile),
    };
  } catch {
    return null;
  }
}

/** A descriptor may be closed while its folder is read. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function readTimers(file: string): number | null {
  try {
    return Number(readFileSync(file, "utf8"));
  } catch {
    return null;
  }
}

export const formatGauges = (gauges: Gauges): string =>
  [
    `${String(gauges.seconds).padStart(5)} s`,
    `RSS ${gauges.rssMiB} MiB`,
    `files ${gauges.files}`,
    `sockets ${gauges.sockets}`,
    `connections ${gauges.connections}`,
    `timers ${gauges.timers ?? "?"}`,
  ].join("  ");
