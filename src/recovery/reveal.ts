// Recovery of originals: request (recorded and committed) → fetch → open. All that a command asks for is on
// record before the first of it is fetched, and only a request's worth of originals is held at a time.
import type { Field } from "../../vault/canonical.ts";
import { parseToken } from "../../vault/token.ts";
import { Failure } from "../failure.ts";
import type { Opener, SealedDataKey, SealedRow } from "../keys/opener.ts";
import { array, type Database, type Row } from "../postgres/database.ts";
import { readCommitted } from "../postgres/read-committed.ts";

export type Revealed = {
  readonly token: string;
  readonly field: Field;
  readonly original: string;
  readonly verified: true | null;
  readonly sealedAt: string;
};

export type RevealResult = {
  /** In the order in which the tokens were first asked for. */
  readonly revealed: readonly Revealed[];
  /** The vault does not hold them. */
  readonly unknown: readonly string[];
  /** They do not open: altered, forged, or sealed for another identity. */
  readonly refused: readonly string[];
};

/** What a request says of itself. */
export type Ask = {
  readonly reason: string | null;
  readonly purpose: string | null;
  /** Without the approval that it would need; it is reviewed afterwards. */
  readonly breakGlass: boolean;
};

export type Recovery = {
  readonly database: Database;
  readonly opener: Opener;
  readonly ask: Ask;
  /** Called when every request is on record, and before anything is fetched. */
  readonly afterRecording?: () => Promise<void>;
  /**
   * Called with the requests that are still to be fetched, where the first of them waits for approval: answers
   * when that one does not wait any more, or throws.
   */
  readonly onWaiting?: (requests: readonly string[]) => Promise<void>;
  readonly onProgress?: (step: "recorded" | "revealed", tokens: number) => void;
};

/** As many as a request may have (sql/current/reveal.sql): the fewer requests, the fewer flushes. */
export const TOKENS_PER_REQUEST = 10_000;

/** For a few tokens: everything at once. Throws if a request is refused. */
export async function reveal(
  database: Database,
  opener: Opener,
  tokens: readonly string[],
  reason: string | null,
): Promise<RevealResult> {
  const ask = { reason, purpose: null, breakGlass: false };
  const pages: RevealResult[] = [];
  const distinct = new Set(tokens);
  for await (const page of revealPages({ database, opener, ask }, distinct)) pages.push(page);
  return {
    revealed: pages.flatMap(({ revealed }) => revealed),
    unknown: pages.flatMap(({ unknown }) => unknown),
    refused: pages.flatMap(({ refused }) => refused),
  };
}

/**
 * Pages in the set's order. Throws if a request is refused; a token that cannot be revealed is part of the answer.
 */
export async function* revealPages(
  recovery: Recovery,
  tokens: ReadonlySet<string>,
): AsyncGenerator<RevealResult> {
  const chunks: string[][] = [];
  for (const token of tokens) {
    const last = chunks.at(-1);
    if (last !== undefined && last.length < TOKENS_PER_REQUEST) last.push(token);
    else chunks.push([token]);
  }
  const requests: string[] = [];
  let recorded = 0;
  for (const chunk of chunks) {
    requests.push(await recordRequest(recovery, chunk));
    recorded += chunk.length;
    recovery.onProgress?.("recorded", recorded);
  }
  await recovery.afterRecording?.();
  let revealed = 0;
  for await (const { index, rows } of fetchAhead(recovery, requests)) {
    const chunk = chunks[index]!;
    const found = await openRows(recovery.opener, rows);
    revealed += chunk.length;
    recovery.onProgress?.("revealed", revealed);
    yield {
      revealed: chunk.flatMap((token) => found.get(token) ?? []),
      unknown: chunk.filter((token) => !found.has(token)),
      refused: chunk.filter((token) => found.get(token) === null),
    };
  }
}

/** Requests that were recorded before: each one's answer in the order of its tokens' letters. */
export async function* revealRequests(
  recovery: Recovery,
  requests: readonly string[],
): AsyncGenerator<RevealResult> {
  for await (const { rows } of fetchAhead(recovery, requests)) {
    const found = await openRows(recovery.opener, rows);
    const tokens = [...found.keys()].sort();
    yield {
      revealed: tokens.flatMap((token) => found.get(token) ?? []),
      unknown: [],
      refused: tokens.filter((token) => found.get(token) === null),
    };
  }
}

/** A statement of its own, and so a commit: when this answers, the request is on record. */
export async function recordRequest(
  { database, ask }: Recovery,
  tokens: readonly string[],
): Promise<string> {
  const { reason, purpose, breakGlass } = ask;
  const governed = breakGlass || purpose !== null;
  const name = breakGlass ? "break_glass" : "request_reveal";
  const [row] = await readCommitted(
    database,
    `select pii_vault.${name}($1::text[], $2::text${governed ? ", $3::text" : ""}) as id`,
    [array(tokens), reason, ...(governed ? [purpose] : [])],
  );
  return String(row?.id);
}

