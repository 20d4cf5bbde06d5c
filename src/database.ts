// The one door to Postgres. It hands out a narrow `Database`, and turns every error into one that is
// safe to show: what Postgres says of a failed statement may quote the row, so only our own refusals
// (SQLSTATE VL…) and a few that can hold nothing but names keep their words.
import { isIP } from "node:net";
import postgres from "postgres";
import { Failure, failed } from "./failure.ts";
import { offersTls } from "./offers-tls.ts";

/** A bytea, a number, text (arrays as `array` writes them), or null. */
export type Value = Uint8Array | string | number | boolean | null;
export type Row = Readonly<Record<string, unknown>>;
export type Query = (text: string, values?: readonly Value[]) => Promise<readonly Row[]>;

export type Database = {
  readonly host: string;
  /** One statement, committed when it answers. */
  readonly query: Query;
  /** All of `work` or none of it, at READ COMMITTED whatever the server's default is. */
  readonly transaction: <T>(work: (query: Query) => Promise<T>) => Promise<T>;
  readonly close: () => Promise<void>;
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
  const sql = postgres({
    host: config.host,
    port: config.port,
    ...(config.socket === null ? {} : { path: config.socket }),
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
  });
  const queryWith =
    (client: postgres.Sql | postgres.TransactionSql): Query =>
    async (text, values = []) => {
      try {
        return await client.unsafe(text, [...values]);
      } catch (error) {
        throw await withoutTls(describe(error, config), config);
      }
    };
  return {
    host: config.host,
    query: queryWith(sql),
    transaction: async (work) => {
      try {
        const result = await sql.begin("isolation level read committed", (client) =>
          work(queryWith(client)),
        );
        return result as Awaited<ReturnType<typeof work>>;
      } catch (error) {
        throw await withoutTls(describe(error, config), config);
      }
    },
    close: () => sql.end({ timeout: 2 }),
  };
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

/** A Postgres array literal: what the driver would need a round trip and a type table to write. */
export function array(values: readonly (string | number | null)[]): string {
  const items = values.map((value) =>
    value === null ? "NULL" : `"${String(value).replace(/["\\]/g, "\\$&")}"`,
  );
  return `{${items.join(",")}}`;
}

/** The same for bytea[]. */
export const byteaArray = (values: readonly Uint8Array[]): string =>
  `{${values.map((bytes) => `"\\\\x${hex(bytes)}"`).join(",")}}`;

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => HEX[byte]).join("");

/** Deadlock and serialization failure: the statement did nothing and may simply run again. */
const isContention = (error: unknown): boolean =>
  error instanceof Failure && (error.code === "40P01" || error.code === "40001");

/**
 * The server took the statement and refused something in it: a value (class 22), a constraint (23), a
 * limit (54). Some row of a batch is at fault, and the others are not.
 */
export const isRejection = (error: unknown): error is Failure & { readonly code: string } =>
  error instanceof Failure && error.code !== null && /^(22|23|54)...$/.test(error.code);

/** The server cannot be reached, or not now: nothing is wrong with what was asked. */
export const isOutage = (error: unknown): boolean =>
  error instanceof Failure && error.code !== null && OUTAGES.test(error.code);

// Connection failures of the driver and the platform, SQLSTATE class 08, and the states of a server
// that is starting, stopping, full of connections, or a standby that was a primary a moment ago.
const OUTAGES =
  /^(CONNECTION_(CLOSED|ENDED|DESTROYED)|CONNECT_TIMEOUT|E(CONNREFUSED|CONNRESET|PIPE|TIMEDOUT|HOSTUNREACH|NETUNREACH|NOTFOUND|AI_AGAIN)|ENOENT|ERR_SOCKET_CLOSED|FailedToOpenSocket|ConnectionRefused|08...|57P0[1-3]|53300|25006)$/;

/**
 * Runs `work` again after contention, up to nine times, with jitter. Sorted batches make contention
 * rare; overlapping ones of an older version, or an administrator's lock, can still cause it.
 */
export async function retryContention<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isContention(error) || attempt === 10) throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * attempt));
    }
  }
}

// Their messages hold names (of a role, a database, a relation, a setting), never a row's values.
const SPEAKING = /^(VL...|28...|3D000|42501|42P01|42883|3F000|53300|57P0[1-5]|25006)$/;

function describe(error: unknown, config: DatabaseConfig): unknown {
  if (error instanceof Failure) return error;
  if (!(error instanceof Error))
    return failed("the database failed without saying why", "its own log may say more");
  const code = "code" in error && typeof error.code === "string" ? error.code : null;
  if (error instanceof postgres.PostgresError && code !== null) {
    const words = SPEAKING.test(code)
      ? error.message
      : "its message is withheld, it may quote data";
    const place = error.constraint_name ? ` (constraint ${error.constraint_name})` : "";
    const hint = SPEAKING.test(code) ? (error.hint ?? hintFor(code)) : hintFor(code);
    const message = code.startsWith("VL")
      ? words
      : `the database answered with error ${code}${place}: ${words}`;
    return new Failure(1, message, hint, code);
  }
  if (code !== null && (OUTAGES.test(code) || isTlsError(code, error))) {
    const server = config.socket ?? `${config.host}:${config.port}`;
    return OUTAGES.test(code)
      ? new Failure(
          1,
          `cannot reach the database at ${server} (${code})`,
          "is it running, and do host and port of DATABASE_URL name it?",
          code,
        )
      : new Failure(
          1,
          `the TLS certificate of the database at ${server} was refused (${code})`,
          "give its authority as sslrootcert=FILE in DATABASE_URL; sslmode is explained in the README",
          code,
        );
  }
  return error;
}

const isTlsError = (code: string, error: Error): boolean =>
  /CERT|TLS|SSL|SELF_SIGNED|ISSUER/.test(code) || /certificate/i.test(error.message);

function hintFor(code: string): string | null {
  if (code.startsWith("28") || code === "3D000") return "check user, password and database name";
  if (code === "42501")
    return "connect as a login that was granted the role this command needs (the README lists them)";
  if (/^(42P01|42883|3F000)$/.test(code)) return "run `veil migrate` as the database's owner";
  return "the server's own log has the whole message";
}
