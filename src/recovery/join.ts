// Logins joined with their originals: any number of them, in bounded memory.
//
// All logins are read twice, in one snapshot. The first time puts on record what will be asked for,
// a request for each page; the second time fetches and prints. Which tokens were asked for lately
// is remembered within a limit. The second reading remembers and forgets exactly as the first one
// did, so it knows what each request holds without a list. A login shows the originals of its own
// period: row-originals.ts.
import { parseToken } from "../../vault/token.ts";
import type { Query } from "../postgres/database.ts";
import { fetchOriginals, type TokenOnDay } from "./fetch.ts";
import { type LoginCursor, type LoginFilter, openLogins, type StoredLogin } from "./logins.ts";
import { RecentTokens } from "./recent-tokens.ts";
import { type Recovery, recordRequest } from "./request.ts";
import type { Revealed } from "./reveal.ts";
import { type AskedToken, askedIn, fetchRows, keepLast, originalOn } from "./row-originals.ts";

export type RevealedLogin = StoredLogin & {
  /** Null where there is none, or it could not be revealed. */
  readonly ip: string | null;
  readonly deviceId: string | null;
  /** Null where no original is shown, or no key could verify. */
  readonly verified: true | null;
};

export type LoginsPage = {
  readonly logins: readonly RevealedLogin[];
  /** Tokens whose originals do not open: altered, forged, or sealed for another identity. */
  readonly unopened: readonly string[];
};

/**
 * Counts of tokens. A token that comes again much later may be asked for again, and then counts
 * again.
 */
export type JoinCounts = {
  logins: number;
  /** Tokens of which the vault holds nothing in the period of one of their logins. */
  unknown: number;
  /** Tokens whose originals do not open. */
  unopened: number;
  /**
   * Tokens of generation 0, and values that are no tokens of veil's. Nothing stands behind them, or
   * is asked for.
   */
  unrecoverable: number;
};

/** A token and its original take 200 bytes of memory, at worst 2,000. */
const TOKENS_REMEMBERED = 20_000;

/**
 * While a request waits, a statement so often keeps the snapshot's connection from being closed as
 * idle.
 */
const KEEP_ALIVE_MS = 5000;

/** `print` is given the pages in order. Throws if a request is refused. */
export async function joinLogins(
  recovery: Recovery,
  filter: LoginFilter,
  print: (page: LoginsPage) => Promise<void>,
): Promise<JoinCounts> {
  return await recovery.database.snapshot(async (query) => {
    const logins = await openLogins(query, filter);
    const { requests, counts } = await recordAll(recovery, logins);
    if (counts.logins === 0) return counts;
    await recovery.onRecorded?.();
    await logins.rewind();
    const alive = { ...recovery, ...keepingAlive(recovery, query) };
    const recent = new RecentTokens<AskedToken>(TOKENS_REMEMBERED);
    const unfetched = requests.values();
    let shown = 0;
    for (let page = await logins.page(); page.length > 0; page = await logins.page()) {
      const fresh = freshTokens(recent, page);
      if (fresh.length > 0) {
        const request = String(unfetched.next().value);
        for (const token of fresh) recent.set(token, askedIn(request));
      }
      await print(await withOriginals(alive, requests, page, (token) => recent.get(token), counts));
      recent.trim();
      shown += page.length;
      recovery.onProgress?.("revealed", shown);
    }
    return counts;
  });
}

/**
 * The same with the originals of requests that were recorded before and approved since. No other
 * original is shown, and all tokens of these are held in memory.
 */
export async function joinRequested(
  recovery: Recovery,
  requests: readonly string[],
  filter: LoginFilter,
  print: (page: LoginsPage) => Promise<void>,
): Promise<JoinCounts> {
  // A request is named by the tokens of which anything is left: of the others nothing is to be shown.
  const named = new Map<string, AskedToken>();
  let nth = 0;
  for await (const sealed of fetchOriginals(recovery, requests)) {
    const request = requests[nth++]!;
    for (const { token } of sealed) named.set(token, askedIn(request));
  }
  return await recovery.database.snapshot(async (query) => {
    const logins = await openLogins(query, filter);
    const counts = noCounts();
    for (let page = await logins.page(); page.length > 0; page = await logins.page()) {
      count(counts, page);
      counts.unknown += recoverableTokens(page).filter(({ token }) => !named.has(token)).length;
      await print(
        await withOriginals(recovery, requests, page, (token) => named.get(token), counts),
      );
    }
    return counts;
  });
}

