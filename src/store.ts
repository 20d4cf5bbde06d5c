// Parse → protect → load, of one batch: until it is stored, whatever the database makes of it.
import { setTimeout as sleep } from "node:timers/promises";
import type { Subkeys } from "../vault/keys.ts";
import type { DataKeys } from "./data-keys.ts";
import { type Database, isOutage, isRejection } from "./database.ts";
import { type LoadResult, load } from "./load.ts";
import { parseMessage } from "./message.ts";
import { maxSeals, type ParsedMessage, type Protected, protect } from "./protect.ts";
import type { Message } from "./queue.ts";

export type Store = {
  readonly database: Database;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
};

export type Stored = {
  readonly messages: readonly Message[];
  readonly batch: Protected;
  readonly result: LoadResult;
};

/** How long a database that cannot be reached is waited for. */
export type Patience = { readonly milliseconds: number; readonly signal: AbortSignal };

/** A database that refuses so many rows of a batch and takes none is at fault itself, not the rows. */
const MOST_REFUSED = 10;

/**
 * Calls `onStored` for each part of the batch that has committed. Usually that is all of it; where the
 * database refuses what is in it, the batch is halved until the offender stands alone, and that one is
 * quarantined: it must not take its neighbours with it. Throws when nothing more can be stored.
 */
export async function storeBatch(
  store: Store,
  messages: readonly Message[],
  patience: Patience,
  onStored: (stored: Stored) => void,
): Promise<void> {
  const parsed = messages.map((message) => ({ ...message, parsed: parseMessage(message.body) }));
  let rows = 0;
  let refused = 0;
  const storeParts = async (parts: readonly Parsed[]): Promise<void> => {
    try {
      const stored = await storePart(store, parts, patience);
      rows += stored.batch.rows.length;
      onStored(stored);
    } catch (error) {
      if (!isRejection(error)) throw error;
      const [only] = parts;
      if (parts.length > 1) {
        const middle = parts.length >> 1;
        await storeParts(parts.slice(0, middle));
        await storeParts(parts.slice(middle));
        return;
      }
      // Not even into the quarantine, or none of them into the table.
      if (only?.parsed.kind !== "login" || (rows === 0 && refused === MOST_REFUSED)) throw error;
      refused++;
      const reason = `the database refused the row with error ${error.code}`;
      await storeParts([{ ...only, parsed: { kind: "rejected", reason } }]);
    }
  };
  await storeParts(parsed);
}

type Parsed = Message & ParsedMessage;

async function storePart(
  { database, subkeys, dataKeys }: Store,
  messages: readonly Parsed[],
  patience: Patience,
): Promise<Stored> {
  const key = await dataKeys.take(maxSeals(messages.length));
  const batch = protect(messages, subkeys, key.dataKey);
  const giveUpAt = Date.now() + patience.milliseconds;
  for (let attempt = 0; ; attempt++) {
    try {
      return { messages, batch, result: await load(database, subkeys, key, batch) };
    } catch (error) {
      if (!isOutage(error) || patience.signal.aborted || Date.now() > giveUpAt) throw error;
      await sleep(Math.min(100 * 2 ** attempt, 5000) * (0.5 + Math.random() / 2));
    }
  }
}
