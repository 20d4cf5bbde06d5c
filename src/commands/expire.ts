// `veil expire`: counts what would go, asks, erases step by step, and prints what was done however
// it ends.

import { chainAudit } from "../audit/chain.ts";
import { type Expired, type Expiry, expire, roughCount } from "../erasure/expire.ts";
import { Interrupted } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import { Progress, plural, type Terminal, table } from "../terminal/terminal.ts";
import { confirm, isAtTerminal, requireReason } from "./ask.ts";
import { DRY_RUN, withPatience } from "./erasing.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export type ExpireCommand = Pick<Expiry, "olderThanDays"> & {
  readonly reason: string | null;
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly json: boolean;
};

export async function runExpire(context: Context, command: ExpireCommand): Promise<void> {
  const { terminal, interrupt } = context;
  const { olderThanDays, dryRun, json } = command;
  const mayAsk = isAtTerminal(terminal);
  const { interruptible, uninterrupted } = withPatience(context, WAITING);
  await withDatabase(interruptible, { roles: ["veil_eraser"] }, async ({ database }) => {
    const reason = dryRun ? "a dry run" : await requireReason(terminal, command.reason, mayAsk);
    if (mayAsk && !command.yes && !dryRun) {
      await confirmCounts(database, terminal, { olderThanDays, reason, interrupt });
    }
    await uninterrupted(async () => {
      let done: Expired | null = null;
      let complete = false;
      try {
        const expiry = { olderThanDays, reason, dryRun, interrupt };
        await withProgress(database, terminal, expiry, (step) => {
          done = step;
        });
        complete = true;
      } catch (error) {
        if (error instanceof Interrupted) terminal.err(dryRun ? PARTLY : AGAIN);
        throw error;
      } finally {
        if (dryRun) terminal.err(DRY_RUN);
        else await chainAudit(database);
        // What was done is printed, also where a later step failed.
        if (done !== null) {
          if (json) terminal.out(`${JSON.stringify({ ...(done as Expired), dryRun, complete })}\n`);
          else terminal.out(countsTable(done, terminal.isStdoutTerminal));
        }
      }
    });
  });
}

const WAITING = "\nwaiting for the end of this step; Ctrl-C again does not wait\n";

const AGAIN = "interrupted: what was done so far stays done; run it again, and it goes on\n";

const PARTLY = "interrupted: not everything is counted\n";

async function withProgress(
  database: Database,
  terminal: Terminal,
  expiry: Expiry,
  onStep: (done: Expired) => void,
): Promise<Expired> {
  const progress = new Progress(terminal, await roughCount(database));
  try {
    return await expire(database, expiry, (done) => {
      onStep(done);
      progress.show(done.looked, `${done.erased.ip + done.erased.device_id} expired`);
    });
  } finally {
    progress.clear();
  }
}

async function confirmCounts(
  database: Database,
  terminal: Terminal,
  expiry: Omit<Expiry, "dryRun">,
): Promise<void> {
  const plan = await withProgress(database, terminal, { ...expiry, dryRun: true }, () => {});
  const tokens = plan.erased.ip + plan.erased.device_id;
  const bodies = plan.bodies.discarded;
  terminal.err(countsTable(plan, true));
  if (tokens + bodies === 0) return;
  const what = `${plural(tokens, "original")} that no login has had for ${plural(expiry.olderThanDays, "day")}`;
  await confirm(
    terminal,
    `${what} would go, and ${bodies} of the quarantine's bodies; type yes to erase: `,
  );
}

function countsTable(done: Expired, withHeader: boolean): string {
  const { erased, held, bodies, entries, looked } = done;
  const rows: [string, number][] = [
    ["originals looked at", looked],
    ["ip expired", erased.ip],
    ["device_id expired", erased.device_id],
    ["bodies discarded", bodies.discarded],
    ["left alone, under a legal hold", held + bodies.held],
    ["entries in the audit", entries.length],
  ];
  return table(
    ["WHAT", "HOW MANY"],
    rows.map(([what, n]) => [what, String(n)]),
    withHeader,
  );
}
