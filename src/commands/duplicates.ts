// `veil duplicates`: the tokens that several users share, most users first. This is what tokens are
// for: nothing is opened, and nothing goes on record.
import { csvLine } from "../terminal/csv.ts";
import { table } from "../terminal/terminal.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export type DuplicatesCommand = {
  readonly top: number;
  readonly field: "ip" | "device_id" | null;
  readonly format: "table" | "json" | "csv";
};

const COLUMNS = ["field", "token", "users", "logins", "first_day", "last_day"] as const;

export async function runDuplicates(context: Context, command: DuplicatesCommand): Promise<void> {
  const { terminal } = context;
  await withDatabase(context, { roles: ["veil_analyst"] }, async ({ database }) => {
    const rows = await database.query(
      `select field, token, users::integer, logins::integer, first_day::text, last_day::text
       from public.user_logins_shared_tokens
       where $1::text is null or field = $1
       order by users desc, logins desc, token
       limit $2`,
      [command.field, command.top],
    );
    const cells = rows.map((row) => COLUMNS.map((column) => String(row[column])));
    if (command.format === "json") {
      // New objects: those of the driver carry more than the columns.
      const objects = rows.map((row) =>
        Object.fromEntries(COLUMNS.map((column) => [column, row[column]])),
      );
      terminal.out(`${JSON.stringify(objects)}\n`);
    } else if (command.format === "csv") {
      // Anything may stand there that somebody has put there.
      terminal.out([COLUMNS, ...cells].map(csvLine).join(""));
    } else if (rows.length === 0) {
      terminal.err("no token is shared by several users\n");
    } else {
      const header = COLUMNS.map((column) => column.replace("_", " ").toUpperCase());
      terminal.out(table(header, cells, terminal.isStdoutTerminal));
    }
  });
}
