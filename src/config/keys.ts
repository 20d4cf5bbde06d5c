// The keys that the environment names: parsed, and refused where they are not what a command needs.
import { isIdentity, looksLikeIdentity, recipientKind } from "../../vault/age.ts";
import { type AuditKey, parseAuditKey } from "../../vault/checkpoint.ts";
import { deriveSubkeys, type GenerationKey, parseKey, type Subkeys } from "../../vault/keys.ts";
import { misuse } from "../failure.ts";
import {
  type Environment,
  isSet,
  malformed,
  readVariable,
  requirePrivate,
  requireVariable,
  type VariableName,
} from "./environment.ts";

export const readTokenKey = (env: Environment): Subkeys =>
  deriveSubkeys(parseGenerationKey("VEIL_TOKEN_KEY", requireVariable(env, "VEIL_TOKEN_KEY")));

/** Null where it is not set. */
export const readOptionalTokenKey = (env: Environment): Subkeys | null =>
  isSet(env, "VEIL_TOKEN_KEY") ? readTokenKey(env) : null;

/** Null where it is not set. */
export function readVerifyKey(env: Environment): GenerationKey | null {
  const text = readVariable(env, "VEIL_VERIFY_KEY");
  return text === null ? null : parseGenerationKey("VEIL_VERIFY_KEY", text);
}

function parseGenerationKey(name: VariableName, text: string): GenerationKey {
  const key = parseKey(text);
  if (key === null) throw malformed(name);
  return key;
}

export function readRecipients(env: Environment): readonly string[] {
  const texts = words(requireVariable(env, "VEIL_RECIPIENTS"));
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

/** Null where they are not set. */
export const readOptionalRecipients = (env: Environment): readonly string[] | null =>
  isSet(env, "VEIL_RECIPIENTS") ? readRecipients(env) : null;

export function readIdentities(env: Environment): readonly string[] {
  const texts = words(requireVariable(env, "VEIL_IDENTITY"));
  if (texts.length === 0 || !texts.every(isIdentity)) throw malformed("VEIL_IDENTITY");
  return texts;
}

const words = (text: string): string[] => text.split(/[\s,]+/).filter((word) => word !== "");

/**
 * The secret key or the public one. Verifying needs only the public key, whose file anybody may
 * read.
 */
export function readAuditKey(env: Environment): AuditKey {
  const name = "VEIL_AUDIT_KEY";
  const key = parseAuditKey(requireVariable(env, name));
  if (key === null) throw malformed(name);
  const file = env[`${name}_FILE`];
  if (file && key.kind === "secret") requirePrivate(env, name, file);
  return key;
}

/** The key that signs. */
export function readAuditSecretKey(env: Environment): AuditKey {
  const key = readAuditKey(env);
  if (key.kind === "secret") return key;
  throw misuse(
    "VEIL_AUDIT_KEY is the public key, and a checkpoint is signed with the secret one",
    "give the line of audit.key; `veil keys generate --audit` makes both",
  );
}

export type KeyVariable = Exclude<VariableName, "DATABASE_URL">;

const READERS: Record<KeyVariable, (env: Environment) => unknown> = {
  VEIL_TOKEN_KEY: readTokenKey,
  VEIL_RECIPIENTS: readRecipients,
  VEIL_IDENTITY: readIdentities,
  VEIL_VERIFY_KEY: readVerifyKey,
  VEIL_AUDIT_KEY: readAuditKey,
};

/** Throws if one of these variables is set and malformed. */
export function checkKeys(env: Environment, names: readonly KeyVariable[]): void {
  for (const name of names) if (isSet(env, name)) READERS[name](env);
}
