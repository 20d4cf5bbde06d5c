// One of several processes that share the work of `veil etl --workers`. It takes orders from its parent
// alone, tells it what it does, and ends when the parent does, however that ended: as after SIGTERM.
import { readDatabase } from "../config/database-url.ts";
import { type Environment, withLineVariables } from "../config/environment.ts";
import { readRecipients, readTokenKey } from "../config/keys.ts";
import { failed, Interrupted, misuse } from "../failure.ts";
import { DataKeys } from "../keys/data-keys.ts";
import type { Notice } from "../line/availability.ts";
import { newCounts } from "../line/counts.ts";
import { LOADS, runLine } from "../line/line.ts";
import { waitForServers } from "../line/wait-for-servers.ts";
import { openDatabase } from "../postgres/database.ts";
import { reaching } from "../postgres/schema.ts";
import { openQueue, type Queue } from "../sqs/queue.ts";
import { describeVersion } from "../version.ts";
import { describeTrouble, type Order, type Report, type Start, takeNews } from "./channel.ts";

type ParentProcess = {
  /** Null: it was told to stop before it was told to start. */
  readonly start: Promise<Start | null>;
  /** Aborts when the parent says so, or is gone. */
  readonly stop: AbortSignal;
  readonly tell: (report: Report) => void;
  /** Resolves when all that was told has left this process. */
  readonly told: () => Promise<void>;
  readonly askForMore: () => Promise<number>;
};

/** How much of --max-messages this worker was given, and has received. */
type Share = { granted: number; received: number };

export async function runWorker({ env }: { readonly env: Environment }): Promise<void> {
  const parent = openParent();
  if (parent === null) {
    throw misuse("a worker is started by its parent, not by hand", "run `veil etl --workers N`");
  }
  const start = await parent.start;
  if (start === null) return;
  const share: Share = { granted: 0, received: 0 };
  let error: unknown = null;
  try {
    await work(withLineVariables(env, start.variables), start, parent, share);
  } catch (thrown) {
    if (!(thrown instanceof Interrupted)) error = thrown;
  }
  const unused = start.isLimited ? share.granted - share.received : 0;
  const trouble = error === null ? null : describeTrouble(error);
  parent.tell({ kind: "ended", unused, trouble });
  await parent.told();
}

/** The part of the run that is this process's. */
async function work(
  env: Environment,
  start: Start,
  { stop, tell, askForMore }: ParentProcess,
  share: Share,
): Promise<void> {
  requireSameVersion(start);
  const counts = newCounts();
  const tellCounts = () => tell({ kind: "counts", counts: takeNews(counts) });
  const onNotice = (notice: Notice) => tell({ kind: "notice", notice });
  const subkeys = readTokenKey(env);
  const dataKeys = new DataKeys(subkeys, readRecipients(env));
  const embedded = start.isLocal ? await import("../local/local.ts") : null;
  const leaveLocal = embedded === null ? null : await embedded.joinLocal();
  const database = openDatabase(readDatabase(env), LOADS);
  let queue: Queue | null = null;
  try {
    const open = () => reaching(() => openQueue(start.queue), stop);
    queue = await (start.follow ? waitForServers(open, onNotice, stop) : open());
    const asked = async () => {
      const messages = await askForMore();
      share.granted += messages;
      return messages;
    };
    const line = { queue: counting(queue, share), database, subkeys, dataKeys };
    const options = {
      follow: start.follow,
      graceSeconds: start.graceSeconds,
      ...(start.isLimited ? { askForMore: asked } : {}),
      maxMessages: start.isLimited ? 0 : null,
      signal: stop,
      onProgress: tellCounts,
      onNotice,
    };
    await runLine(line, options, counts);
  } finally {
    tellCounts();
    queue?.close();
    await database.close(stop.aborted ? 0 : undefined);
    await leaveLocal?.();
  }
}

function requireSameVersion({ version }: Start): void {
  if (version === describeVersion()) return;
  throw failed(
    "veil was replaced by another version while it ran, and that one cannot join in",
    "start it again",
  );
}

/** The same queue; what it hands out is counted. */
const counting = (queue: Queue, share: Share): Queue => ({
  ...queue,
  receive: async (...wanted) => {
    const messages = await queue.receive(...wanted);
    share.received += messages.length;
    return messages;
  },
});

/** The channel to the process that started this one; null if there is none. */
function openParent(): ParentProcess | null {
  if (process.send === undefined || !process.connected) return null;
  const start = Promise.withResolvers<Start | null>();
  const stop = new AbortController();
  let answer: (messages: number) => void = () => {};
  const end = () => {
    start.resolve(null);
    stop.abort();
  };
  process.on("message", (order: Order) => {
    if (order.kind === "start") start.resolve(order);
    else if (order.kind === "share") answer(order.messages);
    else end();
  });
  process.on("disconnect", end);
  const gone = new Promise<void>((resolve) => process.once("disconnect", resolve));
  const leaving = new Set<Promise<void>>();
  const tell = (report: Report) => {
    if (!process.connected) return;
    // Sent at once, as far as the channel has room: a process that is killed has told what it has done.
    const left = new Promise<void>((resolve) => {
      process.send?.(report, undefined, undefined, () => resolve());
    });
    leaving.add(left);
    left.then(() => leaving.delete(left));
  };
  return {
    start: start.promise,
    stop: stop.signal,
    tell,
    told: async () => {
      await Promise.race([gone, Promise.all(leaving)]);
    },
    askForMore: () =>
      new Promise((resolve) => {
        answer = resolve;
        tell({ kind: "ask" });
      }),
  };
}
