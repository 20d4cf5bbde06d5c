// `veil keys generate`: four files, each for a host of its own. Secrets go to files of mode 0600, never
// to a terminal.
import { closeSync, existsSync, fchmodSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type AgeKind, generateIdentity } from "../vault/age.ts";
import { deriveSubkeys, formatKey, generateTokenKey } from "../vault/keys.ts";
import { failed } from "./failure.ts";

export const KEY_FILES = ["token.key", "verify.key", "identity.txt", "recipients.txt"] as const;

/** Writes all four or none; refuses if one of them exists. */
export async function writeKeyFiles(folder: string, kind: AgeKind): Promise<readonly string[]> {
  const existing = KEY_FILES.filter((name) => existsSync(join(folder, name)));
  if (existing.length > 0) {
    throw failed(
      `${folder} already holds ${existing.join(", ")}; nothing was written`,
      "a key that is overwritten is lost, and with it what it protects: choose another folder",
    );
  }
  const tokenKey = generateTokenKey();
  const { generation, verify } = deriveSubkeys(tokenKey);
  const { identity, recipient } = await generateIdentity(kind);
  const created = new Date().toISOString().replace(/\.[0-9]+Z$/, "Z");
  const contents: Record<(typeof KEY_FILES)[number], string> = {
    "token.key": `${formatKey(tokenKey)}\n`,
    "verify.key": `${formatKey({ generation, bytes: verify })}\n`,
    // As age-keygen writes it.
    "identity.txt": `# created: ${created}\n# public key: ${recipient}\n${identity}\n`,
    "recipients.txt": `${recipient}\n`,
  };
  const written: string[] = [];
  try {
    if (!existsSync(folder)) mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of KEY_FILES) {
      const path = join(folder, name);
      const file = openSync(path, "wx", 0o600); // throws if it has come into being meanwhile
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
