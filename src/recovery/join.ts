// Recovery as a join: logins with their originals beside them, of any number in bounded memory.
//
// All logins are read twice, in one snapshot: first to put on record what will be asked for, a request a page,
// then to fetch and print. Which tokens were asked for lately is remembered within a limit; the second time
// remembers and forgets just as the first, and so knows what each request holds without keeping it.
import { parseToken } from "../../vault/token.ts";
import type { Query } from "../postgres/database.ts";
import { type Login, type LoginFilter, type Logins, openLogins } from "./logins.ts";
import { Recent } from "./recent.ts";
import { fetchFirst, type Recovery, type Revealed, recordRequest } from "./reveal.ts";

export type RevealedLogin = Login & {
  /** Null: there is none, or it could not be revealed. */
  readonly ip: string | null;
  readonly deviceId: string | null;
  /** Null where no original is shown, or no key could verify. */
  readonly verified: true | null;
};

export type LoginsPage = {
  readonly logins: readonly RevealedLogin[];
  /** Tokens whose originals do not open: altered, forged, or sealed for another identity. */
  readonly refused: readonly string[];
};

/** Of tokens; one that stands far apart again may count again, as it is asked for again. */
export type JoinCounts = {
  logins: number;
  /** The vault does not hold them. */
  unknown: number;
  refused: number;
  /** Of generation 0, or no tokens of veil's: nothing stands behind them, and nobody was asked. */
  unrecoverable: number;
};

/** A token and its original take 200 bytes, at worst 2,000. */
const TOKENS_REMEMBERED = 20_000;

/** Keeps a connection from being closed for idleness while a request waits. */
const KEEP_ALIVE_MS = 5000;

/** `print` is given the pages in order. Throws if a request is refused. */
export async function revealLogins(
  recovery: Recovery,
  filter: LoginFilter,
  print: (page: LoginsPage) => Promise<void>,
): Promise<JoinCounts> {
  return await recovery.database.snapshot(async (query) => {
    const logins = await openLogins(query, filter);
    const { requests, counts } = await recordAll(recovery, logins);
    if (counts.logins === 0) return counts;
    await recovery.afterRecording?.();
    await logins.rewind();
    const awake = { ...recovery, ...keepingAlive(recovery, query) };
    const recent = new Recent<Revealed | Nothing>(TOKENS_REMEMBERED);
    let shown = 0;
    for (let page = await logins.page(); page.length > 0; page = await logins.page()) {
      const fresh = addFresh(recent, page);
      const refused: string[] = [];
      if (fresh.length > 0) {
        const found = await fetchFirst(awake, requests);
        requests.shift();
        for (const token of fresh) {
          const revealed = found.get(token);
          if (revealed) recent.set(token, revealed);
          else if (revealed === null) refused.push(token);
          else counts.unknown++;
        }
      }
      counts.refused += refused.length;
      await print({ logins: page.map((login) => beside(login, (t) => recent.get(t))), refused });
      recent.trim();
      shown += page.length;
      recovery.onProgress?.("revealed", shown);
    }
    return counts;
  });
}

/**
 * The same of requests that were recorded before and approved since: what they hold is all that is shown. As much
 * is kept in memory as they hold.
 */
export async function showLogins(
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
        refused: [],
      });
    }
    return counts;
  });
}

/** What stands for a token whose original is not known, or not yet. */
type Nothing = false;

async function recordAll(recovery: Recovery, logins: Logins) {
  const requests: string[] = [];
  const counts = noCounts();
  const recent = new Recent<Nothing>(TOKENS_REMEMBERED);
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
function addFresh(recent: Recent<Revealed | Nothing>, page: readonly Login[]): string[] {
  const fresh: string[] = [];
  for (const token of page.flatMap(recoverableTokens)) {
    if (recent.touch(token)) continue;
    recent.set(token, false);
    fresh.push(token);
  }
  return fresh;
}

const tokensOf = ({ maskedIp, maskedDeviceId }: Login): string[] =>
  [maskedIp, maskedDeviceId].filter((token) => token !== null);

const isRecoverable = (token: string): boolean => (parseToken(token)?.generation ?? 0) > 0;

const recoverableTokens = (login: Login): string[] => tokensOf(login).filter(isRecoverable);

const noCounts = (): JoinCounts => ({ logins: 0, unknown: 0, refused: 0, unrecoverable: 0 });

function count(counts: JoinCounts, page: readonly Login[]): void {
  counts.logins += page.length;
  for (const login of page) {
    counts.unrecoverable += tokensOf(login).length - recoverableTokens(login).length;
  }
}

function beside(
  login: Login,
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

/** The snapshot's connection, too, has to last until the verdict. */
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
