// Extends the visibility time-out of what is in hand while work is slow or the database is away: SQS keeps it
// hidden from other consumers. Hands back what will not be stored. A message that becomes visible all the
// same costs a delivery and nothing else: it comes again, and the ledger knows it.
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../failure.ts";
import { isQueueOutage } from "../sqs/errors.ts";
import { MESSAGES_PER_CALL, type Message, type Queue } from "../sqs/queue.ts";
import type { Notice } from "./availability.ts";
import type { Delivery, InHand } from "./in-hand.ts";

/** A process that is killed leaves its messages hidden for so long at most. */
const LONGEST_SECONDS = 600;
/** SQS hides a message for twelve hours in all, counted from its receipt. */
const LONGEST_HIDDEN_MS = 11.5 * 60 * 60 * 1000;
/** As many messages as are hidden at a time. */
const MESSAGES_AT_A_TIME = 16 * MESSAGES_PER_CALL;

/**
 * Runs until `signal` aborts; never throws. Each `longestLookMs`, or more often, it looks for messages half of
 * whose time is over, and extends it.
 */
export async function keepHidden(
  queue: Queue,
  inHand: InHand,
  tell: (notice: Notice) => void,
  signal: AbortSignal,
  longestLookMs: number,
): Promise<void> {
  const lookMs = Math.min(longestLookMs, (queue.visibilitySeconds * 1000) / 8);
  while (!signal.aborted) {
    await sleep(lookMs, undefined, { signal }).catch(() => {});
    const refused = await extendVisibility(queue, inHand, signal);
    if (refused !== null) {
      const message = `${refused.message}: while the database is away, messages are received again and again`;
      tell({
        event: "warning",
        message: `${message} (the policy needs sqs:ChangeMessageVisibility)`,
      });
      return;
    }
  }
}

/** Hides again, for longer, what is half over. Returns why this will never succeed, or null. */
async function extendVisibility(
  queue: Queue,
  inHand: InHand,
  signal: AbortSignal,
): Promise<Failure | null> {
  for (const [seconds, due] of halfOver(inHand)) {
    for (const some of inCalls(due)) {
      if (signal.aborted) return null;
      const askedAt = performance.now();
      const { done, refused, failure } = await queue.hide(some, seconds, signal);
      for (const delivery of stillInHand(inHand, done)) {
        delivery.hiddenUntil = askedAt + seconds * 1000;
        delivery.hiddenSeconds = seconds;
      }
      // Visible again, or received by somebody else: no longer ours to hide.
      for (const delivery of stillInHand(inHand, refused)) {
        delivery.hiddenUntil = Number.POSITIVE_INFINITY;
      }
      // What may pass is tried again at the next look.
      if (!isQueueOutage(failure) && failure instanceof Failure) return failure;
    }
  }
  return null;
}

/** What has to be hidden again now, by the seconds that it is to be hidden for. */
function halfOver(inHand: InHand): ReadonlyMap<number, readonly Message[]> {
  const bySeconds = new Map<number, Message[]>();
  const now = performance.now();
  for (const [message, delivery] of inHand.deliveries) {
    if (!isHalfOver(delivery, now)) continue;
    const seconds = nextSeconds(delivery, now);
    if (seconds <= 0) continue;
    const due = bySeconds.get(seconds) ?? [];
    if (due.length === 0) bySeconds.set(seconds, due);
    due.push(message);
  }
  return bySeconds;
}

const stillInHand = (inHand: InHand, messages: readonly Message[]): readonly Delivery[] =>
  messages.flatMap((message) => inHand.deliveries.get(message) ?? []);

const isHalfOver = ({ hiddenUntil, hiddenSeconds }: Delivery, now: number): boolean =>
  now > hiddenUntil - (hiddenSeconds * 1000) / 2;

/** Each time a message is hidden for twice as long, so that an outage of hours costs few calls. */
function nextSeconds({ hiddenSeconds, receivedAt }: Delivery, now: number): number {
  const wanted = Math.max(hiddenSeconds, Math.min(hiddenSeconds * 2, LONGEST_SECONDS));
  return Math.floor(Math.min(wanted, (receivedAt + LONGEST_HIDDEN_MS - now) / 1000));
}

/** Makes them visible at once. Returns those that SQS confirmed; the others come back by themselves. */
export async function handBack(
  queue: Queue,
  messages: readonly Message[],
  signal: AbortSignal,
): Promise<readonly Message[]> {
  const handedBack: Message[] = [];
  for (const some of inCalls(messages)) {
    if (signal.aborted) break;
    handedBack.push(...(await queue.hide(some, 0, signal)).done);
  }
  return handedBack;
}

function* inCalls(messages: readonly Message[]): Generator<readonly Message[]> {
  for (let i = 0; i < messages.length; i += MESSAGES_AT_A_TIME) {
    yield messages.slice(i, i + MESSAGES_AT_A_TIME);
  }
}
