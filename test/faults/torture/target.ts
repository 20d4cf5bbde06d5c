// What a strike strikes at, and what all kinds of strikes need.
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../bodies/hostile-random.ts";
import type { Servers } from "./servers.ts";
import type { Point, Worker } from "./worker.ts";

export type Target = {
  readonly worker: Worker;
  readonly servers: Servers;
  readonly visibilitySeconds: number;
  /** Kills, at a point or where it is. */
  readonly kill: (at: Point | null) => Promise<void>;
  /** Whether processes come to this point. */
  readonly passed: (point: Point) => boolean;
  /** SIGTERM, and what has to come of it. */
  readonly terminate: () => Promise<void>;
};

/** A fault, with its details drawn and not yet done. */
export type Draw = (r: Random) => {
  readonly name: string;
  readonly run: (target: Target) => Promise<void>;
};

/** In the seed's order the first that processes come to: not every version has every point. */
export function drawPoint<P extends Point>(r: Random, points: readonly P[]) {
  const order = points.map((point) => ({ point, at: r.float() })).sort((a, b) => a.at - b.at);
  return ({ passed }: Target): P | null => order.find(({ point }) => passed(point))?.point ?? null;
}

/** Until what was armed has struck, or has had every chance to. */
export async function spent(isSpent: () => boolean): Promise<void> {
  for (let waited = 0; waited < 3000 && !isSpent(); waited += 20) await sleep(20);
}
