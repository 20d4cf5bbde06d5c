// Waiting for somebody else's verdict on a request. The database is asked every two seconds, which works
// through any pooler; where its notifications arrive, the answer comes at once.
import type { Database } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";

const POLL_MS = 2000;

/**
 * Answers when the request does not wait any more: what became of it, its fetch says. A database that goes away
 * meanwhile is waited for, too.
 */
export async function awaitVerdict(
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
      // Before the question: a verdict between the answer and the wait is not missed.
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
