// The driver, kept from dialling for ever. Only this file knows it.
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
  /** At once, whatever is under way. Nothing is waited for, not even the server. */
  readonly discard: () => void;
};

type Connecting = {
  readonly connections: number;
  readonly onclose?: () => void;
  readonly onnotify?: (channel: string, payload: string) => void;
};

export function connect(
  config: DatabaseConfig,
  { connections, onclose, onnotify }: Connecting,
): Client {
  const dialling = dial(config, connections);
  const sql = postgres({
    host: config.host,
    port: config.port,
    database: config.database,
    username: config.user,
    ...(config.password === null ? {} : { password: config.password }),
    ssl: tlsOptions(config),
    connect_timeout: config.connectTimeoutSeconds,
    max: connections,
    // Only unnamed statements, and no session state: PgBouncer in transaction mode may stand
    // between.
    prepare: false,
    fetch_types: false,
    connection: { application_name: config.applicationName },
    onnotice: () => {},
    // Where somebody waits for the connection's end, or for notifications, it has to last.
    ...(onclose === undefined ? {} : { onclose, max_lifetime: null }),
    ...(onnotify === undefined ? {} : { onnotify, max_lifetime: null }),
    socket: dialling.socket,
  } as postgres.Options<Record<string, never>>);
  return {
    query: async (text, values, timeoutMs) => {
      try {
        const running = sql.unsafe(text, [...values]);
        const rows = await (timeoutMs === undefined
          ? running
          : within(running, timeoutMs, unreachable(NO_ANSWER, serverOf(config))));
        dialling.answered();
        return rows;
      } catch (error) {
        if (error instanceof postgres.PostgresError) dialling.answered();
        throw describe(error, serverOf(config));
      }
    },
    close: (seconds = 2) => {
      dialling.end();
      return sql.end({ timeout: seconds });
    },
    discard: () => {
      dialling.end();
      sql
        .end({ timeout: 0 })
        .catch(() => {})
        .finally(() => dialling.destroy());
    },
  };
}

/** For each of its connections, the driver may dial so often without one answer. */
const DIALS = 3;

/**
 * The driver's sockets. State: those that are open, and how often it has dialled without an answer.
 */
function dial(config: DatabaseConfig, connections: number) {
  const sockets = new Set<Socket>();
  let unanswered = 0;
  let isOver = false;
  return {
    socket: (): Socket => {
      const socket = new Socket();
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      if (isOver || unanswered++ >= DIALS * connections) {
        // The driver dials once more after it was ended, too. And where a server (or a balancer
        // without one) accepts and closes at once, the driver would dial again for ever, as fast as
        // it can, and never say so.
        const refused = Object.assign(new Error(), { code: "CONNECTION_CLOSED" });
        setImmediate(() => socket.destroy(refused));
      } else if (config.socket === null) {
        socket.connect(config.port, config.host);
      } else {
        socket.connect(config.socket);
      }
      // Where the driver's TLS looks for the server's name.
      return Object.assign(socket, { host: config.host });
    },
    answered: (): void => {
      unanswered = 0;
    },
    end: (): void => {
      isOver = true;
    },
    destroy: (): void => {
      for (const socket of sockets) socket.destroy();
    },
  };
}

/**
 * The answer, or the failure after so long. The server is not told: that would take a connection,
 * too.
 */
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
