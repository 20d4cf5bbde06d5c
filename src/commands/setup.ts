// `veil migrate` and `veil keys generate`: what is done once, before everything else.

import { AUDIT_KEY_FILES, KEY_FILES, writeAuditKeyFiles, writeKeyFiles } from "../keys/files.ts";
import type { Database } from "../postgres/database.ts";
import { migrate } from "../postgres/migrate.ts";
import { reaching } from "../postgres/schema.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export async function runMigrate(context: Context, json: boolean): Promise<void> {
  const { terminal } = context;
  // No role is needed, but ownership; and there may be no schema yet whose version could be read.
  const ready = (database: Database) => reaching(() => database.query("select"));
  await withDatabase(context, { roles: [], ready }, async ({ database }) => {
    const migrated = await migrate(database);
    if (json) terminal.out(`${JSON.stringify(migrated)}\n`);
    else if (migrated.applied.length === 0) {
      terminal.out(`the database is at schema version ${migrated.to} already\n`);
    } else {
      terminal.out(
        `the database is at schema version ${migrated.to} now (${migrated.applied.join(", ")})\n`,
      );
    }
  });
}

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
