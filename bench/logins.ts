// Made-up logins, by number: the same number gives the same body, in every run and program.

/**
 * `new`: no two of them share an address or a device. `scattered`: the same, and their users come in no order.
 * `repeating`: those of 2,000 devices, in turn.
 */
export type LoginKind = "new" | "scattered" | "repeating";

export const REPEATING_DEVICES = 2000;

const VERSIONS = ["2.3.0", "2.3.1", "2.10.0", "3.0.12"];
const DEVICE_TYPES = ["android", "ios"];
const LOCALES = ["en_US", "de_DE", null, "pt_BR", "fr_FR"];

/** What a producer sends; `user` replaces the made-up user id. */
export function loginBody(kind: LoginKind, n: number, user?: string): string {
  // Repeating: a stride that has no factor in common with 2,000 visits every device, in a mixed order.
  const who = kind === "repeating" ? (n * 733) % REPEATING_DEVICES : n;
  return JSON.stringify({
    user_id: user ?? userOf(kind, who),
    app_version: VERSIONS[n % VERSIONS.length],
    device_type: DEVICE_TYPES[who % DEVICE_TYPES.length],
    ip: address(who),
    locale: LOCALES[who % LOCALES.length],
    device_id: device(who),
  });
}

/** Scattered: what an index on users sees of users whose ids are random. */
function userOf(kind: LoginKind, who: number): string {
  const begin =
    kind === "scattered" ? hexadecimal(Math.imul(who, 0x85ebca6b) >>> 0, 8) : "424cdd21";
  return `${begin}-063a-43a7-b91b-${hexadecimal(who, 12)}`;
}

const hexadecimal = (value: number, digits: number) => value.toString(16).padStart(digits, "0");

/** One to one up to 2³², because the factor is odd. */
function address(who: number): string {
  const bits = Math.imul(who, 0x9e3779b1) >>> 0;
  return `${bits >>> 24}.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`;
}

/** `593-47-5928`: nine digits, one to one up to 10⁹, because the factor is a multiple of neither 2 nor 5. */
function device(who: number): string {
  const digits = String((who * 4_803_399) % 1_000_000_000).padStart(9, "0");
  return `${digits.slice(0, 3)}-${digits.slice(3, 5)}-${digits.slice(5)}`;
}
