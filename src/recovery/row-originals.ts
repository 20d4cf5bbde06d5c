// The originals that stand beside logins: each is that of its login's own period, which may be
// another spelling of the same address than in another period, or gone.
//
// A token is asked for once, and fetched again for each period that its logins lie in. Logins come
// in the order of their days, so the periods before are forgotten page by page.
import type { OpeningKeys } from "../keys/open.ts";
import { fetchInPeriods, type OriginalInPeriod, type TokenOnDay } from "./fetch.ts";
import type { Recovery } from "./request.ts";
import { openOriginal, type Revealed } from "./reveal.ts";

/** A token that a request names, and what has been fetched of it. */
export type AskedToken = {
  readonly request: string;
  readonly originals: InPeriod[];
  /** How it was among the losses already. */
  readonly lost: Set<Loss>;
};

export type AskedTokens = ReadonlyMap<string, AskedToken>;

type InPeriod = OriginalInPeriod & {
  /** Null where it does not open; absent until that was tried. */
  revealed?: Revealed | null;
};

type Loss = "unknown" | "unopened";

export type Losses = Readonly<Record<Loss, readonly string[]>>;

export const askedIn = (request: string): AskedToken => ({
  request,
  originals: [],
  lost: new Set(),
});

/** Fetches what is lacking for these tokens, request by request; those that none names are left out. */
export async function fetchRows(
  recovery: Recovery,
  requests: readonly string[],
  tokens: readonly TokenOnDay[],
  asked: AskedTokens,
): Promise<void> {
  for (const [request, lacking] of lackingOf(tokens, asked)) {
    const later = requests.slice(requests.indexOf(request) + 1);
    for (const answer of await fetchInPeriods(recovery, request, later, lacking)) {
      const known = asked.get(answer.token);
      // Only what was asked for, whatever the database has answered.
      if (known?.request === request) known.originals.push(answer);
    }
  }
}

/** What is not known yet, each once, by the request that names it. */
function lackingOf(
  tokens: readonly TokenOnDay[],
  asked: AskedTokens,
): ReadonlyMap<string, readonly TokenOnDay[]> {
  const lacking = new Map<string, TokenOnDay[]>();
  const seen = new Set<string>();
  for (const { token, day } of tokens) {
    const known = asked.get(token);
    const place = `${token} ${day}`;
    if (known === undefined || inPeriodOf(known, day) !== undefined || seen.has(place)) continue;
    seen.add(place);
    const ofRequest = lacking.get(known.request);
    if (ofRequest === undefined) lacking.set(known.request, [{ token, day }]);
    else ofRequest.push({ token, day });
  }
  return lacking;
}

/**
 * Opens what was fetched for these tokens. A loss is a token of which a period holds no original,
 * or one that does not open; each is told once.
 */
export async function openRows(
  keys: OpeningKeys,
  tokens: readonly TokenOnDay[],
  asked: AskedTokens,
): Promise<Losses> {
  const losses = { unknown: [] as string[], unopened: [] as string[] };
  for (const { token, day } of tokens) {
    const known = asked.get(token);
    if (known === undefined) continue;
    const original = inPeriodOf(known, day);
    const sealed = original?.sealed ?? null;
    if (original && sealed && original.revealed === undefined) {
      original.revealed = await openOriginal(keys, sealed);
    }
    if (original?.revealed) continue;
    const loss = sealed === null ? "unknown" : "unopened";
    if (!known.lost.has(loss)) losses[loss].push(token);
    known.lost.add(loss);
  }
  return losses;
}

/** The original in the period of this day, where there is one that opened. */
export const originalOn = (known: AskedToken, day: string | null): Revealed | null =>
  inPeriodOf(known, day)?.revealed ?? null;

/** Forgets of these tokens what no login can need that comes after those of this day. */
export function forgetBefore(
  tokens: readonly TokenOnDay[],
  asked: AskedTokens,
  day: string | null,
): void {
  for (const { token } of tokens) {
    const originals = asked.get(token)?.originals;
    const needed = originals?.filter(
      ({ until }) => until === null || (day !== null && day < until),
    );
    if (originals && needed && needed.length < originals.length) {
      originals.splice(0, originals.length, ...needed);
    }
  }
}

// Logins without a date come last, and have a period of their own.
const inPeriodOf = ({ originals }: AskedToken, day: string | null): InPeriod | undefined =>
  originals.find(({ first, until }) =>
    day === null || first === null || until === null ? day === first : first <= day && day < until,
  );
