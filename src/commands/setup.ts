// `veil migrate` and `veil keys generate`: what is done once, before everything else.

import { AUDIT_KEY_FILES, KEY_FILES, writeAuditKeyFiles, writeKeyFiles } from "../keys/files.ts";
import type { Database } from "../postgres/database.ts";
import { type Copied, migrate, type PeriodLength } from "../postgres/migrate.ts";
import { reaching } from "../postgres/schema.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export type MigrateOptions = {
  /** Null leaves it as it is. */
  readonly period: PeriodLength | null;
  readonly json: boolean;
};

export async function runMigrate(
  context: Context,
  { period, json }: MigrateOptions,
): Promise<void> {
  const { terminal } = context;
  // No role is needed, but ownership; and there may be no schema yet whose version could be read.
  const ready = (database: Database) => reaching(() => database.query("select"));
  await withDatabase(context, { roles: [], ready }, async ({ database }) => {
    const migrated = await migrate(database, undefined, period);
    const { to, applied, copied } = migrated;
    if (json) terminal.out(`${JSON.stringify(migrated)}\n`);
    else if (applied.length === 0) {
      terminal.out(`the database is at schema version ${to} already\n`);
    } else {
      terminal.out(`the database is at schema version ${to} now (${applied.join(", ")})\n`);
    }
    if (!json && period !== null) {
      terminal.out(`each period that is yet to be made is a ${period} long\n`);
    }
    if (copied === null) return;
    if (!json)
      terminal.out(`copied from user_logins_before_veil: ${counted(copied.rows, "row")}\n`);
    for (const line of warnings(copied)) terminal.err(line);
  });
}

function warnings({ plainValues, foreignTokens }: Copied): string[] {
  const lines: string[] = [];
  if (plainValues > 0) {
    lines.push(
      `warning: copied as no token: ${counted(plainValues, "value")}, maybe personal data in the clear\n` +
        "hint: docs/connect.md shows how to find them; `veil forget --user` replaces a user's\n",
    );
  }
  if (foreignTokens > 0) {
    lines.push(
      `warning: copied as a token without an original: ${counted(foreignTokens, "value")}\n` +
        "hint: only the vault that they are from can reveal them\n",
    );
  }
  return lines;
}

const counted = (n: number, what: string): string => `${n} ${what}${n === 1 ? "" : "s"}`;

const PURPOSES: Record<(typeof KEY_FILES | typeof AUDIT_KEY_FILES)[number], string> = {
  "token.key": "VEIL_TOKEN_KEY of every etl host; whoever has it can guess IPs from tokens",
  "verify.key": "VEIL_VERIFY_KEY of whoever reveals; makes no token",
  "identity.txt": "VEIL_IDENTITY of whoever reveals, and a copy offline: it opens the vault",
  "recipients.txt": "VEIL_RECIPIENTS of every etl host; public",
  "audit.key": "VEIL_AUDIT_KEY of whoever signs checkpoints; never on the database's host",
  "audit.pub": "VEIL_AUDIT_KEY of whoever verifies them; public",
};

export type GenerateOptions = {
  readonly kind: "classic" | "post-quantum" | "audit";
  readonly json: boolean;
};

export async function runGenerateKeys(
  { terminal }: Context,
  folder: string,
  { kind, json }: GenerateOptions,
): Promise<void> {
  const names = kind === "audit" ? AUDIT_KEY_FILES : KEY_FILES;
  const written =
    kind === "audit" ? await writeAuditKeyFiles(folder) : await writeKeyFiles(folder, kind);
  if (json) {
    terminal.out(`${JSON.stringify({ files: written })}\n`);
    return;
  }
  const width = Math.max(...written.map((path) => path.length));
  for (const [i, path] of written.entries()) {
    terminal.out(`${path.padEnd(width)}  ${PURPOSES[names[i]!]}\n`);
  }
}
