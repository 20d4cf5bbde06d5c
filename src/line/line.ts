// The line: receive → parse → protect → load → acknowledge.
//
// What keeps promise 1: a message is acknowledged only after the load that stored it has committed and
// has answered for this very batch. Everything before that may fail or be killed at any instruction:
// the message is still in the queue, and comes back.
import type { Subkeys } from "../../vault/keys.ts";
import type { DataKeys } from "../keys/data-keys.ts";
import { parseMessage } from "../login/parse.ts";
import type { Database } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";
import type { Message, Queue } from "../sqs/queue.ts";
import { acknowledge } from "./acknowledge.ts";
import { Availability, type Notice } from "./availability.ts";
import { type Counts, count } from "./counts.ts";
import { InHand } from "./in-hand.ts";
import { KnownOriginals } from "./known-originals.ts";
import type { Part, Store, StoredPart } from "./protect-and-load.ts";
import { Receivers } from "./receive.ts";
import { type Refusals, storeInParts } from "./split.ts";
import { Stop } from "./stop.ts";
import { handBack, keepHidden } from "./visibility.ts";
import { LINE_WAITS, type LineWaits } from "./waits.ts";

/** What the line runs between. */
export type Line = {
  readonly queue: Queue;
  readonly database: Database;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
};

export type LineOptions = {
  /** Keep running when the queue is empty. */
  readonly follow: boolean;
  /** Receive so many and stop; never more. Null for all. */
  readonly maxMessages: number | null;
  /** Where that comes in shares: answers with the next one, or 0 when there is none. */
  readonly askForMore?: () => Promise<number>;
  /** Stops receiving; what has been received is finished, within `graceSeconds`. */
  readonly signal: AbortSignal;
  readonly graceSeconds: number;
  /** Other than the usual ones. */
  readonly waits?: LineWaits;
  readonly onProgress: () => void;
  readonly onNotice: (notice: Notice) => void;
};

/** Loads at a time: while one batch is on its way to the disk, the next ones are protected and sent. */
export const LOADS = 3;

/** Runs until the queue is drained, `signal` aborts, or a failure is thrown; `counts` is kept current. */
export async function runLine(line: Line, options: LineOptions, counts: Counts): Promise<void> {
  const run = beginRun(line, options, counts);
  const { stop } = run;
  await Promise.race([work(run), stop.overdue]);
  stop.endWork();
  await run.hiding;
  await handBackUnstored(run);
  stop.close();
  if (stop.failure !== null) throw stop.failure.error;
}

/** One run of the line. */
type Run = {
  readonly line: Line;
  readonly options: LineOptions;
  readonly waits: LineWaits;
  readonly counts: Counts;
  readonly stop: Stop;
  readonly inHand: InHand;
  readonly store: Store;
  readonly refusals: Refusals;
  /** Whether the queue can be received from, and whether it deletes what is stored. */
  readonly queueReceives: Availability;
  readonly queueDeletes: Availability;
  readonly acknowledging: Set<Promise<void>>;
  /** Resolves when nothing is kept hidden any more. */
  readonly hiding: Promise<void>;
  readonly endHiding: () => void;
  /** By id, because a poll of ours may get them once more. */
  readonly handedBack: Set<string>;
};

function beginRun(line: Line, options: LineOptions, counts: Counts): Run {
  const { queue, database, subkeys, dataKeys } = line;
  const { maxMessages, askForMore = null, onNotice, waits = LINE_WAITS } = options;
  const inHand = new InHand(maxMessages, queue.visibilitySeconds, askForMore);
  const stop = new Stop(options.signal, options.graceSeconds, waits);
  const milliseconds = options.follow ? Number.POSITIVE_INFINITY : waits.outageMs;
  // Once a stop is asked for, a database that is away is not waited for: what it has not stored by then
  // is handed back. What it has stored should be deleted, so that is tried for as long as there is time.
  const patience = (signal: AbortSignal) => ({ milliseconds, signal });
  const queueReceives = new Availability("the queue answers", patience(stop.asked), onNotice);
  const databaseStores = new Availability("the database stores", patience(stop.asked), onNotice);
  const queueDeletes = new Availability("the queue deletes", patience(stop.workEnds), onNotice);
  const knownOriginals = new KnownOriginals();
  const hidingEnds = new AbortController();
  const signal = AbortSignal.any([stop.workEnds, hidingEnds.signal]);
  return {
    line,
    options,
    waits,
    counts,
    stop,
    inHand,
    store: {
      database,
      subkeys,
      dataKeys,
      knownOriginals,
      available: databaseStores,
      waits,
      counts,
    },
    refusals: { sinceTaken: 0 },
    queueReceives,
    queueDeletes,
    acknowledging: new Set(),
    hiding: keepHidden(queue, inHand, onNotice, signal, waits.lookMs),
    endHiding: () => hidingEnds.abort(),
    handedBack: new Set(),
  };
}

