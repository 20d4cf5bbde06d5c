// Where the embedded default keeps what it makes: under `.veil/` of the checkout.
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** Everything; passable for PostgreSQL's own user, so what is secret is one level down. */
export const home = join(checkout, ".veil");
/** Generated keys and passwords, for the checkout's user only. */
export const keys = join(home, "keys");
/** What means something only while servers run. */
export const run = join(home, "run");
/** Where, if we are root, PostgreSQL's own user can go even if it cannot enter the checkout. */
export const outside = "/var/lib/veil-local";
/** This checkout's part of it. */
export const outsideHome = join(
  outside,
  `${basename(checkout)}-${createHash("sha256").update(checkout).digest("hex").slice(0, 12)}`,
);
