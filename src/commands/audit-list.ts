// `veil audit list`: who did what, as a table or as JSON.
import { chainAudit } from "../audit/chain.ts";
import { detailsText, formatTime } from "../audit/entries.ts";
import { type AuditFilter, type ListedEntry, listAudit } from "../audit/list.ts";
import { flushed, table } from "../terminal/terminal.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export type AuditListOptions = AuditFilter & { readonly json: boolean };

export async function runAuditList(context: Context, options: AuditListOptions): Promise<void> {
  const { terminal } = context;
  await withDatabase(context, { roles: ["veil_auditor"] }, async ({ database }) => {
    await chainAudit(database);
    let listed = 0;
    if (options.json) terminal.out("[");
    await listAudit(database, options, async (page) => {
      if (options.json) {
        const objects = page.map((entry) => JSON.stringify(asJson(entry)));
        terminal.out(`${listed === 0 ? "" : ","}\n${objects.join(",\n")}`);
      } else {
        terminal.out(table(HEADER, page.map(cells), terminal.isStdoutTerminal && listed === 0));
      }
      listed += page.length;
      // A slow reader is waited for: nothing piles up here.
      await flushed();
    });
    if (options.json) terminal.out(listed === 0 ? "]\n" : "\n]\n");
    else if (listed === 0) terminal.err("the audit holds no such entries\n");
  });
}

const HEADER = [
  "ENTRY",
  "AT",
  "LOGIN",
  "ADDRESS",
  "ACTION",
  "REQUEST",
  "ITEMS",
  "OF",
  "DETAILS",
  "REASON",
];

const cells = (entry: ListedEntry): string[] => {
  const of = [...(entry.tokens ?? []), ...(entry.messageIds ?? [])];
  const role = entry.role === null ? "" : ` as ${entry.role}`;
  return [
    String(entry.id),
    formatTime(entry.at) ?? "",
    `${entry.login}${role}`,
    entry.address ?? "",
    String(entry.action),
    entry.request ?? "",
    String(entry.items),
    of.length === 0 ? "" : of.length === 1 ? String(of[0]) : `${of[0]} +${of.length - 1}`,
    detailsText(entry.details),
    entry.reason ?? "",
  ];
};

const asJson = (entry: ListedEntry) => ({
  ...entry,
  id: Number(entry.id),
  at: formatTime(entry.at),
  position: entry.position === null ? null : Number(entry.position),
  details: entry.details === null ? null : JSON.parse(entry.details),
});
