// Recovery of originals: request (recorded and committed) → fetch → open.
import type { Field } from "../vault/canonical.ts";
import { parseToken } from "../vault/token.ts";
import { array, type Database, type Row } from "./database.ts";
import { Failure } from "./failure.ts";
import type { Opener, SealedRow } from "./opener.ts";

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

const TOKENS_PER_REQUEST = 1000;

/** Throws if a request is refused; a token that cannot be revealed is part of the result. */
export async function reveal(
  database: Database,
  opener: Opener,
  tokens: readonly string[],
  reason: string | null,
): Promise<RevealResult> {
  const distinct = [...new Set(tokens)];
  const found = new Map<string, Revealed | null>();
  for (let i = 0; i < distinct.length; i += TOKENS_PER_REQUEST) {
    const chunk = distinct.slice(i, i + TOKENS_PER_REQUEST);
    const [request] = await database.query(
      "select pii_vault.request_reveal($1::text[], $2::text) as id",
      [array(chunk), reason],
    );
    // A statement of its own, and so a commit: from here on the request is on record.
    const rows = await fetchFlushed(database, () =>
      database.query(
        `select token, data_key::text, ${SEALED_COLUMNS}, ${utc("sealed_at")} as sealed_at, generation
         from pii_vault.fetch_reveal($1::uuid)`,
        [String(request?.id)],
      ),
    );
    for (const row of rows) {
      const token = String(row.token);
      // Only what was asked for, whatever the database answers.
      if (chunk.includes(token)) found.set(token, await openOriginal(opener, token, row));
    }
  }
  return {
    revealed: distinct.flatMap((token) => found.get(token) ?? []),
    unknown: distinct.filter((token) => !found.has(token)),
    refused: distinct.filter((token) => found.get(token) === null),
  };
}

async function openOriginal(opener: Opener, token: string, row: Row): Promise<Revealed | null> {
  const parts = parseToken(token);
  const sealed = readSealed(row);
  if (parts === null || sealed === null) return null;
  const opened = await opener.open(sealed, { kind: "original", token });
  if (opened === null) return null;
  return {
    token,
    field: parts.field,
    original: opened.text,
    verified: opened.verified,
    sealedAt: String(row.sealed_at),
  };
}

/**
 * Written out by the database in one form, because how it writes bytes and times otherwise is up to the
 * settings of each login.
 */
export const SEALED_COLUMNS = ["sealed", "wrapped", "proof"]
  .map((column) => `encode(${column}, 'base64') as ${column}`)
  .join(", ");

export const utc = (column: string): string =>
  `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

/** Null when the row lacks its data key. */
export function readSealed(row: Row): SealedRow | null {
  const { data_key, sealed, wrapped, proof, generation } = row;
  if (typeof sealed !== "string" || typeof wrapped !== "string" || typeof proof !== "string") {
    return null;
  }
  return {
    dataKeyId: String(data_key),
    sealed: fromBase64(sealed),
    wrapped: fromBase64(wrapped),
    proof: fromBase64(proof),
    generation: Number(generation),
  };
}

const fromBase64 = (text: string): Uint8Array =>
  Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

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
      await database.query("select pg_logical_emit_message(true, 'veil', '')");
    }
  }
}
