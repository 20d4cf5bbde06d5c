// The logins of the local database, each with what a command needs and no more.

export const LOGINS = {
  local_etl: ["veil_etl"],
  local_analyst: ["veil_analyst"],
  local_revealer: ["veil_revealer"],
  local_investigator: ["veil_revealer", "veil_analyst"],
  local_operator: ["veil_operator"],
  local_auditor: ["veil_auditor"],
  local_policy: ["veil_policy"],
  local_approver: ["veil_approver"],
  local_breakglass: ["veil_breakglass"],
  local_breakglass_investigator: ["veil_breakglass", "veil_analyst"],
  local_eraser: ["veil_eraser"],
} as const;

/** Who made the database. */
export const OWNER = "postgres";

type Login = keyof typeof LOGINS;
export type LocalLogin = Login | typeof OWNER;
export type Role = (typeof LOGINS)[Login][number];

/** The login that holds these roles, and no other; without any, the owner. */
export function loginWith(roles: readonly Role[]): LocalLogin {
  if (roles.length === 0) return OWNER;
  for (const login of Object.keys(LOGINS) as Login[]) {
    const held: readonly Role[] = LOGINS[login];
    if (held.length === roles.length && roles.every((role) => held.includes(role))) return login;
  }
  throw new Error(`no local login holds ${roles.join(" and ")}`);
}
