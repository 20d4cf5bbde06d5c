// The line: receive → parse → protect → load → acknowledge.
//
// What keeps promise 1: a message is acknowledged only after the load that stored it has committed and
// has answered for this very batch. Everything before that may fail or be killed at any instruction:
// the message is still in the queue, and comes back.
import { setTimeout as sleep } from "node:timers/promises";
import type { Subkeys } from "../vault/keys.ts";
import type { DataKeys } from "./data-keys.ts";
import { type Database, isOutage } from "./database.ts";
import { Held } from "./held.ts";
import { type LoadResult, load } from "./load.ts";
import { parseMessage } from "./message.ts";
import { maxSeals, type Protected, protect } from "./protect.ts";
import { MESSAGES_PER_CALL, type Message, type Queue } from "./queue.ts";

export type Line = {
  readonly queue: Queue;
  readonly database: Database;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
};

export type EtlOptions = {
  /** Keep running when the queue is empty. */
  readonly follow: boolean;
  /** Receive exactly so many at most; null for all. */
  readonly maxMessages: number | null;
  /** Stops receiving; what has been received is finished. */
  readonly signal: AbortSignal;
  readonly onProgress: (counts: Counts) => void;
};

/** Deliveries whose load committed: received = loaded + duplicates + quarantined, always. */
export type Counts = {
  received: number;
  loaded: number;
  duplicates: number;
  quarantined: number;
  acknowledged: number;
  newOriginals: number;
  /** Why messages were quarantined, and how many for each reason. */
  readonly reasons: Map<string, number>;
  /** A token of this run, for a person to try `reveal` with. */
  exampleToken: string | null;
};

export const newCounts = (): Counts => ({
  received: 0,
  loaded: 0,
  duplicates: 0,
  quarantined: 0,
  acknowledged: 0,
  newOriginals: 0,
  reasons: new Map(),
  exampleToken: null,
});

const RECEIVERS = 4;
/** One empty answer proves nothing, SQS asks a sample of its servers: a drain wants two of each. */
const EMPTY_POLLS = 2;
const DRAIN_POLL_SECONDS = 1;
const FOLLOW_POLL_SECONDS = 20;
/** A drain gives up on a database that stays away for longer. */
const OUTAGE_MS = 60_000;

/** Runs until the queue is drained, `signal` aborts, or a failure is thrown; `counts` is kept current. */
export async function etl(line: Line, options: EtlOptions, counts: Counts): Promise<void> {
  const held = new Held(options.maxMessages);
  const broken = new AbortController();
  const stop = AbortSignal.any([options.signal, broken.signal]);
  const acknowledging = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | null = null;
  const fail = (error: unknown) => {
    failure ??= { error };
    broken.abort();
  };

  const receivingEnded = receiveAll(line.queue, held, options, stop, fail).then(() => held.end());
  try {
    for (let messages = await held.next(); messages !== null; messages = await held.next()) {
      const stored = await storeBatch(line, messages, options, broken.signal);
      count(counts, stored);
      const acknowledged = line.queue.acknowledge(messages).then((outcome) => {
        held.release(messages);
        counts.acknowledged += outcome.confirmed;
        options.onProgress(counts);
        if (outcome.failure !== null) fail(outcome.failure);
      });
      acknowledging.add(acknowledged);
      acknowledged.finally(() => acknowledging.delete(acknowledged));
      if (failure !== null) break;
    }
  } catch (error) {
    fail(error);
  }
  held.abandon();
  await Promise.all([receivingEnded, ...acknowledging]);
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
}

async function receiveAll(
  queue: Queue,
  held: Held,
  options: EtlOptions,
  stop: AbortSignal,
  fail: (error: unknown) => void,
): Promise<void> {
  const waitSeconds = options.follow ? FOLLOW_POLL_SECONDS : DRAIN_POLL_SECONDS;
  // A poll that is cut off may have taken messages with it, which would come back only when their
  // visibility ends. So a stop lets short polls finish, and cuts long ones after a moment.
  const cut = new AbortController();
  stop.addEventListener(
    "abort",
    () => setTimeout(() => cut.abort(), (DRAIN_POLL_SECONDS + 0.5) * 1000).unref(),
    { once: true },
  );
  const emptyPolls = new Array<number>(RECEIVERS).fill(0);
  const drained = () => !options.follow && emptyPolls.every((polls) => polls >= EMPTY_POLLS);
  let pollEnded = Promise.withResolvers<void>();
  const endPoll = (index: number, polls: number) => {
    emptyPolls[index] = polls;
    pollEnded.resolve();
    pollEnded = Promise.withResolvers<void>();
  };
  const receiver = async (index: number) => {
    while (!stop.aborted && !drained()) {
      const room = await held.reserve(MESSAGES_PER_CALL, stop);
      if (room === 0) break;
      let messages: readonly Message[] = [];
      try {
        messages = await queue.receive(room, waitSeconds, cut.signal);
      } catch (error) {
        if (!cut.signal.aborted) throw error;
      } finally {
        held.fill(messages, room);
      }
      endPoll(index, messages.length === 0 ? emptyPolls[index]! + 1 : 0);
      // Found it empty often enough: it polls on only if another one finds something.
      while (!options.follow && emptyPolls[index]! >= EMPTY_POLLS && !drained()) {
        if (stop.aborted || emptyPolls.includes(0)) break;
        await pollEnded.promise;
      }
    }
  };
  const retire = (index: number) => endPoll(index, Number.POSITIVE_INFINITY); // nobody waits for its polls
  // All of them end, also after one has failed: what the others are being handed is still taken in.
  await Promise.all(
    emptyPolls.map((_, index) =>
      receiver(index)
        .catch(fail)
        .finally(() => retire(index)),
    ),
  );
}

type Stored = { readonly batch: Protected; readonly result: LoadResult };

/** Parse, protect, load. A database that cannot be reached is waited for, within bounds. */
async function storeBatch(
  line: Line,
  messages: readonly Message[],
  options: EtlOptions,
  broken: AbortSignal,
): Promise<Stored> {
  const key = await line.dataKeys.take(maxSeals(messages.length));
  const parsed = messages.map((message) => ({ ...message, parsed: parseMessage(message.body) }));
  const batch = protect(parsed, line.subkeys, key.dataKey);
  const giveUpAt = options.follow ? Number.POSITIVE_INFINITY : Date.now() + OUTAGE_MS;
  for (let attempt = 0; ; attempt++) {
    try {
      return { batch, result: await load(line.database, line.subkeys, key, batch) };
    } catch (error) {
      const stopping = options.signal.aborted || broken.aborted;
      if (!isOutage(error) || stopping || Date.now() > giveUpAt) throw error;
      await sleep(Math.min(100 * 2 ** attempt, 5000) * (0.5 + Math.random() / 2));
    }
  }
}

function count(counts: Counts, { batch, result }: Stored): void {
  counts.received += batch.rows.length + batch.rejected.length;
  counts.loaded += result.loaded;
  counts.duplicates += result.duplicates;
  counts.quarantined += result.quarantined;
  counts.newOriginals += result.newOriginals;
  for (const { reason } of batch.rejected) {
    counts.reasons.set(reason, (counts.reasons.get(reason) ?? 0) + 1);
  }
  counts.exampleToken ??= batch.rows.find((row) => row.maskedIp !== null)?.maskedIp ?? null;
}
