// Where the embedded default keeps what it makes: under `.veil/` of the checkout.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** Everything; passable for PostgreSQL's own user, so what is secret is one level down. */
export const home = join(checkout, ".veil");
/** Generated keys and passwords, for the checkout's user only. */
export const keys = join(home, "keys");
/** What means something only while servers run. */
export const run = join(home, "run");
