// Keeps a load back for a moment until another one has come too, be it of another worker or of the same, and
// lets them go at the same time: loads that overlap in what they store then lock the same rows at once.
import type { PgPoint } from "../proxies/pg-control.ts";

/** Nobody waits longer for company: the others may be gone. */
const PATIENCE_MS = 200;

export function meeting(): (point: PgPoint) => Promise<void> | null {
  let next: { readonly start: () => void; readonly started: Promise<void> } | null = null;
  return (point) => {
    if (point !== "load-sent") return null;
    if (next !== null) {
      const { start, started } = next;
      next = null;
      start();
      return started;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const mine = { start: resolve, started: promise };
    next = mine;
    setTimeout(() => {
      if (next === mine) next = null;
      resolve();
    }, PATIENCE_MS);
    return promise;
  };
}
