// Keeps what is held hidden from other consumers while work is slow or the database is away, and hands
// back what will not be stored. A receipt that expires all the same costs a delivery and nothing else:
// the message comes again, and the ledger knows it.
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../failure.ts";
import type { Message, Queue } from "../sqs/queue.ts";
import type { Notice } from "./availability.ts";
import type { Held, Receipt } from "./in-hand.ts";

/**
 * Each time a message is hidden for twice as long, up to ten minutes: an outage of hours costs few calls,
 * and a process that is killed meanwhile leaves its messages hidden no longer than that.
 */
const LONGEST_SECONDS = 600;
/** SQS hides a message for twelve hours in all, counted from its receipt. */
const LONGEST_HELD_MS = 11.5 * 60 * 60 * 1000;
/** Calls at a time, of ten messages each. */
const CALLS = 16;

/** Runs until `signal` aborts; never throws. Looks for receipts that are half over each `longestLookMs`, or sooner. */
export async function keepHidden(
  queue: Queue,
  held: Held,
  tell: (notice: Notice) => void,
  signal: AbortSignal,
  longestLookMs: number,
): Promise<void> {
  const lookMs = Math.min(longestLookMs, (queue.visibilitySeconds * 1000) / 8);
  while (!signal.aborted) {
    await sleep(lookMs, undefined, { signal }).catch(() => {});
    const refused = await hideAgain(queue, held, signal);
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

/** Returns why this will never succeed, or null. */
async function hideAgain(queue: Queue, held: Held, signal: AbortSignal): Promise<Failure | null> {
  const bySeconds = new Map<number, Message[]>();
  const now = performance.now();
  for (const [message, receipt] of held.receipts) {
    if (!isHalfOver(receipt, now)) continue;
    const seconds = nextSeconds(receipt, now);
    if (seconds <= 0) continue;
    const due = bySeconds.get(seconds) ?? [];
    if (due.length === 0) bySeconds.set(seconds, due);
    due.push(message);
  }
  for (const [seconds, due] of bySeconds) {
    for (const some of inCalls(due)) {
      if (signal.aborted) return null;
      const askedAt = performance.now();
      const { done, refused, failure } = await queue.hide(some, seconds, signal);
      for (const message of done) {
        const receipt = held.receipts.get(message);
        if (receipt === undefined) continue;
        receipt.hiddenUntil = askedAt + seconds * 1000;
        receipt.hiddenSeconds = seconds;
      }
      // Visible again, or received by somebody else: no longer ours to hide.
      for (const message of refused) {
        const receipt = held.receipts.get(message);
        if (receipt !== undefined) receipt.hiddenUntil = Number.POSITIVE_INFINITY;
      }
      // What may pass is tried again at the next look.
      if (failure instanceof Failure && failure.code === null) return failure;
    }
  }
  return null;
}

const isHalfOver = ({ hiddenUntil, hiddenSeconds }: Receipt, now: number): boolean =>
  now > hiddenUntil - (hiddenSeconds * 1000) / 2;

function nextSeconds({ hiddenSeconds, receivedAt }: Receipt, now: number): number {
  const wanted = Math.max(hiddenSeconds, Math.min(hiddenSeconds * 2, LONGEST_SECONDS));
  return Math.floor(Math.min(wanted, (receivedAt + LONGEST_HELD_MS - now) / 1000));
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
  for (let i = 0; i < messages.length; i += CALLS * 10) yield messages.slice(i, i + CALLS * 10);
}
