// How long the line waits: for servers that do not answer, and for messages that are not there. Parameters, so
// that a test of what happens afterwards need not sit through a real minute.

export type LineWaits = {
  /** A drain gives up on what stays away for longer. */
  readonly outageMs: number;
  /** A load takes milliseconds: a database that needs so long is in trouble. */
  readonly stalledMs: number;
  /** Far longer than a load takes, and longer than it waits for a lock (20 seconds, see sql/current/load.sql). */
  readonly loadMs: number;
  /** A drain's polls. */
  readonly drainPollSeconds: number;
  /** Those of a run that follows. */
  readonly followPollSeconds: number;
  /** How often the line looks for messages that become visible again soon. */
  readonly lookMs: number;
  /** Of the grace of a stop, 0 to 1: until then the line finishes what it has in hand. */
  readonly workShare: number;
  /** Of the grace, 0 to 1: until then it hands the rest back. */
  readonly handBackShare: number;
};

export const LINE_WAITS: LineWaits = {
  outageMs: 60_000,
  stalledMs: 5_000,
  loadMs: 60_000,
  drainPollSeconds: 1,
  followPollSeconds: 20,
  lookMs: 1_000,
  workShare: 0.7,
  handBackShare: 0.9,
};