/** What the tokens of the first of these requests open to; as `openRows` says it. */
export async function fetchFirst(
  recovery: Recovery,
  requests: readonly string[],
): Promise<ReadonlyMap<string, Revealed | null>> {
  return await openRows(recovery.opener, await fetchRows(recovery, requests));
}

/** While one answer is opened and printed, the database makes the next. */
async function* fetchAhead(
  recovery: Recovery,
  requests: readonly string[],
): AsyncGenerator<{ readonly index: number; readonly rows: readonly Row[] }> {
  let next: Promise<readonly Row[]> | undefined;
  for (let index = 0; index < requests.length; index++) {
    const rows = await fetchRows(recovery, requests.slice(index), next);
    const following = requests[index + 1];
    next = following === undefined ? undefined : fetchOnce(recovery.database, following);
    next?.catch(() => {}); // thrown where it is awaited, if it ever is
    yield { index, rows };
  }
}

/** The rows of the first of these requests, once it may be had. */
async function fetchRows(
  { database, onWaiting }: Recovery,
  requests: readonly string[],
  started?: Promise<readonly Row[]>,
): Promise<readonly Row[]> {
  const first = requests[0]!;
  for (let fetching = started ?? fetchOnce(database, first); ; ) {
    try {
      return await fetching;
    } catch (error) {
      const waits = error instanceof Failure && error.code === "VL031";
      if (!waits || onWaiting === undefined) throw error;
      await onWaiting(requests);
      fetching = fetchOnce(database, first);
    }
  }
}

const fetchOnce = (database: Database, request: string): Promise<readonly Row[]> =>
  fetchFlushed(database, () => readCommitted(database, FETCH, [request]));

/**
 * Written out by the database in one form, because how it writes bytes and times otherwise is up to the
 * settings of each login.
 */
export const SEALED_COLUMNS = ["sealed", "wrapped", "proof"]
  .map((column) => `pg_catalog.encode(${column}, 'base64') as ${column}`)
  .join(", ");

export const utc = (column: string): string =>
  `pg_catalog.to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

/** A row for each data key with all that it seals, so that a wrapped key comes once and not with each token. */
const FETCH = `select data_key::text, generation,
    pg_catalog.encode(wrapped, 'base64') as wrapped, pg_catalog.encode(proof, 'base64') as proof,
    pg_catalog.string_agg(
      token || ' ' || ${utc("sealed_at")} || ' ' || pg_catalog.encode(sealed, 'base64'), ','
    ) as seals
  from pii_vault.fetch_reveal($1::uuid)
  group by data_key, generation, wrapped, proof`;

/**
 * By token: null where it does not open, absent where the vault does not hold it. It is for the caller to look up
 * only what was asked for, whatever the database has answered.
 */
async function openRows(
  opener: Opener,
  rows: readonly Row[],
): Promise<Map<string, Revealed | null>> {
  const found = new Map<string, Revealed | null>();
  for (const row of rows) {
    const dataKey = readDataKey(row);
    for (const seal of String(row.seals).split(",")) {
      const [token = "", sealedAt = "", base64 = ""] = seal.split(" ");
      const parts = parseToken(token);
      if (parts === null) continue;
      const sealed = dataKey === null ? null : { dataKey, sealed: fromBase64(base64) };
      const opened = sealed && (await opener.open(sealed, { kind: "original", token }));
      found.set(
        token,
        opened && {
          ...{ token, field: parts.field, original: opened.text },
          ...{ verified: opened.verified, sealedAt },
        },
      );
    }
  }
  return found;
}

/** Null when the row lacks its data key. */
function readDataKey({ data_key, wrapped, proof, generation }: Row): SealedDataKey | null {
  if (typeof wrapped !== "string" || typeof proof !== "string") return null;
  return {
    id: String(data_key),
    generation: Number(generation),
    wrapped: fromBase64(wrapped),
    proof: fromBase64(proof),
  };
}

/** Of a row with `SEALED_COLUMNS`; null when it lacks its data key. */
export function readSealed(row: Row): SealedRow | null {
  const dataKey = readDataKey(row);
  if (dataKey === null || typeof row.sealed !== "string") return null;
  return { dataKey, sealed: fromBase64(row.sealed) };
}

const fromBase64 = (text: string): Uint8Array => Buffer.from(text, "base64");

/**
 * Before PostgreSQL 17 nobody can ask for a flush, and on a quiet server the last few bytes of the log may
 * wait for one a long time: a commit of ours that writes brings it.
 */
export async function fetchFlushed<T>(database: Database, fetch: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await fetch();
    } catch (error) {
      if (!(error instanceof Failure && error.code === "VL004") || attempt === 5) throw error;
      await database.query("select pg_catalog.pg_logical_emit_message(true, 'veil', '')");
    }
  }
}
