// Key files, as `veil keys generate` writes them: four, each for another host, or with `--audit`
// the auditor's two. Secrets go to files of mode 0600, never to a terminal.
import {
  closeSync,
  existsSync,
  fchmodSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { type AgeKind, generateIdentity, identityRecipients, isIdentity } from "../../vault/age.ts";
import { formatAuditKey, generateAuditKey, publicKey } from "../../vault/checkpoint.ts";
import { deriveSubkeys, formatKey, generateTokenKey } from "../../vault/keys.ts";
import { failed } from "../failure.ts";

export const KEY_FILES = ["token.key", "verify.key", "identity.txt", "recipients.txt"] as const;

/** Writes all four or none; refuses if one of them exists. */
export async function writeKeyFiles(folder: string, kind: AgeKind): Promise<readonly string[]> {
  requireNone(folder, KEY_FILES);
  const tokenKey = generateTokenKey();
  const { generation, verify } = deriveSubkeys(tokenKey);
  const { identity, recipient } = await generateIdentity(kind);
  const created = new Date().toISOString().replace(/\.[0-9]+Z$/, "Z");
  return writeFiles(folder, KEY_FILES, {
    "token.key": `${formatKey(tokenKey)}\n`,
    "verify.key": `${formatKey({ generation, bytes: verify })}\n`,
    // As age-keygen writes it.
    "identity.txt": `# created: ${created}\n# public key: ${recipient}\n${identity}\n`,
    "recipients.txt": `${recipient}\n`,
  });
}

export const AUDIT_KEY_FILES = ["audit.key", "audit.pub"] as const;

/** Writes both or none; refuses if one of them exists. */
export async function writeAuditKeyFiles(folder: string): Promise<readonly string[]> {
  requireNone(folder, AUDIT_KEY_FILES);
  const key = generateAuditKey();
  return writeFiles(folder, AUDIT_KEY_FILES, {
    "audit.key": `${formatAuditKey(key)}\n`,
    "audit.pub": `${formatAuditKey(await publicKey(key))}\n`,
  });
}

function requireNone(folder: string, names: readonly string[]): void {
  const existing = names.filter((name) => existsSync(join(folder, name)));
  if (existing.length > 0) {
    throw failed(
      `${folder} already holds ${existing.join(", ")}; nothing was written`,
      "a key that is overwritten is lost, and with it what it protects: choose another folder",
    );
  }
}

/** All of them or none, in this order. */
function writeFiles<Name extends string>(
  folder: string,
  names: readonly Name[],
  contents: Readonly<Record<Name, string>>,
): readonly string[] {
  const written: string[] = [];
  try {
    if (!existsSync(folder)) mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of names) {
      const path = join(folder, name);
      const file = openSync(path, "wx", 0o600); // throws if somebody has made it meanwhile
      written.push(path);
      try {
        fchmodSync(file, 0o600); // whatever the umask is
        writeSync(file, contents[name]);
      } finally {
        closeSync(file);
      }
    }
  } catch (error) {
    for (const path of written) rmSync(path, { force: true });
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw failed(`cannot write to ${folder} (${code}); nothing was written`, "check path and mode");
  }
  return written;
}

/**
 * For a folder of our own: makes the files unless they are there. An interrupted run may have left
 * some. Without a whole identity nothing was ever sealed for it, so all files are made anew. With
 * one, only the recipients are written again: they come last, and something may depend on the
 * others.
 */
export async function ensureKeyFiles(folder: string): Promise<void> {
  const recipients = join(folder, "recipients.txt");
  const identity = readIdentity(join(folder, "identity.txt"));
  if (identity === null) {
    for (const name of KEY_FILES) rmSync(join(folder, name), { force: true });
    await writeKeyFiles(folder, "classic");
  } else if (!existsSync(recipients) || statSync(recipients).size === 0) {
    const [recipient] = await identityRecipients([identity]);
    writeFileSync(recipients, `${recipient}\n`, { mode: 0o600 });
  }
}

function readIdentity(file: string): string | null {
  if (!existsSync(file)) return null;
  const line = readFileSync(file, "utf8").trim().split("\n").at(-1) ?? "";
  return isIdentity(line) ? line : null;
}
