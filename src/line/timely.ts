// Messages whose time of sending is far from today are quarantined: such a time is an error of somebody's, and the
// ledger knows no message that is older.
import type { Subkeys } from "../../vault/keys.ts";
import type { ParsedMessage } from "../login/protect.ts";
import type { Database } from "../postgres/database.ts";
import { dayOf } from "./known-originals.ts";
import { loadNothing } from "./load.ts";

/** Nothing that SQS still keeps is older than two weeks: this leaves room for dead-letter queues and wrong clocks. */
const MOST_DAYS_AGO = 35;
const MOST_DAYS_AHEAD = 1;

/** This host's clock only raises a suspicion. The database's decides, so that all hosts agree. */
export async function refuseUntimely<M extends ParsedMessage>(
  part: readonly M[],
  { database, subkeys, loadMs }: { database: Database; subkeys: Subkeys; loadMs: number },
): Promise<readonly M[]> {
  const today = dayOf(new Date());
  if (part.every(({ sentAt }) => whyUntimely(sentAt, today) === null)) return part;
  const answer = await loadNothing(database, subkeys, loadMs);
  return part.map((message) => {
    const reason = whyUntimely(message.sentAt, answer.today);
    return reason === null ? message : { ...message, parsed: { kind: "rejected", reason } };
  });
}

function whyUntimely(sentAt: Date, today: number): string | null {
  const day = dayOf(sentAt);
  if (day < today - MOST_DAYS_AGO) return "sent more than 35 days ago";
  if (day > today + MOST_DAYS_AHEAD)
    return "sent later than tomorrow, by the time that the queue gives";
  return null;
}
