// What the proxies of one queue's workers share: some deliveries are handed out once more, under another
// receipt handle and to any worker; every receipt handle carries its message's id, so that a delete can be
// held against the database before it is passed on.
import { createHash } from "node:crypto";
import type { HttpReply } from "./http-wire.ts";

export type Delivered = { readonly id: string; readonly sentAt: number };

export type SharedOptions = {
  /** The SQS server's own address. */
  readonly address: string;
  /** The part of the deliveries that is handed out once more; 0 when absent. */
  readonly redeliver?: number;
  /** Between 0 and 1, seeded: which deliveries those are, and when. */
  readonly random?: () => number;
  /** Up to so long after the first delivery, 1 s when absent: also after it was deleted. */
  readonly redeliverWithinMs?: number;
  /** The SentTimestamp of a message in place of its own. Has to be the same each time. */
  readonly sentAt?: (id: string) => number;
  /** The body of a message in place of its own; null leaves it alone. */
  readonly body?: (id: string) => string | null;
  /** So many times more slowly goes the queue's time by for those that it hides; 1 when absent. */
  readonly slower?: number;
  /** With what a consumer asks to delete, before any of it is passed on. */
  readonly onDelete?: (messages: readonly Delivered[]) => Promise<void> | void;
};

/** What the queue does other than it was asked to. */
export type Wish = "partial" | "lose" | "empty";

export type SharedQueue = {
  readonly call: (
    action: string,
    asked: Record<string, unknown>,
    headers: ReadonlyMap<string, string>,
    wish: Wish | null,
  ) => Promise<{ readonly reply: HttpReply; readonly messages: number }>;
  /** What a receive was answered, and nobody got: it can be received again at once. */
  readonly giveBack: (reply: HttpReply) => Promise<void>;
  /** How often each message was handed out. */
  readonly deliveries: ReadonlyMap<string, number>;
  /** The ids of the messages for which a consumer asked for more time. */
  readonly hidden: ReadonlySet<string>;
  /** The ids of the messages whose delete was passed on. */
  readonly deleted: ReadonlySet<string>;
  /** How many deliveries were handed out by this proxy beyond the queue's own. */
  readonly redelivered: () => number;
  /** How many are still to be. */
  readonly waiting: () => number;
  /** What waits to be handed out once more is handed out as soon as it is asked for. */
  readonly hurry: () => void;
  /** All deliveries, repeated ones included. */
  readonly total: () => number;
  /** No delivery is marked to be handed out once more any longer. */
  readonly settle: () => void;
};

type Message = {
  readonly MessageId: string;
  readonly Body: string;
  readonly MD5OfBody: string;
  readonly ReceiptHandle: string;
  readonly Attributes?: Readonly<Record<string, string>>;
};
type Entry = { readonly Id: string; readonly ReceiptHandle: string };

/** A handle of ours is the queue's own, or `again`, then the id and the SentTimestamp. */
const AGAIN = "again";
const handleOf = (own: string, { id, sentAt }: Delivered) => `${own}~${id}~${sentAt}`;
const readHandle = (handle: string): Delivered & { readonly own: string } => {
  const [own = "", id = "", sentAt = ""] = handle.split("~");
  return { own, id, sentAt: Number(sentAt) };
};

