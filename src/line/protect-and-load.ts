// Protect → load, for a part of a batch: until the database has stored it or has refused it.
import type { Subkeys } from "../../vault/keys.ts";
import type { Failure } from "../failure.ts";
import type { DataKeys, SealingKey } from "../keys/data-keys.ts";
import { native } from "../keys/native.ts";
import { maxSeals, type ParsedMessage, type Protected, protect } from "../login/protect.ts";
import { retryContention } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { isLackingOriginals, isOutage, isRejection, isTooLong } from "../postgres/errors.ts";
import type { Message } from "../sqs/queue.ts";
import type { Availability } from "./availability.ts";
import type { Counts } from "./counts.ts";
import { dayOf, type KnownOriginals } from "./known-originals.ts";
import { type LoadResult, load } from "./load.ts";
import { refuseUntimely } from "./timely.ts";
import type { LineWaits } from "./waits.ts";

/** What storing needs, the same for all batches of a run. */
export type Store = {
  readonly database: Database;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
  readonly knownOriginals: KnownOriginals;
  /** Whether the database stores anything just now; says how long it is waited for. */
  readonly available: Availability;
  readonly waits: Pick<LineWaits, "stalledMs" | "loadMs">;
  readonly counts: Pick<Counts, "retries">;
};

/** Messages of a batch, parsed. */
export type Part = readonly (ParsedMessage & { readonly message: Message })[];

/** A part that has committed. */
export type StoredPart = {
  readonly kind: "stored";
  readonly messages: readonly Message[];
  readonly batch: Protected;
  readonly result: LoadResult;
};

/** The database takes none of a part as it is; `failure` says why. Half of it may do. */
type RefusedPart = { readonly kind: "refused"; readonly failure: Failure };

/** What takes too long is tried so often as a whole, before its halves are. */
const TOO_LONG_ATTEMPTS = 3;

/** Waits for a database that is away. Throws when nothing more can be stored. */
export async function protectAndLoad(store: Store, part: Part): Promise<StoredPart | RefusedPart> {
  const { available, knownOriginals } = store;
  let timely: Part | null = null;
  let sealed: SealedPart | null = null;
  let tooLong = 0;
  for (;;) {
    try {
      timely ??= await refuseUntimely(part, { ...store, loadMs: store.waits.loadMs });
      sealed ??= await protectPart(store, timely);
      const result = await loadPart(store, sealed);
      const { batch } = sealed;
      knownOriginals.note(result.periods);
      knownOriginals.addAll(batch.rows, batch.originals);
      return { kind: "stored", messages: part.map(({ message }) => message), batch, result };
    } catch (error) {
      // Erased meanwhile, or the database was restored: from here on nothing is taken for stored.
      if (isLackingOriginals(error) && sealed?.leavesOut) {
        knownOriginals.clear();
        sealed = null;
        continue;
      }
      if (isRejection(error)) return { kind: "refused", failure: error };
      if (!isOutage(error)) throw error;
      await available.pause(error);
      if (isTooLong(error)) tooLong++;
      if (tooLong >= TOO_LONG_ATTEMPTS && part.length > 1)
        return { kind: "refused", failure: error };
    }
  }
}

type SealedPart = {
  readonly batch: Protected;
  /** Null where nothing had to be sealed. */
  readonly key: SealingKey | null;
  /** Whether originals that this process has seen stored are not among it. */
  readonly leavesOut: boolean;
};

/** Originals that this process has seen stored are neither sealed nor sent again. */
async function protectPart(
  { subkeys, dataKeys, knownOriginals }: Store,
  part: Part,
): Promise<SealedPart> {
  const most = maxSeals(part.length);
  const key = await dataKeys.take(most);
  let leavesOut = false;
  const isKnown = (token: string, sentAt: Date) => {
    const isThere = knownOriginals.has(token, dayOf(sentAt));
    leavesOut ||= isThere;
    return isThere;
  };
  const batch = protect(part, subkeys, key.dataKey, { isKnown, primitives: native });
  const seals = batch.originals.size + batch.rejected.length;
  dataKeys.giveBack(key, most - seals);
  return { batch, key: seals > 0 ? key : null, leavesOut };
}

/** Loads it, and tells of a database that takes long to answer. */
async function loadPart(store: Store, { key, batch }: SealedPart): Promise<LoadResult> {
  const { database, subkeys, available, waits, counts } = store;
  const startedAt = performance.now();
  const stalled = setTimeout(() => {
    const seconds = waits.stalledMs / 1000;
    available.failed(
      `the database at ${database.host} has not answered for ${seconds} s`,
      startedAt,
    );
  }, waits.stalledMs);
  try {
    const result = await retryContention(
      () => load(database, subkeys, key, batch, waits.loadMs),
      () => {
        counts.retries++;
      },
    );
    available.worked(startedAt);
    return result;
  } finally {
    clearTimeout(stalled);
  }
}
