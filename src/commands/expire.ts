// `veil expire`: shows what would go, asks, expires period by period, and prints what was done
// however it ends.

import { chainAudit } from "../audit/chain.ts";
import { type Expired, type Expiry, expire, type PerTable } from "../erasure/expire.ts";
import { type ChainPlace, placeOf } from "../erasure/forget.ts";
import { Interrupted } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import { Progress, plural, type Terminal, table } from "../terminal/terminal.ts";
import { confirm, isAtTerminal, requireReason } from "./ask.ts";
import { DRY_RUN, withPatience } from "./erasing.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export type ExpireCommand = Pick<Expiry, "olderThanDays" | "withRows" | "dryRun"> & {
  readonly reason: string | null;
  readonly yes: boolean;
  readonly json: boolean;
};

export async function runExpire(context: Context, command: ExpireCommand): Promise<void> {
  const { terminal, interrupt } = context;
  const { olderThanDays, withRows, dryRun } = command;
  const mayAsk = isAtTerminal(terminal);
  const { interruptible, uninterrupted } = withPatience(context, WAITING);
  await withDatabase(interruptible, { roles: ["veil_eraser"] }, async ({ database }) => {
    const reason = dryRun ? "a dry run" : await requireReason(terminal, command.reason, mayAsk);
    const expiry = { olderThanDays, withRows, reason, dryRun, interrupt };
    if (mayAsk && !command.yes && !dryRun) await confirmCounts(database, terminal, expiry);
    await uninterrupted(async () => {
      let done: Expired | null = null;
      let complete = false;
      try {
        done = await withProgress(database, terminal, expiry, (step) => {
          done = step;
        });
        complete = true;
      } catch (error) {
        if (error instanceof Interrupted) terminal.err(dryRun ? PARTLY : AGAIN);
        throw error;
      } finally {
        if (dryRun) terminal.err(DRY_RUN);
        else await chainAudit(database);
        // What was done is printed, also where a later period failed.
        if (done !== null && command.json) {
          const written = await withPlaces(database, done);
          terminal.out(`${JSON.stringify({ ...written, dryRun, complete })}\n`);
        } else if (done !== null) {
          terminal.out(countsTable(done, terminal.isStdoutTerminal));
        }
      }
    });
  });
}

const WAITING = "\nwaiting for the end of this period; Ctrl-C again does not wait\n";

const AGAIN = "interrupted: what was done so far stays done; run it again, and it goes on\n";

const PARTLY = "interrupted: not everything is counted\n";

async function withProgress(
  database: Database,
  terminal: Terminal,
  expiry: Expiry,
  onStep: (done: Expired) => void,
): Promise<Expired> {
  let progress = new Progress(terminal, 0);
  let total = 0;
  try {
    return await expire(database, expiry, (done, looked, of) => {
      onStep(done);
      if (of !== total) progress = new Progress(terminal, of);
      total = of;
      progress.show(
        looked,
        `periods; ${plural(done.originals, "original")}, ${plural(done.rows, "row")}`,
      );
    });
  } finally {
    progress.clear();
  }
}

async function confirmCounts(
  database: Database,
  terminal: Terminal,
  expiry: Expiry,
): Promise<void> {
  const plan = await withProgress(database, terminal, { ...expiry, dryRun: true }, () => {});
  const { originals, rows, bodies, periods } = plan;
  terminal.err(countsTable(plan, true));
  if (periods.length + bodies.discarded === 0) return;
  const what = `${plural(originals, "original")} and ${plural(rows, "row")} of ${plural(periods.length, "period")}`;
  await confirm(
    terminal,
    `${what} would go, and ${bodies.discarded} of the quarantine's bodies; type yes to erase: `,
  );
}

/** With each entry's place in the audit's chain, where it is known. */
async function withPlaces(database: Database, { periods, ...rest }: Expired) {
  const placed: object[] = [];
  for (const { entries, ...period } of periods) {
    const audit: ({ readonly entry: number } & Partial<ChainPlace>)[] = [];
    for (const entry of entries) {
      // It is done and on record, also where this look-up fails.
      audit.push({ entry, ...(await placeOf(database, entry).catch(() => null)) });
    }
    placed.push({ ...period, audit });
  }
  return { ...rest, periods: placed };
}

function countsTable(done: Expired, withHeader: boolean): string {
  const { periods, bodies } = done;
  const line = (
    name: string,
    {
      originals,
      rows,
      held,
      bytes,
    }: PerTable & { readonly held: PerTable; readonly bytes: number },
  ) => [
    name,
    ...[originals, rows, held.originals, held.rows].map(String),
    `${(bytes / 2 ** 20).toFixed(1)} MiB`,
  ];
  const counts = table(
    ["PERIOD", "ORIGINALS", "ROWS", "ORIGINALS KEPT", "ROWS KEPT", "ON DISK"],
    [
      ...periods.map((period) => line(`${period.first} to before ${period.until}`, period)),
      line("all", done),
    ],
    withHeader,
  );
  const entries = periods.reduce((sum, period) => sum + period.entries.length, 0);
  return (
    `${counts}bodies discarded: ${bodies.discarded}, left alone because of a hold: ${bodies.held}\n` +
    `entries in the audit: ${entries}\n`
  );
}
