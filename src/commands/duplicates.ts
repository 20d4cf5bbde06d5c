// `veil duplicates`: the tokens that several users share, most users first. What tokens are for: nothing is
// opened, nothing put on record.
import * as config from "../config/config.ts";
import { openDatabase } from "../postgres/database.ts";
import { requireSchema } from "../postgres/schema.ts";
import { csvLine } from "../terminal/csv.ts";
import { table } from "../terminal/terminal.ts";
import { type Context, withSession } from "./session.ts";

export type DuplicatesCommand = {
  readonly top: number;
  readonly field: "ip" | "device_id" | null;
  readonly format: "table" | "json" | "csv";
};

const COLUMNS = ["field", "token", "users", "logins", "first_day", "last_day"] as const;

export async function runDuplicates(context: Context, command: DuplicatesCommand): Promise<void> {
  const { terminal } = context;
  await withSession(context, { login: "local_analyst", variables: [] }, async ({ env }) => {
    const database = openDatabase(config.database(env));
    try {
      await requireSchema(database);
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
        // As objects of their own: what the driver returns carries more than the columns.
        const objects = rows.map((row) =>
          Object.fromEntries(COLUMNS.map((column) => [column, row[column]])),
        );
        terminal.out(`${JSON.stringify(objects)}\n`);
      } else if (command.format === "csv") {
        // What stands there may be whatever somebody has put there.
        terminal.out([COLUMNS, ...cells].map(csvLine).join(""));
      } else if (rows.length === 0) {
        terminal.err("no token is shared by several users\n");
      } else {
        const header = COLUMNS.map((column) => column.replace("_", " ").toUpperCase());
        terminal.out(table(header, cells, terminal.isStdoutTerminal));
      }
    } finally {
      await database.close();
    }
  });
}
