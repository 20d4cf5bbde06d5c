// Errors of PostgreSQL: told apart, and made safe to show. Its message about a failed statement may
// quote the row. So only veil's own refusals (SQLSTATE VL…), and a few others that can hold nothing
// but names, keep their message.
import { Failure, failed, hasCode } from "../failure.ts";
import {
  CANCELED,
  CHECK_VIOLATION,
  DEADLOCK,
  INSUFFICIENT_PRIVILEGE,
  NO_SUCH_DATABASE,
  NO_SUCH_FUNCTION,
  NO_SUCH_SCHEMA,
  NO_SUCH_TABLE,
  ORIGINALS_LACKING,
  READ_ONLY,
  SERIALIZATION_FAILURE,
} from "./sqlstates.ts";

/** A deadlock or a serialization failure: the statement did nothing, and may simply run again. */
export const isContention = (error: unknown): boolean =>
  hasCode(error, DEADLOCK) || hasCode(error, SERIALIZATION_FAILURE);

/**
 * The server took the statement and refused something in it: a value (class 22), a constraint (23),
 * a limit (54), or a trigger objected (P0001). One row of a batch is at fault, and the others are
 * not.
 */
export const isRejection = (error: unknown): error is Failure & { readonly code: string } =>
  error instanceof Failure && error.code !== null && /^(22...|23...|54...|P0001)$/.test(error.code);

/** The connection is of no use any more, or its server is not the right one now. */
export const isBroken = (error: unknown): boolean =>
  error instanceof Failure && error.code !== null && BROKEN.test(error.code);

/** The server cannot be reached now, or has no room: nothing is wrong with the statement. */
export const isOutage = (error: unknown): error is Failure =>
  error instanceof Failure &&
  error.code !== null &&
  (BROKEN.test(error.code) || BUSY.test(error.code) || isContention(error));

/**
 * A load would leave a token without its original: the original was not sent, and the vault does
 * not hold it.
 */
export const isLackingOriginals = (error: unknown): boolean => hasCode(error, ORIGINALS_LACKING);

/** The statement took longer than it may: a smaller one could do. */
export const isTooLong = (error: unknown): boolean =>
  hasCode(error, CANCELED) || hasCode(error, NO_ANSWER);

export const NO_ANSWER = "NO_ANSWER";
/** An answer came that belongs to another statement. */
export const MIXED_ANSWERS = "MIXED_ANSWERS";

// Connection failures of the driver and the platform, and SQLSTATE class 08. A server that is
// starting or stopping, or has closed an idle connection. A standby that was the primary a moment
// ago.
const BROKEN =
  /^(NO_ANSWER|MIXED_ANSWERS|CONNECTION_(CLOSED|ENDED|DESTROYED)|CONNECT_TIMEOUT|E(CONNREFUSED|CONNRESET|CONNABORTED|PIPE|TIMEDOUT|HOSTUNREACH|NETUNREACH|HOSTDOWN|NETDOWN|MFILE|NOTFOUND|AI_AGAIN)|ENOENT|ERR_SOCKET_CLOSED|ERR_SSL_WRONG_VERSION_NUMBER|ERR_STREAM_[A-Z_]+|FailedToOpenSocket|ConnectionRefused|08...|57P0[1-35]|25P03|25006|58000)$/;

const NEW_PARTITION = "NEW_PARTITION";

// No room on disk, in memory, or for another connection; a statement that was cancelled or timed
// out; a lock that could not be had; a disk that fails.
const BUSY = /^(NEW_PARTITION|53...|57014|55P03|55006|58030)$/;

// Their messages hold names (of a role, a database, a relation, a setting), and never the values of
// a row.
const SPEAKING = /^(VL...|28...|3D000|42501|42P01|42883|3F000|53...|57P0[1-5]|57014|55P03|25006)$/;

/** The error as a `Failure` that is safe to show. `server`: its name in messages. */
export function describe(error: unknown, server: string): unknown {
  if (error instanceof Failure) return error;
  if (!(error instanceof Error))
    return failed("the database failed without saying why", "its own log may say more");
  const code = "code" in error && typeof error.code === "string" ? error.code : null;
  if (isPostgresError(error) && code !== null) {
    const words = SPEAKING.test(code)
      ? error.message
      : "its message is withheld, it may quote data";
    const place = error.constraint_name ? ` (constraint ${error.constraint_name})` : "";
    const hint = SPEAKING.test(code) ? (error.hint ?? hintFor(code)) : hintFor(code);
    const message = code.startsWith("VL")
      ? words
      : `the database answered with error ${code}${place}: ${words}`;
    // A partition was made while this load stored something of its days in the default one.
    const isMoved = code === CHECK_VIOLATION && isOfBounds(error.table_name, error.constraint_name);
    return new Failure(1, message, hint, isMoved ? NEW_PARTITION : code);
  }
  if (code !== null && BROKEN.test(code)) return unreachable(code, server);
  if (code !== null && isTlsError(code, error)) {
    return new Failure(
      1,
      `the TLS certificate of the database at ${server} was refused (${code})`,
      "give its authority as sslrootcert=FILE in DATABASE_URL; docs/configuration.md explains sslmode",
      code,
    );
  }
  return error;
}

export const unreachable = (code: string, server: string): Failure =>
  code === NO_ANSWER
    ? new Failure(
        1,
        `the database at ${server} does not answer`,
        "is it overloaded, or cut off from this host?",
        code,
      )
    : new Failure(
        1,
        `cannot reach the database at ${server} (${code})`,
        "is it running, and do host and port of DATABASE_URL name it?",
        code,
      );

/** Of a partition's own bounds, which have no name, and not of a constraint. */
const isOfBounds = (table: string | undefined, constraint: string | undefined): boolean =>
  constraint === undefined && /^(ledger|user_logins|originals)(_|$)/.test(table ?? "");

/** The driver's class for errors that the server reports. */
const isPostgresError = (
  error: Error,
): error is Error & {
  readonly constraint_name?: string;
  readonly schema_name?: string;
  readonly table_name?: string;
  readonly hint?: string;
} => error.name === "PostgresError";

const isTlsError = (code: string, error: Error): boolean =>
  /CERT|TLS|SSL|SELF_SIGNED|ISSUER/.test(code) || /certificate/i.test(error.message);

function hintFor(code: string): string | null {
  if (code.startsWith("28") || code === NO_SUCH_DATABASE)
    return "check user, password and database name";
  if (code === INSUFFICIENT_PRIVILEGE)
    return "connect as a login that was granted the role this command needs (docs/roles.md lists them)";
  if ([NO_SUCH_TABLE, NO_SUCH_FUNCTION, NO_SUCH_SCHEMA].includes(code))
    return "run `veil migrate` as the database's owner";
  if (code === READ_ONLY) return "is this a standby? DATABASE_URL has to lead to the primary";
  if (code.startsWith("53")) return "the server has no room: disk, memory, or max_connections";
  if (code === CANCELED) return "a statement_timeout of this login or database is too short for it";
  return "the server's own log has the whole message";
}
