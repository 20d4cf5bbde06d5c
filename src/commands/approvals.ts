// `veil approvals`, `approve`, `deny` and `review`: a second person's part in a recovery.

import { chainAudit } from "../audit/chain.ts";
import { misuse } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import { isOutage } from "../postgres/errors.ts";
import {
  type Decision,
  decide,
  listOpenRequests,
  type OpenRequest,
} from "../recovery/approvals.ts";
import { type Alarm, recentAlarms } from "../recovery/canaries.ts";
import { printable, type Terminal, table } from "../terminal/terminal.ts";
import { requireReason } from "./ask.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

const NEEDS = { roles: ["veil_approver"] } as const;

/** Behind a pooler no notification arrives: then the database is asked this often. */
const ASK_MS = 10_000;

export async function runApprovals(
  context: Context,
  options: { readonly follow: boolean; readonly json: boolean },
): Promise<void> {
  const { terminal } = context;
  if (options.follow) {
    await withDatabase(context, { ...NEEDS, endsItself: true }, ({ database }) =>
      follow(context, database, options.json),
    );
    return;
  }
  const requests = await withDatabase(context, NEEDS, ({ database }) => listOpenRequests(database));
  if (options.json) terminal.out(`${JSON.stringify(requests)}\n`);
  else if (requests.length === 0) terminal.err("no request waits for approval or review\n");
  else terminal.out(table(HEADER, requests.map(asRow), terminal.isStdoutTerminal));
}

/** Prints each request and each alarm when it comes, until the command is interrupted. */
async function follow(
  { terminal, interrupt }: Context,
  database: Database,
  json: boolean,
): Promise<void> {
  let wake = () => {};
  // Listening only saves time: where it fails, asking does all.
  const listening = ["veil_approvals", "veil_audit"].map((channel) =>
    database.listen(channel, () => wake()).catch(() => () => {}),
  );
  interrupt.addEventListener("abort", () => wake(), { once: true });
  let known = new Set<string>();
  let isAway = false;
  terminal.err("waiting for requests; Ctrl-C ends this\n");
  try {
    while (!interrupt.aborted) {
      const told = new Promise<void>((resolve) => {
        wake = resolve;
      });
      try {
        const requests = await listOpenRequests(database);
        const alarms = await recentAlarms(database);
        for (const request of requests) {
          if (!known.has(request.request)) show(terminal, request, json);
        }
        for (const alarm of alarms) {
          if (!known.has(alarm.entry)) sound(terminal, alarm, json);
        }
        known = new Set([
          ...requests.map(({ request }) => request),
          ...alarms.map(({ entry }) => entry),
        ]);
        isAway = false;
      } catch (error) {
        if (!isOutage(error)) throw error;
        if (!isAway) terminal.err(`warning: ${error.message}; trying again\n`);
        isAway = true;
      }
      await Promise.race([told, sleep(ASK_MS, interrupt)]);
    }
  } finally {
    for (const stop of await Promise.all(listening)) stop();
  }
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

const HEADER = ["REQUEST", "WAITS FOR", "LOGIN", "RECORDED AT", "EXPIRES AT", "WHAT", "WHY"];

const what = ({ kind, items, subjects }: OpenRequest): string => {
  const more = items > 1 ? ` and ${items - 1} more` : "";
  return `${kind === "reveal" ? "" : `${kind} `}${subjects[0] ?? "-"}${more}`;
};

const why = ({ purpose, reason }: OpenRequest): string =>
  [purpose, reason].filter((text) => text !== null).join(": ") || "-";

const asRow = (request: OpenRequest): string[] => [
  request.request,
  request.waitsFor,
  request.login,
  request.recordedAt,
  request.expiresAt ?? "-",
  what(request),
  why(request),
];

function show(terminal: Terminal, request: OpenRequest, json: boolean): void {
  if (json) terminal.out(`${JSON.stringify(request)}\n`);
  else terminal.out(`${asRow(request).map(printable).join("  ")}\n`);
}

function sound(terminal: Terminal, alarm: Alarm, json: boolean): void {
  if (json) terminal.out(`${JSON.stringify({ alarm })}\n`);
  else {
    const { entry, login, at, request } = alarm;
    const who = `login ${printable(login)}, ${at}, request ${request}`;
    terminal.out(`ALARM: somebody asked for a canary (${who}, audit entry ${entry})\n`);
  }
}

const DONE: Record<Decision, string> = { approve: "approved", deny: "denied", review: "reviewed" };

export async function runDecide(
  context: Context,
  decision: Decision,
  request: string,
  options: { readonly reason: string | null; readonly json: boolean },
): Promise<void> {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(request)) {
    throw misuse("the argument is not the id of a request", "`veil approvals` lists them");
  }
  const { terminal } = context;
  const reason =
    decision === "review"
      ? await requireReason(terminal, options.reason, terminal.isStdinTerminal)
      : options.reason;
  await withDatabase(context, NEEDS, async ({ database }) => {
    await decide(database, decision, request, reason);
    await chainAudit(database);
  });
  const outcome = DONE[decision];
  if (options.json) terminal.out(`${JSON.stringify({ request, outcome })}\n`);
  else terminal.out(`${request} is ${outcome}\n`);
}
