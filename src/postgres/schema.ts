// Whether this database is at this program's schema, asked before anything else is.
import { SCHEMA_VERSION } from "../../sql/migrations.ts";
import { Failure, Interrupted, misuse } from "../failure.ts";
import type { Database } from "./database.ts";
import { isOutage } from "./errors.ts";

/** How long servers are waited for when a command starts. */
export type StartWaits = {
  /** Between attempts, while a server cannot be reached: a container, and the database beside it. */
  readonly startDelaysMs: readonly number[];
  /** For an answer. */
  readonly startAnswerMs: number;
};

export const START_WAITS: StartWaits = {
  startDelaysMs: [250, 500, 1000, 2000],
  startAnswerMs: 12_000,
};

/** Throws unless the database is reachable and at exactly this version. */
export async function requireSchema(
  database: Database,
  signal?: AbortSignal,
  waits: StartWaits = START_WAITS,
): Promise<void> {
  const version = await readVersion(database, signal, waits);
  if (version === SCHEMA_VERSION) return;
  if (version > SCHEMA_VERSION) {
    throw misuse(
      `the database is at schema version ${version}, this program at ${SCHEMA_VERSION}`,
      "a newer veil has migrated it: use that version here too",
    );
  }
  throw misuse(
    version === 0
      ? "the database is not migrated"
      : `the database is at schema version ${version}, this program needs ${SCHEMA_VERSION}`,
    "run `veil migrate` with a DATABASE_URL of its owner",
  );
}

async function readVersion(
  database: Database,
  signal: AbortSignal | undefined,
  waits: StartWaits,
): Promise<number> {
  try {
    const [row] = await reaching(
      () => database.query("select etl.schema_version() as version", [], waits.startAnswerMs),
      signal,
      waits,
    );
    return Number(row?.version);
  } catch (error) {
    // No schema or function: never migrated. Missing rights on the schema is another matter.
    if (error instanceof Failure && /^(3F000|42883)$/.test(error.code ?? "")) return 0;
    throw error;
  }
}

/** Tries again, a few times, while the server cannot be reached. Throws at once when interrupted. */
export async function reaching<T>(
  work: () => Promise<T>,
  signal?: AbortSignal,
  { startDelaysMs }: Pick<StartWaits, "startDelaysMs"> = START_WAITS,
): Promise<T> {
  if (signal === undefined) return await repeatedly(work, startDelaysMs);
  const interrupted = Promise.withResolvers<never>();
  const stop = () => interrupted.reject(new Interrupted());
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([repeatedly(work, startDelaysMs), interrupted.promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

async function repeatedly<T>(work: () => Promise<T>, delays: readonly number[]): Promise<T> {
  for (const delay of delays) {
    try {
      return await work();
    } catch (error) {
      if (!isOutage(error)) throw error;
      await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }
  return await work();
}
