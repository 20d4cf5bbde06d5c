// Parse → protect → load, of one batch: until it is stored, whatever the database makes of it.
import type { Subkeys } from "../../vault/keys.ts";
import type { DataKeys } from "../keys/data-keys.ts";
import { native } from "../keys/native.ts";
import { parseMessage } from "../login/parse.ts";
import { maxSeals, type ParsedMessage, type Protected, protect } from "../login/protect.ts";
import { retryContention } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { isLackingOriginals, isOutage, isRejection, isTooLong } from "../postgres/errors.ts";
import type { Message } from "../sqs/queue.ts";
import type { Availability } from "./availability.ts";
import type { KnownOriginals } from "./known-originals.ts";
import { type LoadResult, load } from "./load.ts";

export type Store = {
  readonly database: Database;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
  readonly known: KnownOriginals;
};

export type Stored = {
  readonly messages: readonly Message[];
  readonly batch: Protected;
  readonly result: LoadResult;
};

/** What the line wants to know while a batch is being stored. */
export type Storing = {
  /** Whether the database stores anything just now; says how long it is waited for. */
  readonly available: Availability;
  /** Called for each part of a batch that has committed. */
  readonly onStored: (stored: Stored) => void;
  /** Called when a statement that did nothing, because another one was in its way, is sent again. */
  readonly onRetry: () => void;
};

/** A load takes milliseconds: a database that needs so long is in trouble. */
const STALLED_MS = 5_000;
/** So often what takes too long is tried as a whole, before its halves are. */
const TOO_LONG_ATTEMPTS = 3;
/** A database that refuses so many rows of a batch and takes none is at fault itself, not the rows. */
const MOST_REFUSED = 10;

/**
 * Usually all of the batch commits at once; where the database refuses what is in it, the batch is halved
 * until the offender stands alone, and that one is quarantined: it must not take its neighbours with it.
 * Throws when nothing more can be stored.
 */
export async function storeBatch(
  store: Store,
  messages: readonly Message[],
  storing: Storing,
): Promise<void> {
  let rows = 0;
  let refused = 0;
  const storeHalves = async (parts: readonly Parsed[]) => {
    const middle = parts.length >> 1;
    await storeParts(parts.slice(0, middle));
    await storeParts(parts.slice(middle));
  };
  const storeParts = async (parts: readonly Parsed[]): Promise<void> => {
    try {
      const stored = await storePart(store, parts, storing);
      if (stored === null) return await storeHalves(parts);
      rows += stored.batch.rows.length;
      storing.onStored(stored);
    } catch (error) {
      if (!isRejection(error)) throw error;
      if (parts.length > 1) return await storeHalves(parts);
      const [only] = parts;
      // Not even into the quarantine, or none of them into the table.
      if (only?.parsed.kind !== "login" || (rows === 0 && refused === MOST_REFUSED)) throw error;
      refused++;
      const reason = `the database refused the row with error ${error.code}`;
      await storeParts([{ ...only, parsed: { kind: "rejected", reason } }]);
    }
  };
  await storeParts(
    messages.map((message) => {
      const { id, sentAt, body } = message;
      return { id, sentAt, body, parsed: parseMessage(body), message };
    }),
  );
}

type Parsed = ParsedMessage & { readonly message: Message };

/** Null: the database has no time for so much at once. */
async function storePart(
  store: Store,
  parts: readonly Parsed[],
  storing: Storing,
): Promise<Stored | null> {
  const { database, subkeys, known } = store;
  const { available, onRetry } = storing;
  let sealed = await sealPart(store, parts);
  for (let attempt = 1; ; attempt++) {
    const { key, batch } = sealed;
    const startedAt = performance.now();
    const stalled = setTimeout(() => {
      const message = `the database at ${database.host} has not answered for ${STALLED_MS / 1000} s`;
      available.failed(message, startedAt);
    }, STALLED_MS);
    try {
      const result = await retryContention(() => load(database, subkeys, key, batch), onRetry);
      available.worked(startedAt);
      known.addAll(batch.originals.keys());
      return { messages: parts.map(({ message }) => message), batch, result };
    } catch (error) {
      // Erased meanwhile, or the database was restored: from here on nothing is taken for stored.
      if (isLackingOriginals(error) && sealed.isPartial) {
        known.clear();
        sealed = await sealPart(store, parts);
        continue;
      }
      if (!isOutage(error)) throw error;
      await available.pause(error);
      if (isTooLong(error) && attempt >= TOO_LONG_ATTEMPTS && parts.length > 1) return null;
    } finally {
      clearTimeout(stalled);
    }
  }
}

/** What this process has seen stored is not sealed, nor sent. */
async function sealPart({ subkeys, dataKeys, known }: Store, parts: readonly Parsed[]) {
  const most = maxSeals(parts.length);
  const key = await dataKeys.take(most);
  let isPartial = false;
  const isKnown = (token: string) => {
    const is = known.has(token);
    isPartial ||= is;
    return is;
  };
  const batch = protect(parts, subkeys, key.dataKey, { isKnown, primitives: native });
  const seals = batch.originals.size + batch.rejected.length;
  dataKeys.giveBack(key, most - seals);
  return { batch, key: seals > 0 ? key : null, isPartial };
}
