// A second person's part: requests that wait for approval, or were served without it and wait for
// review; the decision; and waiting for it.
import type { Database } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";
import { type Row, utcText } from "../postgres/values.ts";

export type OpenRequest = {
  readonly request: string;
  /** `review`: it was made by break-glass, and has been served. */
  readonly waitsFor: "approval" | "review";
  readonly login: string;
  readonly recordedAt: string;
  /** Null where nothing expires. */
  readonly expiresAt: string | null;
  readonly kind: "reveal" | "show" | "replay";
  readonly items: number;
  /** Tokens, or ids of messages. */
  readonly subjects: readonly string[];
  readonly purpose: string | null;
  readonly reason: string | null;
};

/** The oldest first. */
export async function listOpenRequests(database: Database): Promise<readonly OpenRequest[]> {
  const rows = await database.query(
    `select request::text, 'approval' as waits_for, login, ${utcText("recorded_at")} as recorded,
       ${utcText("expires_at")} as expires, kind, items, purpose, reason, recorded_at,
       pg_catalog.array_to_json(subjects)::text as subjects
     from pii_vault.waiting_requests()
     union all
     select request::text, 'review', login, ${utcText("recorded_at")}, null, kind, items, purpose, reason,
       recorded_at, pg_catalog.array_to_json(subjects)::text
     from pii_vault.unreviewed_requests()
     order by recorded_at, request`,
  );
  return rows.map(readRequest);
}

const textOrNull = (value: unknown): string | null => (value === null ? null : String(value));

function readRequest(row: Row): OpenRequest {
  return {
    request: String(row.request),
    waitsFor: row.waits_for as OpenRequest["waitsFor"],
    login: String(row.login),
    recordedAt: String(row.recorded),
    expiresAt: textOrNull(row.expires),
    kind: row.kind as OpenRequest["kind"],
    items: Number(row.items),
    subjects: JSON.parse(String(row.subjects)),
    purpose: textOrNull(row.purpose),
    reason: textOrNull(row.reason),
  };
}

export type Decision = "approve" | "deny" | "review";

/** Throws if the request is the caller's own, has been decided, or does not wait for this. */
export async function decide(
  database: Database,
  decision: Decision,
  request: string,
  reason: string | null,
): Promise<void> {
  if (decision === "review") {
    await database.query("select pii_vault.review($1::uuid, $2::text)", [request, reason]);
  } else {
    await database.query("select pii_vault.decide($1::uuid, $2::boolean, $3::text)", [
      request,
      decision === "approve",
      reason,
    ]);
  }
}

/**
 * Asking works through any pooler. Where the database's notifications arrive, the answer comes at
 * once.
 */
const POLL_MS = 2000;

/**
 * Answers when the request does not wait any more; fetching it says what was decided. A database
 * that goes away meanwhile is waited for, too.
 */
export async function awaitDecision(
  database: Database,
  request: string,
  pollMs = POLL_MS,
): Promise<void> {
  let wake = () => {};
  const stop = await database
    .listen("veil_verdicts", (decided) => {
      if (decided === request) wake();
    })
    .catch(() => () => {});
  try {
    for (;;) {
      // Made before the question, so that a decision between the answer and the wait is not missed.
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      if ((await stateOf(database, request)) !== "waiting") return;
      let timer: ReturnType<typeof setTimeout> | undefined;
      const polled = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, pollMs);
      });
      await Promise.race([woken, polled]);
      clearTimeout(timer);
    }
  } finally {
    stop();
  }
}

async function stateOf(database: Database, request: string): Promise<string> {
  try {
    const [row] = await database.query("select pii_vault.request_state($1::uuid) as state", [
      request,
    ]);
    return String(row?.state);
  } catch (error) {
    if (!isOutage(error)) throw error;
    return "waiting";
  }
}
