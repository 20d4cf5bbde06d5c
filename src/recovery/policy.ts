// What a request for originals has to meet, field by field. The rules live in the database and are enforced
// there (sql/current/policy.sql); here they are read, changed and written out.
import type { Database, Query, Row } from "../postgres/database.ts";

export const POLICY_FIELDS = ["ip", "device_id", "body"] as const;
export type PolicyField = (typeof POLICY_FIELDS)[number];

export type Settings = {
  readonly reasonRequired: boolean;
  /** One of these has to be named; empty: none need be. */
  readonly purposes: readonly string[];
  /** How many tokens (or bodies) a login may ask for; null: as many as it likes. */
  readonly hourly: number | null;
  readonly daily: number | null;
  readonly approval: boolean;
  /** How long a request may wait, or be served where nobody has to approve it. */
  readonly requestSeconds: number;
  /** How long an approval is good for. */
  readonly approvalSeconds: number;
  readonly erasedMayReturn: boolean;
};

export type Policy = Settings & { readonly field: PolicyField };

const COLUMNS = {
  reasonRequired: "reason_required",
  purposes: "purposes",
  hourly: "hourly",
  daily: "daily",
  approval: "approval",
  requestSeconds: "request_seconds",
  approvalSeconds: "approval_seconds",
  erasedMayReturn: "erased_may_return",
} as const satisfies Record<keyof Settings, string>;

const PERMISSIVE: Settings = {
  reasonRequired: false,
  purposes: [],
  hourly: null,
  daily: null,
  approval: false,
  requestSeconds: 900,
  approvalSeconds: 900,
  erasedMayReturn: false,
};

const HOUR = 3600;

const PRODUCTION: Settings = {
  reasonRequired: true,
  purposes: ["fraud", "security", "legal", "user-request"],
  hourly: 50,
  daily: 200,
  approval: true,
  requestSeconds: 8 * HOUR,
  approvalSeconds: HOUR,
  erasedMayReturn: false,
};

/** `permissive` is how a database is born. */
export const PRESETS = {
  permissive: { ip: PERMISSIVE, device_id: PERMISSIVE, body: PERMISSIVE },
  production: {
    ip: PRODUCTION,
    device_id: PRODUCTION,
    // A body has no purposes, and a broken release of an app makes many.
    body: { ...PRODUCTION, purposes: [], hourly: 1000, daily: 5000 },
  },
} as const satisfies Record<string, Record<PolicyField, Settings>>;

export type Preset = keyof typeof PRESETS;

/** In the order of the fields. */
export async function readPolicies(database: Database): Promise<readonly Policy[]> {
  const rows = await database.query(
    "select field, pg_catalog.to_json(p)::text as settings from pii_vault.policies p",
  );
  return rows.map(readPolicy).sort(byField);
}

type OfField = { readonly field: PolicyField };

const byField = (a: OfField, b: OfField): number =>
  POLICY_FIELDS.indexOf(a.field) - POLICY_FIELDS.indexOf(b.field);

export type PolicyChange = OfField & { readonly settings: Partial<Settings> };

/** All of them or none: half a preset is nobody's policy. Every change is in the audit, with what was before. */
export async function changePolicies(
  database: Database,
  changes: readonly PolicyChange[],
  reason: string | null,
): Promise<void> {
  await database.transaction(async (query) => {
    // In one order, so that two at once do not lock each other out.
    for (const change of [...changes].sort(byField)) await changePolicy(query, change, reason);
  });
}

async function changePolicy(
  query: Query,
  { field, settings: changes }: PolicyChange,
  reason: string | null,
): Promise<void> {
  const settings = Object.entries(changes).map(([name, value]) => [
    COLUMNS[name as keyof Settings],
    value,
  ]);
  await query("select pii_vault.set_policy($1::text, $2::text::jsonb, $3::text)", [
    field,
    JSON.stringify(Object.fromEntries(settings)),
    reason,
  ]);
}

function readPolicy(row: Row): Policy {
  const settings = JSON.parse(String(row.settings)) as Record<string, unknown>;
  const named = Object.entries(COLUMNS).map(([name, column]) => [name, settings[column]]);
  return { field: row.field as PolicyField, ...(Object.fromEntries(named) as Settings) };
}

const UNITS = { s: 1, m: 60, h: HOUR, d: 24 * HOUR } as const;

/** As the command line takes it: `15m`, `8h`, `3d`. */
export function formatDuration(seconds: number): string {
  const unit = (["d", "h", "m"] as const).find((name) => seconds % UNITS[name] === 0) ?? "s";
  return `${seconds / UNITS[unit]}${unit}`;
}
