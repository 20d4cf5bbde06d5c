// Logins joined with their originals: any number of them, in bounded memory.
//
// All logins are read twice, in one snapshot. The first time puts on record what will be asked for,
// a request for each page; the second time fetches and prints. Which tokens were asked for lately
// is remembered within a limit. The second reading remembers and forgets exactly as the first one
// did, so it knows what each request holds without a list.
import { parseToken } from "../../vault/token.ts";
import type { Query } from "../postgres/database.ts";
import { fetchOriginals } from "./fetch.ts";
import { type LoginCursor, type LoginFilter, openLogins, type StoredLogin } from "./logins.ts";
import { RecentTokens } from "./recent-tokens.ts";
import { type Recovery, recordRequest } from "./request.ts";
import { openOriginals, type Revealed } from "./reveal.ts";

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
  /** Tokens that the vault does not hold. */
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
    const answers = fetchOriginals({ ...recovery, ...keepingAlive(recovery, query) }, requests);
    const recent = new RecentTokens<Revealed | Nothing>(TOKENS_REMEMBERED);
    let shown = 0;
    for (let page = await logins.page(); page.length > 0; page = await logins.page()) {
      const fresh = addFresh(recent, page);
      const unopened: string[] = [];
      if (fresh.length > 0) {
        const { value: sealed = [] } = await answers.next();
        const opened = await openOriginals(recovery.keys, sealed);
        for (const token of fresh) {
          const revealed = opened.get(token);
          if (revealed) recent.set(token, revealed);
          else if (revealed === null) unopened.push(token);
          else counts.unknown++;
        }
      }
      counts.unopened += unopened.length;
      await print({ logins: page.map((login) => beside(login, (t) => recent.get(t))), unopened });
      recent.trim();
      shown += page.length;
      recovery.onProgress?.("revealed", shown);
    }
    return counts;
  });
}

/**
 * The same with the originals of requests that were recorded before and approved since. No other
 * original is shown, and all of these are held in memory.
 */
export async function joinRequested(
  recovery: Recovery,
  filter: LoginFilter,
  originals: ReadonlyMap<string, Revealed>,
  print: (page: LoginsPage) => Promise<void>,
): Promise<JoinCounts> {
  return await recovery.database.snapshot(async (query) => {
    const logins = await openLogins(query, filter);
    const counts = noCounts();
    for (let page = await logins.page(); page.length > 0; page = await logins.page()) {
      count(counts, page);
      for (const token of page.flatMap(recoverableTokens)) {
        if (!originals.has(token)) counts.unknown++;
      }
      await print({
        logins: page.map((login) => beside(login, (t) => originals.get(t))),
        unopened: [],
      });
    }
    return counts;
  });
}

/** What stands for a token whose original is not known, or not yet. */
type Nothing = false;

async function recordAll(recovery: Recovery, logins: LoginCursor) {
  const requests: string[] = [];
  const counts = noCounts();
  const recent = new RecentTokens<Nothing>(TOKENS_REMEMBERED);
  for (let page = await logins.page(); page.length > 0; page = await logins.page()) {
    const fresh = addFresh(recent, page);
    if (fresh.length > 0) requests.push(await recordRequest(recovery, fresh));
    recent.trim();
    count(counts, page);
    recovery.onProgress?.("recorded", counts.logins);
  }
  return { requests, counts };
}

/** The tokens of a page that are not remembered, which they are from now on. */
function addFresh(
  recent: RecentTokens<Revealed | Nothing>,
  page: readonly StoredLogin[],
): string[] {
  const fresh: string[] = [];
  for (const token of page.flatMap(recoverableTokens)) {
    if (recent.touch(token)) continue;
    recent.set(token, false);
    fresh.push(token);
  }
  return fresh;
}

const tokensOf = ({ maskedIp, maskedDeviceId }: StoredLogin): string[] =>
  [maskedIp, maskedDeviceId].filter((token) => token !== null);

const isRecoverable = (token: string): boolean => (parseToken(token)?.generation ?? 0) > 0;

const recoverableTokens = (login: StoredLogin): string[] => tokensOf(login).filter(isRecoverable);

const noCounts = (): JoinCounts => ({ logins: 0, unknown: 0, unopened: 0, unrecoverable: 0 });

function count(counts: JoinCounts, page: readonly StoredLogin[]): void {
  counts.logins += page.length;
  for (const login of page) {
    counts.unrecoverable += tokensOf(login).length - recoverableTokens(login).length;
  }
}

function beside(
  login: StoredLogin,
  find: (token: string) => Revealed | Nothing | undefined,
): RevealedLogin {
  const { maskedIp, maskedDeviceId } = login;
  const ip = (maskedIp !== null && find(maskedIp)) || null;
  const deviceId = (maskedDeviceId !== null && find(maskedDeviceId)) || null;
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
