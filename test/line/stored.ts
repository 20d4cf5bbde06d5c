// What a database holds after a run, as an analyst and a superuser see it; and how a queue stands.
import type postgres from "postgres";
import { useSqs } from "../support/servers.ts";
import type { Run } from "../support/veil.ts";
import type { ExpectedRow } from "./expected.ts";

export type Summary = {
  readonly received: number;
  readonly loaded: number;
  readonly duplicates: number;
  readonly quarantined: number;
  readonly acknowledged: number;
  readonly newOriginals: number;
  readonly inFlight: number;
  readonly seconds: number;
};

/** The one line of `etl --json`. Throws if stdout holds anything else. */
export function summary({ stdout, stderr }: Pick<Run, "stdout" | "stderr">): Summary {
  if (!/^\{[^\n]*\}\n$/.test(stdout)) throw new Error(`expected one line of JSON; ${stderr}`);
  return JSON.parse(stdout) as Summary;
}

/** Stderr without what a run says of a server that let it wait, as on a busy machine any may. */
export const withoutWaits = (stderr: string): string =>
  stderr
    .replace(/^warning: .*; waiting for it, nothing is lost\n/gm, "")
    .replace(/^the (?:queue|database) \w+ again after .*\n/gm, "");

export async function rowsOf(sql: postgres.Sql): Promise<ExpectedRow[]> {
  const rows = await sql<ExpectedRow[]>`
    select user_id, device_type, masked_ip, masked_device_id, locale, app_version,
      create_date::text as create_date
    from public.user_logins`;
  return [...rows];
}

export type Totals = {
  readonly rows: number;
  readonly ledger: number;
  readonly quarantined: number;
  readonly originals: number;
};

export async function totalsOf(sql: postgres.Sql): Promise<Totals> {
  const [totals] = await sql<Totals[]>`
    select
      (select count(*)::integer from public.user_logins) as rows,
      (select count(*)::integer from etl.ledger) as ledger,
      (select count(*)::integer from etl.quarantine) as quarantined,
      (select count(*)::integer from pii_vault.originals) as originals`;
  return { ...totals! };
}

/** As sorted lines, so that two of them compare as multisets. */
export const multiset = (rows: readonly ExpectedRow[]): string[] =>
  rows.map((row) => JSON.stringify(Object.entries(row).sort())).sort();

/** Messages in the queue, whether they wait or are with a consumer. */
export async function remaining(name: string): Promise<number> {
  const queue = (await useSqs()).inspectQueue(name);
  if (queue === undefined) throw new Error(`there is no queue ${name}`);
  const { ready, delayed, inflight } = queue.messages;
  return ready.length + delayed.length + inflight.length;
}

/** What consumers hold is delivered again at once, as if its visibility had ended. */
export async function comeBack(name: string): Promise<void> {
  const server = await useSqs();
  const queue = server.inspectQueue(name);
  for (const { receiptHandle } of queue?.messages.inflight ?? []) {
    const answer = await fetch(server.address, {
      method: "POST",
      headers: {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": "AmazonSQS.ChangeMessageVisibility",
      },
      body: JSON.stringify({
        QueueUrl: queue?.url,
        ReceiptHandle: receiptHandle,
        VisibilityTimeout: 0,
      }),
    });
    if (!answer.ok) throw new Error(`the visibility could not be changed: ${answer.status}`);
  }
}

/** Far beyond what anything here takes on a slow machine: what is not there by then never comes. */
const LONGEST_WAIT_MS = 240_000;

/** Waits for something that another process brings about; throws if it never does. */
export async function until(holds: () => Promise<boolean> | boolean): Promise<void> {
  for (const start = Date.now(); Date.now() - start < LONGEST_WAIT_MS; await Bun.sleep(25)) {
    if (await holds()) return;
  }
  throw new Error("what was waited for did not happen");
}
