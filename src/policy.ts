// What a request for originals has to meet, field by field. The rules live in the database and are enforced
// there (sql/013); here they are read, changed and written out.
import type { Database, Row } from "./database.ts";

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

/** `permissive` is how a database is born. A body's handling is an operator's work: nobody is waited for. */
export const PRESETS = {
  permissive: { ip: PERMISSIVE, device_id: PERMISSIVE, body: PERMISSIVE },
  production: {
    ip: PRODUCTION,
    device_id: PRODUCTION,
    body: { ...PERMISSIVE, reasonRequired: true, hourly: 1000, daily: 5000 },
  },
} as const satisfies Record<string, Record<PolicyField, Settings>>;

export type Preset = keyof typeof PRESETS;

const SELECTED = `field, to_json(p)::text as settings`;

export async function readPolicies(database: Database): Promise<readonly Policy[]> {
  const rows = await database.query(
    `select ${SELECTED} from pii_vault.policies p
     order by array_position('{ip,device_id,body}'::text[], field)`,
  );
  return rows.map(readPolicy);
}

/** Answers with the policy as it is then. Every change is in the audit, with what was before. */
export async function changePolicy(
  database: Database,
  field: PolicyField,
  changes: Partial<Settings>,
  reason: string | null,
): Promise<Policy> {
  const settings = Object.entries(changes).map(([name, value]) => [
    COLUMNS[name as keyof Settings],
    value,
  ]);
  const [row] = await database.query(
    `select ${SELECTED} from pii_vault.set_policy($1::text, $2::text::jsonb, $3::text) p`,
    [field, JSON.stringify(Object.fromEntries(settings)), reason],
  );
  return readPolicy(row!);
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
