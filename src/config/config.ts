// The environment → what a command needs of it. The one reader of environment variables. Whatever is
// missing or malformed ends the program here, by name and with what was expected, never with its value.
import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { isIdentity, looksLikeIdentity, recipientKind } from "../../vault/age.ts";
import { type AuditKey, parseAuditKey } from "../../vault/checkpoint.ts";
import { deriveSubkeys, type GenerationKey, parseKey, type Subkeys } from "../../vault/keys.ts";
import { misuse } from "../failure.ts";
import type { DatabaseConfig } from "../postgres/database.ts";
import type { QueueConfig } from "../sqs/queue.ts";
import { DATABASE_URL_EXPECTED, parseDatabaseUrl } from "./database-url.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export const environment = (): Environment => process.env;

type Name =
  | "DATABASE_URL"
  | "VEIL_TOKEN_KEY"
  | "VEIL_RECIPIENTS"
  | "VEIL_IDENTITY"
  | "VEIL_VERIFY_KEY"
  | "VEIL_AUDIT_KEY";

const EXPECTED: Record<Name, string> = {
  DATABASE_URL: DATABASE_URL_EXPECTED,
  VEIL_TOKEN_KEY:
    "expected 32 bytes in base64, or N:base64 for generation N, as `veil keys generate` writes it",
  VEIL_RECIPIENTS:
    "expected age recipients (age1… or age1pq1…), separated by white space or commas",
  VEIL_IDENTITY: "expected age identities (AGE-SECRET-KEY-…), one a line",
  VEIL_VERIFY_KEY: "expected the line that `veil keys generate` writes to verify.key",
  VEIL_AUDIT_KEY:
    "expected the line that `veil keys generate --audit` writes to audit.key, or to verify, to audit.pub",
};

export const isSet = (env: Environment, name: string): boolean =>
  Boolean(env[name]) || Boolean(env[`${name}_FILE`]);

/** The value of NAME, or of the file that NAME_FILE names; null when neither is set. */
function read(env: Environment, name: Name): string | null {
  const file = env[`${name}_FILE`];
  if (env[name] && file) {
    throw misuse(`both ${name} and ${name}_FILE are set`, "unset one of them");
  }
  if (file && SECRET_KEYS.has(name)) requirePrivate(env, name, file);
  const raw = file ? readFile(file, `${name}_FILE`) : env[name];
  if (!raw) return null;
  const lines = raw.split(/\r?\n/).map((line) => line.trim());
  const value = lines.filter((line) => line !== "" && !line.startsWith("#")).join("\n");
  if (value === "") throw misuse(`${name} holds nothing but comments`, EXPECTED[name]);
  return value;
}

const SECRET_KEYS: ReadonlySet<Name> = new Set([
  "VEIL_TOKEN_KEY",
  "VEIL_VERIFY_KEY",
  "VEIL_IDENTITY",
]);

/**
 * Refuses a secret that others of this machine may read. What systemd or a container runtime mounts is
 * exempt: it is 0440, in a directory that keeps the others out.
 */
function requirePrivate(env: Environment, name: Name, file: string): void {
  const mounts = [env.CREDENTIALS_DIRECTORY, "/run/secrets"].filter((folder) => folder);
  if (mounts.some((folder) => resolve(file).startsWith(`${folder}/`))) return;
  if (process.platform === "win32") return; // access there is not in the mode
  let mode: number;
  try {
    mode = statSync(file).mode;
  } catch {
    return; // reading it says why
  }
  if ((mode & 0o077) !== 0) {
    throw misuse(
      `${name}_FILE names a file that others than its owner may use (mode 0${(mode & 0o777).toString(8)})`,
      "chmod 600 it; if it was readable by people who may not have the key, make a new one",
    );
  }
}

function require(env: Environment, name: Name): string {
  const value = read(env, name);
  if (value !== null) return value;
  throw misuse(`${name} is not set`, `${EXPECTED[name]}; or ${name}_FILE with such a file`);
}

function readFile(path: string, name: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw misuse(`${name}: cannot read the file that it names (${code})`, "check path and mode");
  }
}

const malformed = (name: Name) => misuse(`${name} is malformed`, EXPECTED[name]);

function parseKeyVariable(name: Name, text: string): GenerationKey {
  const key = parseKey(text);
  if (key === null) throw malformed(name);
  return key;
}

export const tokenKey = (env: Environment): Subkeys =>
  deriveSubkeys(parseKeyVariable("VEIL_TOKEN_KEY", require(env, "VEIL_TOKEN_KEY")));

export const optionalTokenKey = (env: Environment): Subkeys | null =>
  isSet(env, "VEIL_TOKEN_KEY") ? tokenKey(env) : null;

export function optionalVerifyKey(env: Environment): GenerationKey | null {
  const text = read(env, "VEIL_VERIFY_KEY");
  return text === null ? null : parseKeyVariable("VEIL_VERIFY_KEY", text);
}

