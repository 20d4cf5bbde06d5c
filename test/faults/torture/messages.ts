// The messages of a run: message `n` of a seed is the same for ever, is a login of nobody else's, and shares
// its addresses and devices with others, some of them with very many. About one in 33 is broken.
import {
  ADDRESSES,
  BROKEN,
  LOCALES,
  SPELLINGS,
  TEXTS,
  TYPES,
  USERS,
  VERSIONS,
} from "../../line/corpus.ts";
import type { Sent } from "../../line/expected.ts";
import { type Random, random } from "../bodies/hostile-random.ts";

export type Generated =
  | { readonly body: string; readonly login: Sent }
  | { readonly body: string; readonly login: null; readonly reason: string };

export type MessagesOptions = {
  readonly seed: number;
  /** Every login has one of so few addresses, and of as few devices that are new from time to time. */
  readonly hot?: number;
};

/** What a user id ends in. */
export const numberOf = (userId: string): number | null => {
  const digits = /~(0|[1-9][0-9]*)$/.exec(userId)?.[1];
  return digits === undefined ? null : Number(digits);
};

export function message(options: MessagesOptions, n: number): Generated {
  const r = random(options.seed, n);
  if (options.hot === undefined && r.below(33) === 0) {
    const [body, reason] = r.pick(BROKEN);
    return { body: plain(body(n)), login: null, reason };
  }
  const { hot } = options;
  const login: Sent = {
    user_id: `${r.pick(USERS)}~${n}`,
    device_type: r.pick(TYPES),
    ip: hot === undefined ? address(r, n) : `198.51.100.${r.below(hot)}`,
    locale: r.pick(LOCALES),
    device_id: hot === undefined ? device(r, n) : `hot-${Math.floor(n / 500)}-${r.below(hot)}`,
    app_version: r.pick(VERSIONS),
  };
  return { body: plain(r.pick(SPELLINGS.slice(0, 5))(login)), login };
}

/** A third to a few hot ones, a third to a pool, the others unique, odd or missing. */
function address(r: Random, n: number): string | null {
  const kind = r.float();
  if (kind < 0.35) return `198.51.100.${r.below(40)}`;
  if (kind < 0.65) return `203.0.${r.below(64)}.${r.below(250)}`;
  if (kind < 0.8) return `2001:db8:${(n >>> 16).toString(16)}::${(n & 0xffff).toString(16)}`;
  if (kind < 0.9) return r.pick(r.pick(ADDRESSES));
  if (kind < 0.95) return r.pick(TEXTS);
  return r.pick([null, ""]);
}

function device(r: Random, n: number): string | null {
  const kind = r.float();
  if (kind < 0.3) return `hot-${r.below(40)}`;
  if (kind < 0.6) return `📱${r.below(20_000)}👩🏽‍💻`;
  if (kind < 0.9) return `593-47-${n}`;
  if (kind < 0.95)
    return r.pick(["e\u0301", "é", "جهاز", " x ", "'; drop table x; --", "\ufeff", "\r\n"]);
  return r.pick([null, ""]);
}

/** SQS takes characters beyond U+FFFF, the emulator does not; in JSON they can be written without. */
const plain = (body: string): string =>
  body.replace(/[\ud800-\udfff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16)}`);

const DAY_MS = 86_400_000;

/**
 * When a message was sent, by its id alone, so that it is known before its sender has heard of that id:
 * in the last moments of a day or the first of the next, over four days.
 */
export function sentAtOf(startedAt: number): (id: string) => number {
  const today = Math.floor(startedAt / DAY_MS) * DAY_MS;
  return (id) => {
    const number = Number.parseInt(id.slice(0, 6), 16);
    return today - (number % 4) * DAY_MS + ((number >>> 8) % 40) - 20;
  };
}
