// The driver, and what it has to be kept from: it dials for ever, and breaks where a transaction's connection does.
import { Socket } from "node:net";
import postgres from "postgres";
import type { DatabaseConfig } from "../config/database-url.ts";
import type { Failure } from "../failure.ts";
import { describe, NO_ANSWER, unreachable } from "./errors.ts";
import { tlsOptions } from "./tls.ts";
import type { Row, Value } from "./values.ts";

export const serverOf = ({ socket, host, port }: DatabaseConfig): string =>
  socket ?? `${host}:${port}`;

export type Client = {
  readonly query: (
    text: string,
    values: readonly Value[],
    timeoutMs?: number,
  ) => Promise<readonly Row[]>;
  readonly close: (seconds?: number) => Promise<void>;
  /** At once, whatever is under way; nothing is waited for, not even the other side. */
  readonly discard: () => void;
};

/** Connections that the driver may open for each of its own without one answer. */
const DIALS = 3;

type Connecting = {
  readonly connections: number;
  readonly onclose?: () => void;
  readonly onnotify?: (channel: string, payload: string) => void;
};

export function connect(
  config: DatabaseConfig,
  { connections, onclose, onnotify }: Connecting,
): Client {
  const sockets = new Set<Socket>();
  let unanswered = 0;
  let isOver = false;
  const dial = (): Socket => {
    const socket = new Socket();
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    if (isOver || unanswered++ >= DIALS * connections) {
      // The driver dials once more after it was ended, too. And a server, or a balancer without one, that
      // accepts and closes at once it would dial again for ever, as fast as it can, and never say so.
      const refused = Object.assign(new Error(), { code: "CONNECTION_CLOSED" });
      setImmediate(() => socket.destroy(refused));
    } else if (config.socket === null) {
      socket.connect(config.port, config.host);
    } else {
      socket.connect(config.socket);
    }
    // Where the driver's TLS looks for the server's name.
    return Object.assign(socket, { host: config.host });
  };
  const sql = postgres({
    host: config.host,
    port: config.port,
    database: config.database,
    username: config.user,
    ...(config.password === null ? {} : { password: config.password }),
    ssl: tlsOptions(config),
    connect_timeout: config.connectTimeoutSeconds,
    max: connections,
    // Unnamed statements only, and no session state: PgBouncer in transaction mode may stand between.
    prepare: false,
    fetch_types: false,
    connection: { application_name: config.applicationName },
    onnotice: () => {},
    // Whoever has to know when the connection ends, or what comes over it, needs it to last.
    ...(onclose === undefined ? {} : { onclose, max_lifetime: null }),
    ...(onnotify === undefined ? {} : { onnotify, max_lifetime: null }),
    socket: dial,
  } as postgres.Options<Record<string, never>>);
  return {
    query: async (text, values, timeoutMs) => {
      try {
        const running = sql.unsafe(text, [...values]);
        const rows = await (timeoutMs === undefined
          ? running
          : within(running, timeoutMs, unreachable(NO_ANSWER, serverOf(config))));
        unanswered = 0;
        return rows;
      } catch (error) {
        if (error instanceof postgres.PostgresError) unanswered = 0;
        throw describe(error, serverOf(config));
      }
    },
    close: (seconds = 2) => {
      isOver = true;
      return sql.end({ timeout: seconds });
    },
    discard: () => {
      isOver = true;
      sql
        .end({ timeout: 0 })
        .catch(() => {})
        .finally(() => {
          for (const socket of sockets) socket.destroy();
        });
    },
  };
}

/** The answer, or after so long the failure. The server is not told: that would need a connection, too. */
async function within<T>(running: Promise<T>, milliseconds: number, late: Failure): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late), milliseconds);
  });
  try {
    return await Promise.race([running, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