export function recipients(env: Environment): readonly string[] {
  const texts = require(env, "VEIL_RECIPIENTS")
    .split(/[\s,]+/)
    .filter((text) => text !== "");
  if (texts.some(looksLikeIdentity)) {
    throw misuse(
      "VEIL_RECIPIENTS holds a private identity: whoever has it opens the whole vault, and the " +
        "machine that writes must not",
      "give the public recipient (age1…, in recipients.txt); take the identity off this machine, and " +
        "make a new one if anybody else can read this configuration",
    );
  }
  const kinds = texts.map(recipientKind);
  if (texts.length === 0 || kinds.includes(null)) throw malformed("VEIL_RECIPIENTS");
  if (new Set(kinds).size > 1) {
    throw misuse(
      "VEIL_RECIPIENTS mixes classic (age1…) and post-quantum (age1pq1…) recipients",
      "a mixture is only as strong as its weaker part: give recipients of one kind",
    );
  }
  return [...new Set(texts)];
}

export const optionalRecipients = (env: Environment): readonly string[] | null =>
  isSet(env, "VEIL_RECIPIENTS") ? recipients(env) : null;

export function identities(env: Environment): readonly string[] {
  const texts = require(env, "VEIL_IDENTITY")
    .split(/[\s,]+/)
    .filter((text) => text !== "");
  if (texts.length === 0 || !texts.every(isIdentity)) throw malformed("VEIL_IDENTITY");
  return texts;
}

/** Either of the two: who verifies needs the public one only, and its file may be anybody's to read. */
export function auditKey(env: Environment): AuditKey {
  const name = "VEIL_AUDIT_KEY";
  const key = parseAuditKey(require(env, name));
  if (key === null) throw malformed(name);
  const file = env[`${name}_FILE`];
  if (file && key.kind === "secret") requirePrivate(env, name, file);
  return key;
}

/** The one that signs. */
export function auditSecretKey(env: Environment): AuditKey {
  const key = auditKey(env);
  if (key.kind === "secret") return key;
  throw misuse(
    "VEIL_AUDIT_KEY is the public key, and a checkpoint is signed with the secret one",
    "give the line of audit.key; `veil keys generate --audit` makes both",
  );
}

const LINE_VARIABLES = ["VEIL_TOKEN_KEY", "VEIL_RECIPIENTS", "DATABASE_URL"] as const;

export type LineVariables = Readonly<Record<(typeof LINE_VARIABLES)[number], string>>;

/** What `etl` runs with, read out of files where they name some. */
export const lineVariables = (env: Environment): LineVariables => ({
  VEIL_TOKEN_KEY: require(env, "VEIL_TOKEN_KEY"),
  VEIL_RECIPIENTS: require(env, "VEIL_RECIPIENTS"),
  DATABASE_URL: require(env, "DATABASE_URL"),
});

/** The environment with these in the place of what it says of them. */
export function withLineVariables(env: Environment, variables: LineVariables): Environment {
  const twins = LINE_VARIABLES.map((name) => [`${name}_FILE`, undefined]);
  return { ...env, ...Object.fromEntries(twins), ...variables };
}

export type KeyVariable = Exclude<Name, "DATABASE_URL">;

const READERS: Record<KeyVariable, (env: Environment) => unknown> = {
  VEIL_TOKEN_KEY: tokenKey,
  VEIL_RECIPIENTS: recipients,
  VEIL_IDENTITY: identities,
  VEIL_VERIFY_KEY: optionalVerifyKey,
  VEIL_AUDIT_KEY: auditKey,
};

/** Throws if one of these variables is set and malformed. */
export function checkSet(env: Environment, names: readonly KeyVariable[]): void {
  for (const name of names) if (isSet(env, name)) READERS[name](env);
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

export function queue(env: Environment): QueueConfig {
  const text = env.QUEUE_URL?.trim();
  if (!text) throw misuse("QUEUE_URL is not set", "expected a queue's URL, or its name");
  const endpoint =
    readEndpoint(env, "AWS_ENDPOINT_URL_SQS") ?? readEndpoint(env, "AWS_ENDPOINT_URL");
  if (!/^https?:\/\//i.test(text)) {
    if (/^[A-Za-z0-9_-]{1,75}(\.fifo)?$/.test(text)) {
      return { queue: text, endpoint, region: null, credentials: null };
    }
    throw misuse("QUEUE_URL is malformed", "expected a queue's URL, or its name");
  }
  if (!URL.canParse(text) || new URL(text).pathname === "/") {
    throw misuse(
      "QUEUE_URL is malformed",
      "expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
    );
  }
  const { hostname, origin } = new URL(text);
  const isAws = /(^|\.)(amazonaws\.com(\.cn)?|api\.aws)$/.test(hostname);
  const named = /^(?:sqs|[\w-]+\.sqs)\.([a-z]{2}(?:-[a-z]+)+-[0-9])\./.exec(hostname)?.[1] ?? null;
  return {
    queue: text,
    // An emulator's URL is its own endpoint. AWS's is not, or the SDK would sign for it regionlessly.
    endpoint: endpoint ?? (isAws ? null : origin),
    // The queue's own region beats a default of the profile; an emulator takes any.
    region: named ?? (env.AWS_REGION || env.AWS_DEFAULT_REGION || isAws ? null : "us-east-1"),
    credentials: null,
  };
}

function readEndpoint(env: Environment, name: string): string | null {
  const text = env[name];
  if (!text) return null;
  if (/^https?:\/\//i.test(text) && URL.canParse(text)) return text;
  throw misuse(`${name} is malformed`, "expected a URL such as http://host:port");
}

export const database = (env: Environment): DatabaseConfig =>
  parseDatabaseUrl(require(env, "DATABASE_URL"), env);
