// A request for originals: recorded and committed before anything of it is handed out. The database
// charges the login's budget and decides by its policy; a request that it refuses is on record too.
import type { OpeningKeys } from "../keys/open.ts";
import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { array } from "../postgres/values.ts";

/** What a request says for itself. */
export type Grounds = {
  readonly reason: string | null;
  readonly purpose: string | null;
  /** Without the approval that it would need. It is reviewed afterwards. */
  readonly breakGlass: boolean;
};

export type Recovery = {
  readonly database: Database;
  readonly keys: OpeningKeys;
  readonly grounds: Grounds;
  /** Called when every request is on record, and before anything is fetched. */
  readonly onRecorded?: () => Promise<void>;
  /**
   * Called where a request waits for approval, with that one and those that are fetched after it.
   * Answers when the first of them does not wait any more, or throws.
   */
  readonly onWaiting?: (requests: readonly string[]) => Promise<void>;
  readonly onProgress?: (step: "recorded" | "revealed", done: number) => void;
};

/** As many as a request may have: the fewer requests, the fewer flushes. */
export const TOKENS_PER_REQUEST = 10_000;

/** A statement of its own, and so a commit: when this answers, the request is on record. */
export async function recordRequest(
  { database, grounds }: Recovery,
  tokens: readonly string[],
): Promise<string> {
  const { reason, purpose, breakGlass } = grounds;
  const text = breakGlass
    ? "select pii_vault.break_glass($1::text[], $2::text, $3::text) as id"
    : "select pii_vault.request_reveal($1::text[], $2::text, $3::text) as id";
  const [row] = await call(database, text, [array(tokens), reason, purpose]);
  return String(row?.id);
}

export type RecordedRequest = { readonly id: string; readonly tokens: readonly string[] };

/** All tokens, in their order, in as few requests as they take. */
export async function recordRequests(
  recovery: Recovery,
  tokens: ReadonlySet<string>,
): Promise<readonly RecordedRequest[]> {
  const all = [...tokens];
  const recorded: RecordedRequest[] = [];
  for (let from = 0; from < all.length; from += TOKENS_PER_REQUEST) {
    const page = all.slice(from, from + TOKENS_PER_REQUEST);
    recorded.push({ id: await recordRequest(recovery, page), tokens: page });
    recovery.onProgress?.("recorded", from + page.length);
  }
  return recorded;
}