export function shareQueue(options: SharedOptions): SharedQueue {
  const random = options.random ?? Math.random;
  const within = options.redeliverWithinMs ?? 1000;
  const deliveries = new Map<string, number>();
  const deleted = new Set<string>();
  const hidden = new Set<string>();
  const slower = options.slower ?? 1;
  const longer = <T extends object>(one: T): T =>
    slower > 1 && "VisibilityTimeout" in one
      ? { ...one, VisibilityTimeout: Math.min(Number(one.VisibilityTimeout) * slower, 43_200) }
      : one;
  let again: { readonly message: Message; readonly at: number }[] = [];
  let redelivered = 0;
  let lastQueueUrl: unknown = null;
  let total = 0;
  let rate = options.redeliver ?? 0;

  const pass = async (
    asked: unknown,
    headers: ReadonlyMap<string, string>,
  ): Promise<{ readonly status: number; readonly body: string; readonly headers: Headers }> => {
    const answer = await fetch(`${options.address}/`, {
      method: "POST",
      headers: {
        "content-type": headers.get("content-type") ?? "application/x-amz-json-1.0",
        "x-amz-target": headers.get("x-amz-target") ?? "",
      },
      body: JSON.stringify(asked),
    });
    return { status: answer.status, body: await answer.text(), headers: answer.headers };
  };
  const replyOf = (answer: Awaited<ReturnType<typeof pass>>): HttpReply => {
    const query = answer.headers.get("x-amzn-query-error");
    return {
      status: answer.status,
      headers: {
        "content-type": "application/x-amz-json-1.0",
        ...(query === null ? {} : { "x-amzn-query-error": query }),
      },
      body: answer.body,
    };
  };
  const reply = (body: unknown): HttpReply => ({
    status: 200,
    headers: { "content-type": "application/x-amz-json-1.0" },
    body: JSON.stringify(body),
  });

  const change = (message: Message): Message => {
    const sentAt = options.sentAt?.(message.MessageId);
    const body = options.body?.(message.MessageId) ?? message.Body;
    const Attributes = {
      ...message.Attributes,
      ...(sentAt === undefined ? {} : { SentTimestamp: String(sentAt) }),
    };
    const delivered = { id: message.MessageId, sentAt: Number(Attributes.SentTimestamp) };
    return {
      ...message,
      Body: body,
      MD5OfBody: createHash("md5").update(body, "utf8").digest("hex"),
      ReceiptHandle: handleOf(message.ReceiptHandle, delivered),
      Attributes,
    };
  };

  const receive = async (
    asked: Record<string, unknown>,
    headers: ReadonlyMap<string, string>,
  ): Promise<{ readonly reply: HttpReply; readonly messages: number }> => {
    const most = Number(asked.MaxNumberOfMessages ?? 1);
    lastQueueUrl = asked.QueueUrl;
    const now = performance.now();
    const due = again.filter(({ at }) => at <= now).slice(0, most === 1 ? 1 : most >> 1);
    again = again.filter((one) => !due.includes(one));
    const rest = most - due.length;
    let fresh: Message[] = [];
    if (rest > 0) {
      // With something to hand out, or soon, a long poll would keep it back.
      const waits = again.length > 0 ? { WaitTimeSeconds: Math.min(1, waitOf(asked)) } : {};
      const changed = { ...longer(asked), ...waits, MaxNumberOfMessages: rest };
      const answer = await pass(
        due.length > 0 ? { ...changed, WaitTimeSeconds: 0 } : changed,
        headers,
      );
      if (answer.status !== 200) return { reply: replyOf(answer), messages: 0 };
      fresh = ((JSON.parse(answer.body).Messages as Message[] | undefined) ?? []).map(change);
    }
    for (const message of fresh) {
      if (random() >= rate) continue;
      const { id, sentAt } = readHandle(message.ReceiptHandle);
      const ReceiptHandle = handleOf(AGAIN, { id, sentAt });
      again.push({ message: { ...message, ReceiptHandle }, at: now + random() * within });
    }
    redelivered += due.length;
    const messages = [...due.map(({ message }) => message), ...fresh];
    total += messages.length;
    for (const { MessageId: id } of messages) deliveries.set(id, (deliveries.get(id) ?? 0) + 1);
    return {
      reply: reply(messages.length > 0 ? { Messages: messages } : {}),
      messages: messages.length,
    };
  };

  /** A call about single deliveries: those that are the queue's own are passed on, under its handles. */
  const settleEntries = async (
    asked: Record<string, unknown>,
    headers: ReadonlyMap<string, string>,
    wish: Wish | null,
    isDelete: boolean,
  ): Promise<HttpReply> => {
    const batch = asked.Entries as Entry[] | undefined;
    const entries = batch ?? [{ Id: "0", ReceiptHandle: String(asked.ReceiptHandle) }];
    const taken = entries.filter((_, i) => wish === null || (wish === "partial" && i % 2 === 0));
    const handles = new Map(entries.map((entry) => [entry, readHandle(entry.ReceiptHandle)]));
    if (isDelete) await options.onDelete?.([...handles.values()]);
    const own = taken
      .filter((entry) => handles.get(entry)!.own !== AGAIN)
      .map((entry) => longer({ ...entry, ReceiptHandle: handles.get(entry)!.own }));
    let refused: { readonly Id: string }[] = [];
    if (own.length > 0) {
      const changed = batch === undefined ? own[0] : { Entries: own };
      const { Id: _, ...rest } = { Id: null, ...asked, ...changed };
      const answer = await pass(rest, headers);
      if (answer.status !== 200) return replyOf(answer);
      refused = (JSON.parse(answer.body || "{}").Failed as typeof refused | undefined) ?? [];
    }
    for (const entry of taken) (isDelete ? deleted : hidden).add(handles.get(entry)!.id);
    if (batch === undefined) return reply({});
    const failed = new Map(refused.map((entry) => [entry.Id, entry as unknown]));
    for (const { Id } of wish === "partial" ? entries.filter((one) => !taken.includes(one)) : []) {
      failed.set(Id, { Id, Code: "InternalError", SenderFault: false });
    }
    const Successful = entries.filter(({ Id }) => !failed.has(Id)).map(({ Id }) => ({ Id }));
    return reply({ Successful, Failed: [...failed.values()] });
  };

  return {
    call: async (action, asked, headers, wish) => {
      if (action === "ReceiveMessage") {
        return wish === "empty" ? { reply: reply({}), messages: 0 } : receive(asked, headers);
      }
      if (/^(DeleteMessage|ChangeMessageVisibility)(Batch)?$/.test(action)) {
        const isDelete = action.startsWith("Delete");
        return { reply: await settleEntries(asked, headers, wish, isDelete), messages: 0 };
      }
      return { reply: replyOf(await pass(asked, headers)), messages: 0 };
    },
    giveBack: async ({ body }) => {
      const messages = (JSON.parse(body).Messages as Message[] | undefined) ?? [];
      const Entries = messages
        .map(({ ReceiptHandle }) => readHandle(ReceiptHandle).own)
        .filter((own) => own !== AGAIN)
        .map((own, n) => ({ Id: String(n), ReceiptHandle: own, VisibilityTimeout: 0 }));
      if (Entries.length === 0) return;
      const headers = new Map([["x-amz-target", "AmazonSQS.ChangeMessageVisibilityBatch"]]);
      await pass({ QueueUrl: lastQueueUrl, Entries }, headers);
    },
    deliveries,
    hidden,
    deleted,
    redelivered: () => redelivered,
    waiting: () => again.length,
    hurry: () => {
      again = again.map(({ message }) => ({ message, at: 0 }));
    },
    total: () => total,
    settle: () => {
      rate = 0;
    },
  };
}

const waitOf = (asked: Record<string, unknown>): number => Number(asked.WaitTimeSeconds ?? 0);