/** A page as it is printed. `find` answers for tokens that one of the requests names. */
async function withOriginals(
  recovery: Recovery,
  requests: readonly string[],
  page: readonly StoredLogin[],
  find: (token: string) => AskedToken | undefined,
  counts: JoinCounts,
): Promise<LoginsPage> {
  const tokens = recoverableTokens(page);
  const { unknown, unopened } = await fetchRows(recovery, requests, tokens, find);
  counts.unknown += unknown.length;
  counts.unopened += unopened.length;
  const logins = page.map((login) => beside(login, find));
  const last = page.at(-1)?.createDate ?? null;
  keepLast(
    tokens.map(({ token }) => find(token)),
    last,
  );
  return { logins, unopened };
}

async function recordAll(recovery: Recovery, logins: LoginCursor) {
  const requests: string[] = [];
  const counts = noCounts();
  const recent = new RecentTokens<true>(TOKENS_REMEMBERED);
  for (let page = await logins.page(); page.length > 0; page = await logins.page()) {
    const fresh = freshTokens(recent, page);
    if (fresh.length > 0) requests.push(await recordRequest(recovery, fresh));
    for (const token of fresh) recent.set(token, true);
    recent.trim();
    count(counts, page);
    recovery.onProgress?.("recorded", counts.logins);
  }
  return { requests, counts };
}

/** The tokens of a page that are not remembered, each once. */
function freshTokens(recent: RecentTokens<unknown>, page: readonly StoredLogin[]): string[] {
  const fresh = new Set<string>();
  for (const { token } of recoverableTokens(page)) {
    if (!recent.touch(token)) fresh.add(token);
  }
  return [...fresh];
}

const tokensOf = ({ maskedIp, maskedDeviceId }: StoredLogin): string[] =>
  [maskedIp, maskedDeviceId].filter((token) => token !== null);

const isRecoverable = (token: string): boolean => (parseToken(token)?.generation ?? 0) > 0;

const recoverableTokens = (page: readonly StoredLogin[]): TokenOnDay[] =>
  page.flatMap((login) =>
    tokensOf(login)
      .filter(isRecoverable)
      .map((token) => ({ token, day: login.createDate })),
  );

const noCounts = (): JoinCounts => ({ logins: 0, unknown: 0, unopened: 0, unrecoverable: 0 });

function count(counts: JoinCounts, page: readonly StoredLogin[]): void {
  counts.logins += page.length;
  counts.unrecoverable += page.flatMap(tokensOf).length - recoverableTokens(page).length;
}

function beside(
  login: StoredLogin,
  find: (token: string) => AskedToken | undefined,
): RevealedLogin {
  const { maskedIp, maskedDeviceId, createDate } = login;
  const original = (token: string | null): Revealed | null => {
    const asked = token === null ? undefined : find(token);
    return asked ? originalOn(asked, createDate) : null;
  };
  const [ip, deviceId] = [original(maskedIp), original(maskedDeviceId)];
  return {
    ...login,
    ip: ip?.original ?? null,
    deviceId: deviceId?.original ?? null,
    verified: ip?.verified ?? deviceId?.verified ?? null,
  };
}

/** The snapshot's connection has to last until the request is approved, too. */
function keepingAlive({ onWaiting }: Recovery, query: Query): Pick<Recovery, "onWaiting"> {
  if (onWaiting === undefined) return {};
  return {
    onWaiting: async (requests) => {
      const timer = setInterval(() => query("select 1").catch(() => {}), KEEP_ALIVE_MS);
      try {
        await onWaiting(requests);
      } finally {
        clearInterval(timer);
      }
    },
  };
}
