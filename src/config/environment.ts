// The one reader of environment variables. A variable that is missing or malformed ends the program
// before anything is started. The message names the variable and what was expected, never its
// value.
import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { type Failure, misuse } from "../failure.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export const environment = (): Environment => process.env;

/** Variables that have a twin NAME_FILE, which names a file with the value. */
export type VariableName =
  | "DATABASE_URL"
  | "VEIL_TOKEN_KEY"
  | "VEIL_RECIPIENTS"
  | "VEIL_IDENTITY"
  | "VEIL_VERIFY_KEY"
  | "VEIL_AUDIT_KEY";

const EXPECTED: Record<VariableName, string> = {
  DATABASE_URL: "expected postgres://user:password@host:port/database",
  VEIL_TOKEN_KEY:
    "expected 32 bytes in base64, or N:base64 for generation N, as `veil keys generate` writes it",
  VEIL_RECIPIENTS:
    "expected age recipients (age1… or age1pq1…), separated by white space or commas",
  VEIL_IDENTITY: "expected age identities (AGE-SECRET-KEY-…), one a line",
  VEIL_VERIFY_KEY: "expected the line that `veil keys generate` writes to verify.key",
  VEIL_AUDIT_KEY:
    "expected the line that `veil keys generate --audit` writes to audit.key, or to verify, to audit.pub",
};

const SECRETS: ReadonlySet<VariableName> = new Set([
  "VEIL_TOKEN_KEY",
  "VEIL_VERIFY_KEY",
  "VEIL_IDENTITY",
]);

export const isSet = (env: Environment, name: string): boolean =>
  Boolean(env[name]) || Boolean(env[`${name}_FILE`]);

export const malformed = (name: VariableName): Failure =>
  misuse(`${name} is malformed`, EXPECTED[name]);

/** The value of NAME, or of the file that NAME_FILE names. Null when neither is set. */
export function readVariable(env: Environment, name: VariableName): string | null {
  const file = env[`${name}_FILE`];
  if (env[name] && file) {
    throw misuse(`both ${name} and ${name}_FILE are set`, "unset one of them");
  }
  if (file && SECRETS.has(name)) requirePrivate(env, name, file);
  const raw = file ? readFile(file, `${name}_FILE`) : env[name];
  if (!raw) return null;
  const lines = raw.split(/\r?\n/).map((line) => line.trim());
  const value = lines.filter((line) => line !== "" && !line.startsWith("#")).join("\n");
  if (value === "") throw misuse(`${name} holds nothing but comments`, EXPECTED[name]);
  return value;
}

/** The same, but throws when neither is set. */
export function requireVariable(env: Environment, name: VariableName): string {
  const value = readVariable(env, name);
  if (value !== null) return value;
  throw misuse(`${name} is not set`, `${EXPECTED[name]}; or ${name}_FILE with such a file`);
}

/**
 * Refuses a file with a secret that other users of this machine may read. Files that systemd or a
 * container runtime mounts are exempt: they have mode 0440, in a directory that keeps other users
 * out.
 */
export function requirePrivate(env: Environment, name: VariableName, file: string): void {
  const mounts = [env.CREDENTIALS_DIRECTORY, "/run/secrets"].filter((folder) => folder);
  if (mounts.some((folder) => resolve(file).startsWith(`${folder}/`))) return;
  if (process.platform === "win32") return; // a file's mode does not say who may read it there
  let mode: number;
  try {
    mode = statSync(file).mode;
  } catch {
    return; // reading the file says why
  }
  if ((mode & 0o077) !== 0) {
    throw misuse(
      `${name}_FILE names a file that others than its owner may use (mode 0${(mode & 0o777).toString(8)})`,
      "chmod 600 it; if it was readable by people who may not have the key, make a new one",
    );
  }
}

function readFile(path: string, name: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw misuse(`${name}: cannot read the file that it names (${code})`, "check path and mode");
  }
}

/** Whether neither queue nor database is configured, so that veil brings its own. */
export function wantsEmbedded(env: Environment, command: "etl" | "other"): boolean {
  const database = isSet(env, "DATABASE_URL");
  if (command === "other") return !database;
  const queue = Boolean(env.QUEUE_URL);
  if (queue !== database) {
    throw misuse(
      `${queue ? "QUEUE_URL" : "DATABASE_URL"} is set, but ${queue ? "DATABASE_URL" : "QUEUE_URL"} is not`,
      "set both, or neither for the embedded default of a checkout",
    );
  }
  return !database;
}

const LINE_VARIABLES = ["VEIL_TOKEN_KEY", "VEIL_RECIPIENTS", "DATABASE_URL"] as const;

export type LineVariables = Readonly<Record<(typeof LINE_VARIABLES)[number], string>>;

/**
 * The variables that `etl` runs with, read out of their files. Its workers get them and read no
 * file again.
 */
export const lineVariables = (env: Environment): LineVariables => ({
  VEIL_TOKEN_KEY: requireVariable(env, "VEIL_TOKEN_KEY"),
  VEIL_RECIPIENTS: requireVariable(env, "VEIL_RECIPIENTS"),
  DATABASE_URL: requireVariable(env, "DATABASE_URL"),
});

/** The environment with these values in the place of its own. */
export function withLineVariables(env: Environment, variables: LineVariables): Environment {
  const twins = LINE_VARIABLES.map((name) => [`${name}_FILE`, undefined]);
  return { ...env, ...Object.fromEntries(twins), ...variables };
}
