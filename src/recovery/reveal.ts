// Tokens → originals: request → fetch → open. Everything that a command asks for is on record
// before the first original is fetched, and only a request's worth of originals is held at a time.
import type { Field } from "../../vault/canonical.ts";
import { parseToken } from "../../vault/token.ts";
import type { OpeningKeys } from "../keys/open.ts";
import { fetchOriginals, type SealedOriginal } from "./fetch.ts";
import { type Recovery, recordRequests } from "./request.ts";

export type Revealed = {
  readonly token: string;
  readonly field: Field;
  readonly original: string;
  readonly verified: true | null;
  readonly sealedAt: string;
};

export type RevealedPage = {
  /** In the order in which the tokens were first asked for. */
  readonly revealed: readonly Revealed[];
  /** Tokens that the vault does not hold. */
  readonly unknown: readonly string[];
  /** Tokens that do not open: altered, forged, or sealed for another identity. */
  readonly unopened: readonly string[];
};

/**
 * A page for each request, in the order of the set. Throws where a request is refused; a token that
 * cannot be revealed is part of the answer.
 */
export async function* revealTokens(
  recovery: Recovery,
  tokens: ReadonlySet<string>,
): AsyncGenerator<RevealedPage> {
  const requests = await recordRequests(recovery, tokens);
  await recovery.onRecorded?.();
  const answers = fetchOriginals(
    recovery,
    requests.map(({ id }) => id),
  );
  let revealed = 0;
  for (const { tokens: asked } of requests) {
    const { value: sealed = [] } = await answers.next();
    const opened = await openOriginals(recovery.keys, sealed);
    revealed += asked.length;
    recovery.onProgress?.("revealed", revealed);
    // Only what was asked for, whatever the database has answered.
    yield pageOf(asked, opened);
  }
}

/** Of requests that were recorded before: a page for each, in the order of the tokens' letters. */
export async function* revealRequests(
  recovery: Recovery,
  requests: readonly string[],
): AsyncGenerator<RevealedPage> {
  for await (const sealed of fetchOriginals(recovery, requests)) {
    const opened = await openOriginals(recovery.keys, sealed);
    yield pageOf([...opened.keys()].sort(), opened);
  }
}

const pageOf = (asked: readonly string[], opened: OpenedOriginals): RevealedPage => ({
  revealed: asked.flatMap((token) => opened.get(token) ?? []),
  unknown: asked.filter((token) => !opened.has(token)),
  unopened: asked.filter((token) => opened.get(token) === null),
});

/** By token: null where it does not open, absent where the vault does not hold it. */
type OpenedOriginals = ReadonlyMap<string, Revealed | null>;

async function openOriginals(
  keys: OpeningKeys,
  sealed: readonly SealedOriginal[],
): Promise<OpenedOriginals> {
  const originals = new Map<string, Revealed | null>();
  for (const one of sealed) {
    if (parseToken(one.token) !== null) originals.set(one.token, await openOriginal(keys, one));
  }
  return originals;
}

/** Null where it does not open. */
export async function openOriginal(
  keys: OpeningKeys,
  { token, sealedAt, row }: SealedOriginal,
): Promise<Revealed | null> {
  const parts = parseToken(token);
  const opened = parts && row && (await keys.open(row, { kind: "original", token }));
  if (!opened) return null;
  const { text: original, verified } = opened;
  return { token, field: parts.field, original, verified, sealedAt };
}
