// Several workers meet one trouble: a person hears of it once, and of its end when it has ended for all.
import type { Notice } from "../line/availability.ts";

/** The same warning within so long is the same trouble, met by another worker. */
const QUIET_MS = 60_000;

/** State: who waits for what, and which warnings were given. */
export class Notices {
  readonly #tell: (notice: Notice) => void;
  readonly #away = new Map<string, Set<number>>();
  readonly #warnedAt = new Map<string, number>();

  constructor(tell: (notice: Notice) => void) {
    this.#tell = tell;
  }

  pass(worker: number, notice: Notice): void {
    if (notice.event === "warning") {
      this.#warn(notice);
      return;
    }
    const about = notice.about ?? "";
    const away = this.#away.get(about) ?? new Set();
    this.#away.set(about, away);
    const before = away.size;
    if (notice.event === "away") away.add(worker);
    else away.delete(worker);
    if ((before === 0) !== (away.size === 0)) this.#tell(notice);
  }

  /** It has died, and does not wait for anything any more. */
  forget(worker: number): void {
    for (const away of this.#away.values()) away.delete(worker);
  }

  #warn(notice: Notice): void {
    const now = performance.now();
    for (const [message, at] of this.#warnedAt) {
      if (now - at >= QUIET_MS) this.#warnedAt.delete(message);
    }
    if (this.#warnedAt.has(notice.message)) return;
    this.#warnedAt.set(notice.message, now);
    this.#tell(notice);
  }
}
