// The age names that veil accepts: native recipients and identities, classic (X25519) or
// post-quantum (ML-KEM-768 with X25519). Plugins and passphrases are not among them: a data key must
// open with the standard `age` tool and a file, in ten years too.
import {
  Decrypter,
  Encrypter,
  generateHybridIdentity,
  generateX25519Identity,
  identityToRecipient,
} from "age-encryption";

export type AgeKind = "classic" | "post-quantum";

/** The kind of a well-formed recipient, its checksum verified; null for any other text. */
export function recipientKind(text: string): AgeKind | null {
  const kind = /^age1pq1/.test(text) ? "post-quantum" : /^age1[^1]+$/.test(text) ? "classic" : null;
  if (kind === null) return null;
  try {
    new Encrypter().addRecipient(text);
    return kind;
  } catch {
    return null;
  }
}

/** Whether this is a well-formed identity, its checksum verified. */
export function isIdentity(text: string): boolean {
  try {
    new Decrypter().addIdentity(text);
    return true;
  } catch {
    return false;
  }
}

/** Whether a text is, or tries to be, a private identity: it may not be repeated in a message. */
export const looksLikeIdentity = (text: string): boolean => /AGE-SECRET-KEY-/i.test(text);

export async function generateIdentity(
  kind: AgeKind,
): Promise<{ readonly identity: string; readonly recipient: string }> {
  const identity =
    kind === "classic" ? await generateX25519Identity() : await generateHybridIdentity();
  return { identity, recipient: await identityToRecipient(identity) };
}

/** The recipients that these identities open for. */
export const identityRecipients = (identities: readonly string[]): Promise<string[]> =>
  Promise.all(identities.map((identity) => identityToRecipient(identity)));
