// The one door to Postgres: it hands out a narrow `Database`.
import { isIP, Socket } from "node:net";
import postgres from "postgres";
import { type Failure, failed } from "../failure.ts";
import { describe, isBroken, isOutage, NO_ANSWER, unreachable } from "./errors.ts";
import { offersTls } from "./offers-tls.ts";

/** A bytea, a number, text (arrays as `array` writes them), or null. */
export type Value = Uint8Array | string | number | boolean | null;
export type Row = Readonly<Record<string, unknown>>;
export type Query = (text: string, values?: readonly Value[]) => Promise<readonly Row[]>;

export type Database = {
  readonly host: string;
  /** One statement, committed when it answers. `timeoutMs`: how long its answer is waited for. */
  readonly query: (
    text: string,
    values?: readonly Value[],
    timeoutMs?: number,
  ) => Promise<readonly Row[]>;
  /** All of `work` or none of it, at READ COMMITTED whatever the server's default is. */
  readonly transaction: <T>(work: (query: Query) => Promise<T>, timeoutMs?: number) => Promise<T>;
  /** Reads only, and all of `work` sees what was committed when its first query began. */
  readonly snapshot: <T>(work: (query: Query) => Promise<T>) => Promise<T>;
  /**
   * Calls back at each notification, from when this answers until what it answers is called. On a connection of
   * its own; a pooler in transaction mode lets none through, and a connection that is lost is not made again:
   * it only ever saves time.
   */
  readonly listen: (channel: string, onNotify: (payload: string) => void) => Promise<() => void>;
  /** Goes on with new connections: to be called where the old ones cannot be trusted any more. */
  readonly renew: () => void;
  /** `seconds`: how long what is under way is waited for. */
  readonly close: (seconds?: number) => Promise<void>;
};

export type Tls = false | "prefer" | TlsOptions;
export type TlsOptions = {
  readonly rejectUnauthorized: boolean;
  readonly checkHostName: boolean;
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
};

export type DatabaseConfig = {
  readonly host: string;
  readonly port: number;
  readonly socket: string | null;
  readonly database: string;
  readonly user: string;
  readonly password: string | null;
  readonly tls: Tls;
  readonly applicationName: string;
  readonly connectTimeoutSeconds: number;
};

/** Connects at the first query, not here. */
export function openDatabase(config: DatabaseConfig, connections = 1): Database {
  let client = connect(config, { connections });
  // What the driver keeps of a connection that broke (bytes it had not sent yet, for one) can spoil the
  // next one made in its place: after an outage all of it is replaced.
  const replace = (broken: Client) => {
    if (client === broken) client = connect(config, { connections });
    broken.discard();
  };
  const transact = async <T>(
    mode: string,
    work: (query: Query) => Promise<T>,
    timeoutMs?: number,
  ): Promise<T> => {
    // A connection of its own, because the driver's own transactions write their rollback to a
    // connection that is gone, and nobody can catch what that throws (3.4.9).
    let gone = false;
    const own = connect(config, {
      connections: 1,
      onclose: () => {
        gone = true;
      },
    });
    const query: Query = async (text, values = []) => {
      // Otherwise the driver would connect again, and run the statement outside of the transaction.
      if (gone) throw unreachable("CONNECTION_CLOSED", serverOf(config));
      return await own.query(text, values, timeoutMs);
    };
    try {
      await query(`begin ${mode}`);
      const result = await work(query);
      await query("commit");
      await own.close();
      return result;
    } catch (error) {
      own.discard(); // and with it what was not committed
      throw await withoutTls(error, config);
    }
  };
  return {
    host: config.host,
    query: async (text, values = [], timeoutMs) => {
      const used = client;
      try {
        return await used.query(text, values, timeoutMs);
      } catch (error) {
        if (isBroken(error)) replace(used);
        throw await withoutTls(error, config);
      }
    },
    transaction: (work, timeoutMs) => transact("isolation level read committed", work, timeoutMs),
    snapshot: (work) => transact("isolation level repeatable read read only", work),
    listen: async (channel, onNotify) => {
      const onnotify = (_channel: string, payload: string) => onNotify(payload);
      const own = connect(config, { connections: 1, onnotify });
      try {
        await own.query(`listen "${channel}"`, []);
      } catch (error) {
        own.discard();
        throw error;
      }
      return () => own.discard();
    },
    renew: () => replace(client),
    close: (seconds) => client.close(seconds),
  };
}

const serverOf = ({ socket, host, port }: DatabaseConfig): string => socket ?? `${host}:${port}`;

type Client = {
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

function connect(config: DatabaseConfig, { connections, onclose, onnotify }: Connecting): Client {
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

/**
 * The driver goes on with the handshake after a server has declined TLS, and sees a reset connection. So
 * where TLS is asked for, that is looked into: otherwise a person would look for a server that is up.
 */
async function withoutTls(error: unknown, config: DatabaseConfig): Promise<unknown> {
  if (typeof config.tls !== "object" || !isOutage(error)) return error;
  if ((await offersTls(config.host, config.port)) !== false) return error;
  return failed(
    `the database at ${config.host}:${config.port} offers no TLS, which sslmode asks for`,
    "turn ssl on there; on a network that nobody else is on, sslmode=disable in DATABASE_URL",
  );
}

function tlsOptions(config: DatabaseConfig) {
  if (typeof config.tls !== "object") return config.tls;
  const { rejectUnauthorized, checkHostName, ca, cert, key } = config.tls;
  return {
    rejectUnauthorized,
    // An address is no server name to TLS; the certificate is held against it all the same.
    ...(isIP(config.host) === 0 ? { servername: config.host } : { host: config.host }),
    ...(checkHostName ? {} : { checkServerIdentity: () => undefined }),
    ...(ca === null ? {} : { ca }),
    ...(cert === null ? {} : { cert }),
    ...(key === null ? {} : { key }),
  };
}

/**
 * A Postgres array literal: what the driver would need a round trip and a type table to write. JSON's is the
 * same but for its brackets and what it escapes with more than a backslash (control characters, lone
 * surrogates), and the engine writes it in half of the time.
 */
export function array(values: readonly (string | number | null)[]): string {
  const json = JSON.stringify(values);
  return json.includes("\\") ? escapedArray(values) : `{${json.slice(1, -1)}}`;
}

function escapedArray(values: readonly (string | number | null)[]): string {
  const items = values.map((value) =>
    value === null ? "NULL" : `"${String(value).replace(/["\\]/g, "\\$&")}"`,
  );
  return `{${items.join(",")}}`;
}

/** The same for bytea[]. In hex all at once: a call for each value takes four times as long. */
export function byteaArray(values: readonly Uint8Array[]): string {
  const hex = Buffer.concat(values).toString("hex");
  let end = 0;
  const items = values.map(({ length }) => {
    const start = end;
    end += 2 * length;
    return `"\\\\x${hex.slice(start, end)}"`;
  });
  return `{${items.join(",")}}`;
}
