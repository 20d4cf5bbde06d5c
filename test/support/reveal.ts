// For a few tokens, all at once: what a command prints page by page.
import type { OpeningKeys } from "../../src/keys/open.ts";
import type { Database } from "../../src/postgres/database.ts";
import { type RevealedPage, revealTokens } from "../../src/recovery/reveal.ts";

/** Throws if a request is refused. */
export async function reveal(
  database: Database,
  keys: OpeningKeys,
  tokens: readonly string[],
  reason: string | null,
): Promise<RevealedPage> {
  const grounds = { reason, purpose: null, breakGlass: false };
  const pages: RevealedPage[] = [];
  for await (const page of revealTokens({ database, keys, grounds }, new Set(tokens))) {
    pages.push(page);
  }
  return {
    revealed: pages.flatMap(({ revealed }) => revealed),
    unknown: pages.flatMap(({ unknown }) => unknown),
    unopened: pages.flatMap(({ unopened }) => unopened),
  };
}
