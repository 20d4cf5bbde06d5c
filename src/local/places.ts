// Where the embedded default keeps what it makes: under `.veil/` of the checkout.
import { createHash } from "node:crypto";
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
/** The part of that folder which is this checkout's. */
export const outsideHome = join(
  outside,
  `${basename(checkout)}-${createHash("sha256").update(checkout).digest("hex").slice(0, 12)}`,
);
