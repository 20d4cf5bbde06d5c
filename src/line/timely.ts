// Messages whose time of sending is far from today are quarantined. Such a time is an error of somebody's, and
// rows of a day long past would stand in a period that may have expired.
import type { Subkeys } from "../../vault/keys.ts";
import type { ParsedMessage } from "../login/protect.ts";
import type { Database } from "../postgres/database.ts";
import { dayOf } from "./known-originals.ts";
import { loadNothing } from "./load.ts";

/** SQS keeps a message for two weeks; a dead-letter queue may keep it for two more. */
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
  if (day < today - MOST_DAYS_AGO) return `sent more than ${MOST_DAYS_AGO} days ago`;
  if (day > today + MOST_DAYS_AHEAD)
    return "sent later than tomorrow, by the time that the queue gives";
  return null;
}
