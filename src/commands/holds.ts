// `veil hold`: legal holds, added, released and listed.
import { parseToken } from "../../vault/token.ts";
import { chainAudit } from "../audit/chain.ts";
import {
  addHold,
  type HoldSubject,
  isHoldEmpty,
  listHolds,
  releaseHold,
} from "../erasure/holds.ts";
import { misuse } from "../failure.ts";
import { table } from "../terminal/terminal.ts";
import { requireReason } from "./ask.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

const NEEDS = { roles: ["veil_policy"] } as const;

const EMPTY =
  "warning: neither a row nor the vault has this yet. The hold is for what may come; if it is a " +
  "mistake, `veil hold release` ends it\n";

export type HoldOptions = { readonly reason: string | null; readonly json: boolean };

export async function runAddHold(
  context: Context,
  token: string | null,
  user: string | null,
  options: HoldOptions,
): Promise<void> {
  const { terminal } = context;
  if (token !== null && user !== null) {
    throw misuse("expected a token or --user, not both", "two holds can be added, one of each");
  }
  if (token === null && user === null) throw misuse("expected a token, or --user");
  if (token !== null && (parseToken(token)?.generation ?? 0) === 0) {
    throw misuse(
      "the argument is not a token that stands for an original",
      "a token is ip1_ or dev1_ and 26 characters of a-z and 2-7",
    );
  }
  const held: HoldSubject = token === null ? { user: user! } : { token };
  const reason = await requireReason(terminal, options.reason, terminal.isStdinTerminal);
  const id = await withDatabase(context, NEEDS, async ({ database }) => {
    const added = await addHold(database, held, reason);
    await chainAudit(database);
    // The hold stands, also where this question fails.
    if (await isHoldEmpty(database, added).catch(() => false)) terminal.err(EMPTY);
    return added;
  });
  if (options.json) terminal.out(`${JSON.stringify({ id })}\n`);
  else terminal.out(`${id}\n`);
}

export async function runReleaseHold(
  context: Context,
  id: string,
  options: HoldOptions,
): Promise<void> {
  const { terminal } = context;
  const reason = await requireReason(terminal, options.reason, terminal.isStdinTerminal);
  await withDatabase(context, NEEDS, async ({ database }) => {
    await releaseHold(database, id, reason);
    await chainAudit(database);
  });
  if (options.json) terminal.out(`${JSON.stringify({ released: id })}\n`);
  else terminal.out(`${id} is released\n`);
}

export async function runListHolds(context: Context, all: boolean, json: boolean): Promise<void> {
  const { terminal } = context;
  const holds = await withDatabase(
    context,
    { ...NEEDS, orRoles: ["veil_eraser", "veil_auditor"] },
    ({ database }) => listHolds(database, all),
  );
  if (json) terminal.out(`${JSON.stringify(holds)}\n`);
  else if (holds.length === 0) terminal.err("there is no legal hold\n");
  else {
    const rows = holds.map((hold) => [
      hold.id,
      hold.token ?? `user ${hold.user}`,
      hold.addedBy,
      hold.addedAt,
      hold.releasedAt ?? "",
      hold.reason,
    ]);
    const header = ["HOLD", "OF", "ADDED BY", "ADDED AT", "RELEASED AT", "REASON"];
    terminal.out(table(header, rows, terminal.isStdoutTerminal));
  }
}
