// The originals that stand beside logins: each is that of its login's own period, which may be
// another spelling of the same address than in another period, or gone.
//
// A token is asked for once, and fetched again for each period that its logins lie in. Logins come
// in the order of their days, so only the period of the last one is kept between two pages.
import { fetchInPeriods, type Period, type TokenOnDay } from "./fetch.ts";
import type { Recovery } from "./request.ts";
import { openOriginal, type Revealed } from "./reveal.ts";

/** A token that a request names, and what has been fetched of it. */
export type AskedToken = {
  readonly request: string;
  originals: readonly InPeriod[];
  /** How it was among the losses already. */
  lost: readonly Loss[];
};

type Loss = "unknown" | "unopened";

type InPeriod = Period & { readonly found: Revealed | Loss };

export type Losses = Readonly<Record<Loss, readonly string[]>>;

export const askedIn = (request: string): AskedToken => ({ request, originals: [], lost: [] });

/** The original in the period of this day. */
export function originalOn(asked: AskedToken, day: string | null): Revealed | null {
  const found = foundOn(asked, day);
  return typeof found === "string" ? null : found;
}

const foundOn = (asked: AskedToken, day: string | null): Revealed | Loss =>
  asked.originals.find((period) => covers(period, day))?.found ?? "unknown";

const covers = ({ first, until }: Period, day: string | null): boolean =>
  day === null || first === null || until === null ? day === first : first <= day && day < until;

/**
 * Fetches and opens what these logins' tokens need, request by request. `find` answers for tokens
 * that a request names; others are left out. A token is among the losses once.
 */
export async function fetchRows(
  recovery: Recovery,
  requests: readonly string[],
  tokens: Iterable<TokenOnDay>,
  find: (token: string) => AskedToken | undefined,
): Promise<Losses> {
  const losses = { unknown: [] as string[], unopened: [] as string[] };
  for (const [request, wanted] of wantedOf(tokens, find)) {
    const later = requests.slice(requests.indexOf(request) + 1);
    const answers = await fetchInPeriods(recovery, request, later, wanted);
    for (const { token, period, sealed } of answers) {
      const asked = find(token);
      // Only what was asked for, whatever the database has answered.
      if (asked?.request !== request) continue;
      const revealed = sealed && (await openOriginal(recovery.keys, sealed));
      const lost = sealed === null ? "unknown" : "unopened";
      asked.originals = [...asked.originals, { ...period, found: revealed ?? lost }];
    }
    for (const { token, day } of wanted) {
      const asked = find(token);
      const found = asked && foundOn(asked, day);
      if (asked === undefined || typeof found !== "string" || asked.lost.includes(found)) continue;
      asked.lost = [...asked.lost, found];
      losses[found].push(token);
    }
  }
  return losses;
}

/** What is not known yet, each once, by the request that names it. */
function wantedOf(
  tokens: Iterable<TokenOnDay>,
  find: (token: string) => AskedToken | undefined,
): ReadonlyMap<string, readonly TokenOnDay[]> {
  const wanted = new Map<string, TokenOnDay[]>();
  const seen = new Set<string>();
  for (const { token, day } of tokens) {
    const asked = find(token);
    const place = `${token} ${day}`;
    if (asked === undefined || seen.has(place)) continue;
    seen.add(place);
    if (asked.originals.some((period) => covers(period, day))) continue;
    const ofRequest = wanted.get(asked.request);
    if (ofRequest === undefined) wanted.set(asked.request, [{ token, day }]);
    else ofRequest.push({ token, day });
  }
  return wanted;
}

/** Keeps of these tokens only what later logins may need. */
export function keepLast(asked: Iterable<AskedToken | undefined>, day: string | null): void {
  for (const token of asked) {
    if (token) token.originals = token.originals.filter((period) => covers(period, day));
  }
}
