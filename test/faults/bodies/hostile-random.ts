// Randomness that a seed repeats: body `n` of a seed is the same body for ever, whichever others were made
// before it.

export type Random = {
  /** From 0 to below 1. */
  readonly float: () => number;
  /** A whole number from 0 to below `end`. */
  readonly below: (end: number) => number;
  readonly between: (low: number, high: number) => number;
  /** From 1 to `most`, each order of magnitude as likely as the next: mostly small, sometimes huge. */
  readonly magnitude: (most: number) => number;
  readonly chance: (probability: number) => boolean;
  readonly pick: <T>(list: readonly T[]) => T;
};

export function random(seed: number, n: number): Random {
  let state = mix(mix(seed | 0) ^ Math.imul(n + 1, 0x9e3779b1));
  // Mulberry32: no more than a test needs, and the same in every runtime.
  const float = () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (end: number) => Math.floor(float() * end);
  return {
    float,
    below,
    between: (low, high) => low + below(high - low + 1),
    magnitude: (most) => Math.min(most, Math.floor(Math.exp(float() * Math.log(most + 1)))),
    chance: (probability) => float() < probability,
    pick: (list) => {
      if (list.length === 0) throw new Error("expected something to pick from");
      return list[below(list.length)]!;
    },
  };
}

function mix(value: number): number {
  let x = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
