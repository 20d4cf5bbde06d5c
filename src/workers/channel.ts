// What the parent of `veil etl --workers` and its workers say to each other. Each says one JSON object at a
// time, over the channel that the runtime opens between them. Keys and passwords go this way, never by argv.

import type { LineVariables } from "../config/environment.ts";
import type { QueueConfig } from "../config/queue-url.ts";
import { Failure, type FailureCode } from "../failure.ts";
import type { Notice } from "../line/availability.ts";
import { type Counts, newCounts } from "../line/counts.ts";

export type Start = {
  readonly kind: "start";
  /** Of the parent: a program that was replaced on disk must not start workers of another one. */
  readonly version: string;
  /** As the parent has read them: all workers have the same, also one that is started much later. */
  readonly variables: LineVariables;
  readonly queue: QueueConfig;
  /** Whether the servers are the embedded default's. */
  readonly isLocal: boolean;
  /** Whether messages may be received only as shares allow. */
  readonly isLimited: boolean;
  readonly follow: boolean;
  readonly graceSeconds: number;
};

export type Order =
  | Start
  /** 0: there is nothing more to deal out. */
  | { readonly kind: "share"; readonly messages: number }
  | { readonly kind: "stop" };

/** What is new since the last time. */
export type CountsNews = Omit<Counts, "reasons"> & {
  readonly reasons: readonly (readonly [string, number])[];
};

export type Report =
  | { readonly kind: "counts"; readonly counts: CountsNews }
  | { readonly kind: "notice"; readonly notice: Notice }
  /** The share is used up, and no receive that could give some of it back is under way. */
  | { readonly kind: "ask" }
  | { readonly kind: "ended"; readonly unused: number; readonly trouble: Trouble | null };

/** Why a worker failed, in the words that a person may read. */
export type Trouble =
  | {
      readonly kind: "failure";
      readonly exitCode: FailureCode;
      readonly message: string;
      readonly hint: string | null;
      readonly code: string | null;
    }
  /** A defect of ours: its message may quote data and stays where it is. */
  | { readonly kind: "defect"; readonly name: string; readonly frames: readonly string[] };

/** Takes what was counted out of `counts`: the next time there is only what came after. */
export function takeNews(counts: Counts): CountsNews {
  const news = { ...counts, reasons: [...counts.reasons] };
  Object.assign(counts, newCounts());
  return news;
}

export function addNews(counts: Counts, news: CountsNews): void {
  counts.received += news.received;
  counts.loaded += news.loaded;
  counts.duplicates += news.duplicates;
  counts.quarantined += news.quarantined;
  counts.acknowledged += news.acknowledged;
  counts.newOriginals += news.newOriginals;
  counts.handedBack += news.handedBack;
  counts.retries += news.retries;
  for (const [reason, times] of news.reasons) {
    counts.reasons.set(reason, (counts.reasons.get(reason) ?? 0) + times);
  }
  counts.exampleToken ??= news.exampleToken;
}

export function describeTrouble(error: unknown): Trouble {
  if (error instanceof Failure) {
    const { exitCode, message, hint, code } = error;
    return { kind: "failure", exitCode, message, hint, code };
  }
  const { name, message, stack } =
    error instanceof Error ? error : { name: typeof error, message: "", stack: "" };
  const lines = (stack ?? "").replace(message, "").split("\n");
  return { kind: "defect", name, frames: lines.filter((line) => /^\s+at /.test(line)) };
}

/** The error that `describeTrouble` was given, as far as it may be known here. */
export function asError(trouble: Trouble): unknown {
  if (trouble.kind === "failure") {
    return new Failure(trouble.exitCode, trouble.message, trouble.hint, trouble.code);
  }
  return Object.assign(new Error(), { name: trouble.name, stack: trouble.frames.join("\n") });
}