/** Everything from the first poll to the last acknowledgement. */
async function work(run: Run): Promise<void> {
  const { inHand, line, options, acknowledging } = run;
  const polling = receive(run);
  // A FIFO queue's messages become rows in their order: one batch after the other.
  const lanes = line.queue.isFifo ? 1 : LOADS;
  await Promise.all(Array.from({ length: lanes }, () => storeBatches(run)));
  inHand.abandon();
  // Long polls are under way still: one that had been cut off could take with it what is handed back.
  if (options.follow) await handBackUnstored(run);
  await Promise.all([polling, ...acknowledging]);
}

/** Until the queue is drained, or a stop. */
async function receive(run: Run): Promise<void> {
  const { line, options, waits, stop, inHand, queueReceives, store, queueDeletes } = run;
  stop.asked.addEventListener("abort", () => inHand.end(), { once: true });
  const receivers = new Receivers({
    queue: line.queue,
    inHand,
    follow: options.follow,
    available: queueReceives,
    needs: [store.available, queueDeletes],
    waits,
    stop,
  });
  await receivers.run();
  inHand.end();
}

/** Batch after batch: parse → protect → load → acknowledge. */
async function storeBatches(run: Run): Promise<void> {
  const { inHand, store, refusals, stop, options } = run;
  try {
    for (let batch = await inHand.nextBatch(); batch !== null; batch = await inHand.nextBatch()) {
      for await (const stored of storeInParts(store, refusals, parse(batch))) {
        noteStored(run, stored);
        acknowledgeLater(run, stored.messages);
      }
    }
  } catch (error) {
    if (!(options.signal.aborted && isOutage(error))) stop.fail(error);
    inHand.abandon();
  }
}

export const parse = (batch: readonly Message[]): Part =>
  batch.map((message) => {
    const { id, sentAt, body } = message;
    return { id, sentAt, body, parsed: parseMessage(body), message };
  });

function noteStored({ counts, inHand, options }: Run, { messages, batch, result }: StoredPart) {
  count(counts, batch, result);
  inHand.markStored(messages);
  // Before it is deleted: what a parent is told of now is counted, whatever becomes of this process.
  options.onProgress();
}

/** Not waited for: the next batch is stored meanwhile. */
function acknowledgeLater(run: Run, messages: readonly Message[]): void {
  const { line, queueDeletes, stop, inHand, counts, options, acknowledging } = run;
  const acknowledgeAll = async () => {
    const { confirmed, failure } = await acknowledge(
      line.queue,
      queueDeletes,
      messages,
      stop.workEnds,
    );
    inHand.release(messages);
    counts.acknowledged += confirmed;
    options.onProgress();
    // What is in hand is stored all the same: a queue that was deleted does not deliver it again.
    if (failure !== null) stop.fail(failure);
  };
  const acknowledged = acknowledgeAll().finally(() => acknowledging.delete(acknowledged));
  acknowledging.add(acknowledged);
}

/** What will not be stored is visible to others at once. */
async function handBackUnstored(run: Run): Promise<void> {
  const { line, inHand, stop, counts, handedBack } = run;
  const messages = inHand.unstored();
  if (messages.length === 0) return;
  run.endHiding(); // or they would be hidden again
  await run.hiding;
  const confirmed = await handBack(line.queue, messages, stop.handBackEnds);
  for (const { id } of confirmed) handedBack.add(id);
  counts.handedBack = handedBack.size;
  inHand.release(messages);
}
