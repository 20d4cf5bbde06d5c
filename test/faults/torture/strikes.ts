// The faults of a run, drawn by a seeded random generator: which one, with what details, in what order, is
// the seed's; at which worker and in the middle of what it strikes, also the scheduler's.
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../bodies/hostile-random.ts";
import {
  answer,
  cut,
  dropAll,
  hold,
  lockTable,
  refuse,
  refuseBatch,
  restartDatabase,
  swap,
  terminateBackends,
} from "./database-strikes.ts";
import { queueAway, queueFault } from "./queue-strikes.ts";
import { type Draw, drawPoint, type Target } from "./target.ts";
import { POINTS } from "./worker.ts";

export type Strike = {
  readonly name: string;
  readonly kills: boolean;
  readonly run: (target: Target) => Promise<void>;
};

/** Out of a hundred or so. */
const WEIGHTED: Readonly<Record<string, readonly [weight: number, draw: Draw]>> = {
  kill: [22, killAnywhere],
  "kill-at-point": [46, killAtPoint],
  stop: [5, stopAndContinue],
  terminate: [4, terminate],
  cut: [6, cut],
  answer: [5, answer],
  "refused-batch": [2, refuseBatch],
  swap: [2, swap],
  "drop-all": [2, dropAll],
  refuse: [2, refuse],
  hold: [1, hold],
  backends: [1, terminateBackends],
  lock: [1, lockTable],
  restart: [0.4, restartDatabase],
  "queue-fault": [7, queueFault],
  "queue-away": [2, queueAway],
};

export const STRIKES: readonly string[] = Object.keys(WEIGHTED);

/** Where a focus is given, that kind comes as often as all others together. */
export function drawStrike(r: Random, focus: string | null = null): Strike {
  const total = Object.values(WEIGHTED).reduce((sum, [weight]) => sum + weight, 0);
  const choices = Object.entries(WEIGHTED).map(([kind, [weight, draw]]) => ({
    ...{ kind, draw },
    weight: kind === focus ? weight + total : weight,
  }));
  let at = r.float() * choices.reduce((sum, { weight }) => sum + weight, 0);
  const found = choices.find(({ weight }) => {
    at -= weight;
    return at < 0;
  });
  const { kind, draw } = found ?? choices[0]!;
  return { kills: kind.startsWith("kill"), ...draw(r) };
}

function killAnywhere(r: Random) {
  const milliseconds = r.below(400);
  return {
    name: "kill",
    run: async ({ kill }: Target) => {
      await sleep(milliseconds);
      await kill(null);
    },
  };
}

/** To the others a process comes when it starts: there it is struck while it recovers. */
const BUSY_POINTS = POINTS.filter((point) => point !== "connect" && point !== "probed");

function killAtPoint(r: Random) {
  const point = drawPoint(r, BUSY_POINTS);
  return { name: "kill", run: (target: Target) => target.kill(point(target)) };
}

function stopAndContinue(r: Random) {
  // Often for longer than the visibility time-out: its messages are somebody else's by then.
  const part = r.float() * 1.4;
  return {
    name: "SIGSTOP and SIGCONT",
    run: async ({ worker, visibilitySeconds }: Target) => {
      if (!worker.signal("SIGSTOP")) return;
      await sleep(part * visibilitySeconds * 1000);
      worker.signal("SIGCONT");
    },
  };
}

function terminate() {
  return { name: "SIGTERM", run: (target: Target) => target.terminate() };
}
