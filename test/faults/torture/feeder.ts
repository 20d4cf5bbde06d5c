// Sends the messages of a run to the queue, straight and not through a proxy, as fast as there is room.
import { setTimeout as sleep } from "node:timers/promises";
import type { Generated } from "./messages.ts";

export type FeederOptions = {
  readonly queue: { readonly address: string; readonly url: string };
  readonly message: (n: number) => Generated;
  readonly count: number;
  /** How many more may be sent by now. Asked again and again. */
  readonly room: (sent: number) => number;
  readonly onSent: (n: number, id: string) => void;
};

export type Feeder = {
  readonly sent: () => number;
  /** When all have been sent, or it was stopped. Rejects where the queue does not take them. */
  readonly done: Promise<void>;
  readonly stop: () => void;
};

const MESSAGES_PER_CALL = 10;
const CALLS_AT_ONCE = 4;

export function startFeeder(options: FeederOptions): Feeder {
  let next = 0;
  let sent = 0;
  let stopped = false;
  const sender = async () => {
    while (!stopped && next < options.count) {
      const room = Math.min(Math.floor(options.room(sent)) - (next - sent), options.count - next);
      if (room <= 0) {
        await sleep(5);
        continue;
      }
      const numbers = Array.from({ length: Math.min(room, MESSAGES_PER_CALL) }, () => next++);
      const ids = await send(options, numbers);
      for (const [i, n] of numbers.entries()) options.onSent(n, ids[i]!);
      sent += numbers.length;
    }
  };
  return {
    sent: () => sent,
    done: Promise.all(Array.from({ length: CALLS_AT_ONCE }, sender)).then(() => {}),
    stop: () => {
      stopped = true;
    },
  };
}

async function send(
  { queue, message }: FeederOptions,
  numbers: readonly number[],
): Promise<readonly string[]> {
  const Entries = numbers.map((n, i) => ({ Id: String(i), MessageBody: message(n).body }));
  const answer = await callQueue(queue, "SendMessageBatch", { Entries });
  const sent = (answer.Successful ?? []) as { readonly Id: string; readonly MessageId: string }[];
  if (sent.length !== numbers.length) throw new Error("the queue did not take every message");
  return sent.sort((a, b) => Number(a.Id) - Number(b.Id)).map(({ MessageId }) => MessageId);
}

export async function callQueue(
  queue: { readonly address: string; readonly url: string },
  action: string,
  body: Readonly<Record<string, unknown>>,
): Promise<Readonly<Record<string, unknown>>> {
  const answer = await fetch(`${queue.address}/`, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.0",
      "x-amz-target": `AmazonSQS.${action}`,
    },
    body: JSON.stringify({ QueueUrl: queue.url, ...body }),
  });
  if (!answer.ok) throw new Error(`the queue answered ${answer.status} to ${action}`);
  return (await answer.json()) as Readonly<Record<string, unknown>>;
}

/** Messages that wait, and messages that are with a consumer or were with one that has ended. */
export async function depthOf(queue: {
  readonly address: string;
  readonly url: string;
}): Promise<{ readonly waiting: number; readonly inFlight: number }> {
  const { Attributes } = await callQueue(queue, "GetQueueAttributes", {
    AttributeNames: ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
  });
  const read = (name: string) => Number((Attributes as Record<string, string>)[name]);
  return {
    waiting: read("ApproximateNumberOfMessages"),
    inFlight: read("ApproximateNumberOfMessagesNotVisible"),
  };
}
