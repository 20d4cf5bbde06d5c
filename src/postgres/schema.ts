// Whether this database is at this program's schema, asked before anything else is.
import { SCHEMA_VERSION, schemaHash, TEXTS } from "../../sql/texts.ts";
import { hasCode, Interrupted, misuse } from "../failure.ts";
import type { Database } from "./database.ts";
import { isOutage } from "./errors.ts";
import { NO_SUCH_FUNCTION, NO_SUCH_SCHEMA } from "./sqlstates.ts";

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

export const NEWER_HINT = "a newer veil has migrated it: use that version here too";
export const otherStep = (step: number, wanted: number): string =>
  `the database is at schema version ${step}, this program at ${wanted}`;
export const olderForm = (version?: number): string =>
  `the database was made by an older veil${version === undefined ? "" : ` (its schema version ${version})`}, ` +
  "in a form that this one does not bring over";
export const OLDER_FORM_HINT =
  "let `veil migrate` make this schema in a new, empty database; the old one opens with the veil that made it";

/** Throws unless the database is reachable, at exactly this step, and has exactly this program's functions. */
export async function requireSchema(
  database: Database,
  signal?: AbortSignal,
  waits: StartWaits = START_WAITS,
): Promise<void> {
  const found = await reaching(() => readSchema(database, waits), signal, waits);
  if (found.isOlderForm) throw misuse(olderForm(found.step), OLDER_FORM_HINT);
  if (found.step > SCHEMA_VERSION) throw misuse(otherStep(found.step, SCHEMA_VERSION), NEWER_HINT);
  const migrating = "run `veil migrate` with a DATABASE_URL of its owner";
  if (found.step === 0) throw misuse("the database is not migrated", migrating);
  if (found.step < SCHEMA_VERSION) {
    throw misuse(
      `the database is at schema version ${found.step}, this program needs ${SCHEMA_VERSION}`,
      migrating,
    );
  }
  if (found.hash === schemaHash(TEXTS)) return;
  throw misuse(
    `the database is at schema version ${found.step}, but with the functions of another veil`,
    `${migrating}; or, if another version was meant to migrate it, use that one here too`,
  );
}

type FoundSchema = {
  readonly step: number;
  readonly hash: string | null;
  readonly isOlderForm: boolean;
};

async function readSchema(database: Database, waits: StartWaits): Promise<FoundSchema> {
  const ask = async (text: string) => {
    try {
      return (await database.query(text, [], waits.startAnswerMs))[0];
    } catch (error) {
      // No schema or function: never migrated, or by an older veil. Missing rights on the schema is another matter.
      if (hasCode(error, NO_SUCH_SCHEMA) || hasCode(error, NO_SUCH_FUNCTION)) return undefined;
      throw error;
    }
  };
  const row = await ask("select etl.schema_version() as version, etl.schema_hash() as hash");
  if (row !== undefined) {
    return { step: Number(row.version), hash: String(row.hash), isOlderForm: false };
  }
  const older = await ask("select etl.schema_version() as version");
  return { step: Number(older?.version ?? 0), hash: null, isOlderForm: older !== undefined };
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
