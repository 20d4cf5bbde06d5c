// What can be made to happen in a database's proxy, as its connections look it up at each step.
import type { PgError } from "./pg-wire.ts";

/**
 * The places of a load, in the order in which it passes them. `answered` means that the server has done
 * it and the client does not know yet: committed, unless a COMMIT follows, which then has its own two.
 * A load that brings no message (veil's look at the token key) passes `probed` only, and a load that the
 * server refused passes nothing after `load-forwarded`.
 */
export const PG_POINTS = [
  "connect",
  "probed",
  "load-sent",
  "load-half-sent",
  "load-forwarded",
  "load-answered",
  "load-half-answered",
  "load-delivered",
  "commit-sent",
  "commit-answered",
] as const;
export type PgPoint = (typeof PG_POINTS)[number];

/** Of the listener and of every connection. `hold` keeps bytes, and lets them go when that ends. */
export type PgMode =
  | { readonly kind: "pass" }
  | { readonly kind: "refuse"; readonly how: "closed" | "accepted" }
  | { readonly kind: "hold" }
  | { readonly kind: "slow"; readonly milliseconds: number; readonly bytes: number };

export type PgAnswer = PgError & {
  /** What is answered like this in place of being passed on. */
  readonly to: "connect" | "load" | "commit";
  /** Passed on and done, and this said of it all the same. Not for `connect`. */
  readonly afterwards?: boolean;
  /** Only where the load is at least so long: some hundred bytes are one message. */
  readonly leastBytes?: number;
};

/** Somebody waits at a point. */
export type Paused = { readonly resume: () => void; readonly cut: () => void };

/** Everybody who comes to a point waits there, however many loads there are at a time. */
export type PausedAll = {
  /** When somebody has come there. */
  readonly reached: Promise<void>;
  /** Lets them go on, and whoever comes later; or cuts them, and nobody who comes later. */
  readonly resume: () => void;
  readonly cut: () => void;
};

/** A point where everybody waits, as a connection sees it. */
export type Barrier = {
  readonly reach: () => void;
  readonly opened: Promise<"resume" | "cut">;
};

export type PgControl = {
  mode: PgMode;
  /** Resolved and replaced when the mode changes. */
  changed: PromiseWithResolvers<void>;
  /** How often each point still cuts. */
  readonly cuts: Map<PgPoint, number>;
  readonly pauses: Map<PgPoint, (paused: Paused) => void>;
  readonly barriers: Map<PgPoint, Barrier>;
  answers: { readonly answer: PgAnswer; times: number }[];
  /** The next load gets the answer of the load before it, and is carried out, or is not. */
  swap: "ran" | "unran" | null;
  /** The last load's answer, without its ReadyForQuery. */
  lastAnswer: Buffer | null;
  readonly counts: Record<PgPoint, number>;
  readonly onPoint: (point: PgPoint) => void;
  readonly gate: (point: PgPoint) => Promise<void> | null;
};

/** Whether a connection that has come to this point is to be cut. */
export function takeCut(cuts: PgControl["cuts"], point: PgPoint): boolean {
  const left = cuts.get(point) ?? 0;
  if (left > 1) cuts.set(point, left - 1);
  else cuts.delete(point);
  return left > 0;
}
