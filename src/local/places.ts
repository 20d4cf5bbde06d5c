// Where the embedded default keeps what it makes: under `.veil/` of the checkout.
import { chmodSync, mkdirSync, mkdtempSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** PostgreSQL's own user may pass through here, so secrets stand one level below. */
export const home = join(checkout, ".veil");
/** Generated keys and passwords, for the checkout's user only. */
export const keys = join(home, "keys");
/** Files that mean something only while servers run. */
export const run = join(home, "run");
/**
 * Where we are root: a folder that PostgreSQL's own user can enter, also where it cannot enter the
 * checkout.
 */
export const outside = "/var/lib/veil-local";

/**
 * A new part of that folder, for this checkout. Not one that its path names: what a checkout left that was here
 * before, or was moved away, is not this one's.
 */
export function makeOutsideHome(): string {
  mkdirSync(outside, { recursive: true, mode: 0o755 });
  const folder = mkdtempSync(join(outside, `${basename(checkout)}-`));
  chmodSync(folder, 0o755);
  return folder;
}
