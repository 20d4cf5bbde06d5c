// `veil policy`: the rules of recovery, shown and changed; every change is on record.
import { parseToken } from "../../vault/token.ts";
import { chainAudit } from "../audit/chain.ts";
import { liftTombstones } from "../erasure/forget.ts";
import { misuse } from "../failure.ts";
import {
  changePolicies,
  formatDuration,
  POLICY_FIELDS,
  type Policy,
  type PolicyField,
  type PolicySettings,
  PRESETS,
  type Preset,
  readPolicies,
} from "../recovery/policy.ts";
import { type Terminal, table } from "../terminal/terminal.ts";
import { requireReason } from "./ask.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

const NEEDS = { roles: ["veil_policy"] } as const;

export async function runShowPolicy(context: Context, json: boolean): Promise<void> {
  const policies = await withDatabase(context, NEEDS, ({ database }) => readPolicies(database));
  print(context.terminal, policies, json);
}

export type SetPolicyOptions = {
  readonly preset: Preset | null;
  /** Null: all three. */
  readonly fields: readonly PolicyField[] | null;
  readonly settings: Partial<PolicySettings>;
  readonly reason: string | null;
  readonly json: boolean;
};

export async function runSetPolicy(context: Context, change: SetPolicyOptions): Promise<void> {
  const { preset, settings } = change;
  if (preset === null && Object.keys(settings).length === 0) {
    throw misuse("no setting was given", "--preset production, or single settings: see --help");
  }
  const fields = change.fields ?? POLICY_FIELDS;
  if (fields.includes("body") && (settings.purposes?.length || settings.erasedMayReturn)) {
    throw misuse(
      "a body has neither purposes nor a token that could return",
      "name the fields: --field ip --field device_id",
    );
  }
  const policies = await withDatabase(context, NEEDS, async ({ database }) => {
    const changes = fields.map((field) => ({
      field,
      settings: { ...(preset === null ? {} : PRESETS[preset][field]), ...settings },
    }));
    await changePolicies(database, changes, change.reason);
    await chainAudit(database);
    return await readPolicies(database);
  });
  print(context.terminal, policies, change.json);
}

export async function runLift(
  context: Context,
  tokens: readonly string[],
  options: { readonly reason: string | null; readonly json: boolean },
): Promise<void> {
  const { terminal } = context;
  if (tokens.some((token) => parseToken(token) === null)) {
    throw misuse(
      "one of the arguments is not a token; nothing was lifted",
      "a token is ip1_ or dev1_ and 26 characters of a-z and 2-7",
    );
  }
  const reason = await requireReason(terminal, options.reason, terminal.isStdinTerminal);
  const lifted = await withDatabase(context, NEEDS, async ({ database }) => {
    const count = await liftTombstones(database, tokens, reason);
    await chainAudit(database);
    return count;
  });
  if (options.json) terminal.out(`${JSON.stringify({ lifted })}\n`);
  else terminal.out(`tombstones lifted: ${lifted}; their values may be stored again\n`);
}

function print(terminal: Terminal, policies: readonly Policy[], json: boolean): void {
  if (json) {
    terminal.out(`${JSON.stringify(policies)}\n`);
    return;
  }
  const yes = (is: boolean) => (is ? "yes" : "no");
  const rows: [name: string, show: (policy: Policy) => string][] = [
    ["reason required", (p) => yes(p.reasonRequired)],
    ["purposes", (p) => p.purposes.join(",") || "any"],
    ["an hour, a login", (p) => String(p.hourly ?? "no limit")],
    ["a day, a login", (p) => String(p.daily ?? "no limit")],
    ["somebody approves", (p) => yes(p.approval)],
    ["a request is good for", (p) => formatDuration(p.requestSeconds)],
    ["an approval is good for", (p) => formatDuration(p.approvalSeconds)],
    ["erased may return", (p) => (p.field === "body" ? "-" : yes(p.erasedMayReturn))],
  ];
  const header = ["POLICY", ...policies.map(({ field }) => field.toUpperCase())];
  terminal.out(
    table(
      header,
      rows.map(([name, show]) => [name, ...policies.map(show)]),
      true,
    ),
  );
}
