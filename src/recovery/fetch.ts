// What the database serves of recorded requests: sealed originals, with the wrapped data keys that
// open them.
import { hasCode } from "../failure.ts";
import type { SealedDataKey, SealedRow } from "../keys/open.ts";
import { call } from "../postgres/call.ts";
import { APPROVAL_PENDING } from "../postgres/sqlstates.ts";
import { array, base64Text, type Row, utcText } from "../postgres/values.ts";
import type { Recovery } from "./request.ts";

export type SealedOriginal = {
  readonly token: string;
  readonly sealedAt: string;
  /** Null where its data key is missing. */
  readonly row: SealedRow | null;
};

/**
 * A row for each data key with all that it seals: a wrapped key comes once, and not with each
 * token.
 */
const KEY = `data_key::text, generation, ${base64Text("wrapped")} as wrapped,
  ${base64Text("proof")} as proof`;
const SEAL = `' ' || ${utcText("sealed_at")} || ' ' || ${base64Text("sealed")}`;
const FETCH = `select ${KEY}, pg_catalog.string_agg(token || ${SEAL}, ',') as seals
  from pii_vault.fetch_reveal($1::uuid)
  group by data_key, generation, wrapped, proof`;

/**
 * One answer for each request, in their order. While an answer is opened and printed, the database
 * makes the next. Throws where a request is refused.
 */
export async function* fetchOriginals(
  { database, onWaiting }: Recovery,
  requests: readonly string[],
): AsyncGenerator<readonly SealedOriginal[], void> {
  const fetch = (request: string) => call(database, FETCH, [request]);
  let ahead: Promise<readonly Row[]> | undefined;
  for (const [index, request] of requests.entries()) {
    const wait = onWaiting && (() => onWaiting(requests.slice(index)));
    const rows = await whenApproved(() => fetch(request), wait, ahead);
    const next = requests[index + 1];
    ahead = next === undefined ? undefined : fetch(next);
    ahead?.catch(() => {}); // thrown where it is awaited, if it ever is
    yield rows.flatMap(readOriginals);
  }
}

/** A token where it stands: in a login of this day, or in one without a date. */
export type TokenOnDay = { readonly token: string; readonly day: string | null };

/** The days from `first` to before `until`; both null for logins without a date. */
export type Period = { readonly first: string | null; readonly until: string | null };

export type OriginalInPeriod = {
  readonly token: string;
  readonly period: Period;
  /** Null where the vault holds none in this period. */
  readonly sealed: SealedOriginal | null;
};

const FETCH_IN_PERIODS = `select ${KEY},
    ${["first", "until"].map((day) => `pg_catalog.to_char(${day}, 'YYYY-MM-DD') as ${day}`)},
    pg_catalog.string_agg(token || coalesce(${SEAL}, ''), ',') as seals
  from pii_vault.fetch_in_periods($1::uuid, $2::text[], $3::date[])
  group by data_key, generation, wrapped, proof, first, until`;

/**
 * Of tokens of one request: an answer for each token and period that the days lie in. `later` are the requests that
 * are fetched after this one.
 */
export async function fetchInPeriods(
  { database, onWaiting }: Recovery,
  request: string,
  later: readonly string[],
  asked: readonly TokenOnDay[],
): Promise<readonly OriginalInPeriod[]> {
  const tokens = array(asked.map(({ token }) => token));
  const days = array(asked.map(({ day }) => day));
  const rows = await whenApproved(
    () => call(database, FETCH_IN_PERIODS, [request, tokens, days]),
    onWaiting && (() => onWaiting([request, ...later])),
  );
  return rows.flatMap((row) => {
    const day = (value: unknown) => (typeof value === "string" ? value : null);
    const period = { first: day(row.first), until: day(row.until) };
    return readOriginals(row).map((original) => {
      const { token, sealedAt } = original;
      return { token, period, sealed: sealedAt === "" ? null : original };
    });
  });
}

/** What `fetch` answers. Where its request waits for approval: after `wait`, fetched again. */
export async function whenApproved<T>(
  fetch: () => Promise<T>,
  wait: (() => Promise<void>) | undefined,
  started: Promise<T> = fetch(),
): Promise<T> {
  for (let fetching = started; ; fetching = fetch()) {
    try {
      return await fetching;
    } catch (error) {
      if (!hasCode(error, APPROVAL_PENDING) || wait === undefined) throw error;
      await wait();
    }
  }
}

function readOriginals(row: Row): SealedOriginal[] {
  const dataKey = readDataKey(row);
  return String(row.seals)
    .split(",")
    .map((seal) => {
      const [token = "", sealedAt = "", base64 = ""] = seal.split(" ");
      return { token, sealedAt, row: dataKey && { dataKey, sealed: fromBase64(base64) } };
    });
}

/** Columns that `readSealed` reads. */
export const SEALED_COLUMNS = [
  "data_key::text",
  "generation",
  ...["sealed", "wrapped", "proof"].map((column) => `${base64Text(column)} as ${column}`),
].join(", ");

/** Null where the row lacks its data key. */
export function readSealed(row: Row): SealedRow | null {
  const dataKey = readDataKey(row);
  if (dataKey === null || typeof row.sealed !== "string") return null;
  return { dataKey, sealed: fromBase64(row.sealed) };
}

function readDataKey({ data_key, wrapped, proof, generation }: Row): SealedDataKey | null {
  if (typeof wrapped !== "string" || typeof proof !== "string") return null;
  return {
    id: String(data_key),
    generation: Number(generation),
    wrapped: fromBase64(wrapped),
    proof: fromBase64(proof),
  };
}

const fromBase64 = (text: string): Uint8Array => Buffer.from(text, "base64");
