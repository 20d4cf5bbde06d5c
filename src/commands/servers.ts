// The servers that a command works with: those that the environment names, or the embedded
// default's. The latter are left again however the command ends.

import { type Environment, isSet, wantsEmbedded } from "../config/environment.ts";
import { checkKeys, type KeyVariable } from "../config/keys.ts";
import { Interrupted, misuse } from "../failure.ts";
import type { LineWaits } from "../line/waits.ts";
import type { Local } from "../local/local.ts";
import type { Role } from "../local/logins.ts";
import type { StartWaits } from "../postgres/schema.ts";
import type { QueueWaits } from "../sqs/client.ts";
import type { Terminal } from "../terminal/terminal.ts";

export type Servers = {
  readonly env: Environment;
  readonly terminal: Terminal;
  /** The embedded default, where the command runs on that. */
  readonly local: Pick<Local, "queue" | "analystUrl"> | null;
  /** How this program is called here, for hints. */
  readonly program: string;
};

/** How long a run of `etl` waits for what does not answer. */
export type Waits = LineWaits & QueueWaits & StartWaits;

/** What every command is given. */
export type Context = {
  readonly env: Environment;
  readonly terminal: Terminal;
  /** Aborts at the first Ctrl-C or SIGTERM. */
  readonly interrupt: AbortSignal;
  /** Other than the usual ones: a test does not sit them out. */
  readonly waits?: Partial<Waits>;
};

export type ServerNeeds = {
  /** What the login may do. None: it is the owner. */
  readonly roles: readonly Role[];
  readonly queue?: boolean;
  readonly reset?: boolean;
  /** The command ends by itself, in good order, when it is interrupted. */
  readonly endsItself?: boolean;
  /** The keys that the command reads. */
  readonly variables: readonly KeyVariable[];
};

/** Loaded only where a command runs on it. */
const embedded = () => import("../local/local.ts");

/** How a checkout's commands are called: the runtime came from npm, and is not on the PATH. */
const PROGRAM = "deno" in process.versions ? "deno run -A src/cli.ts" : "npx bun run";

export async function withServers<T>(
  context: Context,
  needs: ServerNeeds,
  work: (servers: Servers) => Promise<T>,
): Promise<T> {
  const { env, terminal, interrupt } = context;
  const interrupted = new Promise<never>((_, reject) => {
    interrupt.addEventListener("abort", () => reject(new Interrupted()), { once: true });
  });
  interrupted.catch(() => {});
  const interruptible = (working: Promise<T>) =>
    needs.endsItself ? working : Promise.race([working, interrupted]);
  if (!wantsEmbedded(env, needs.queue ? "etl" : "other")) {
    if (needs.reset) {
      throw misuse(
        "--reset-local is for the embedded default, but DATABASE_URL is set",
        "unset QUEUE_URL and DATABASE_URL, or leave the option out",
      );
    }
    return await interruptible(work({ env, terminal, local: null, program: "veil" }));
  }
  const { openLocal, requireCheckout } = await embedded();
  requireCheckout(needs.queue ? "QUEUE_URL and DATABASE_URL are" : "DATABASE_URL is");
  // The local keys fill in for what is not set. A key that is set and malformed must not start
  // anything.
  checkKeys(env, needs.variables);
  const local = await openLocal(
    env,
    needs.roles,
    { queue: needs.queue ?? false, reset: needs.reset ?? false },
    (text) => terminal.err(`${text}\n`),
  );
  try {
    return await interruptible(work({ env: local.env, terminal, local, program: PROGRAM }));
  } finally {
    await local.close();
  }
}

/**
 * The environment, with the local keys where no token key is set. `token` needs them, and no
 * server.
 */
export async function withTokenKey(context: Context): Promise<Environment> {
  const { env, terminal } = context;
  if (isSet(env, "VEIL_TOKEN_KEY")) return env;
  const keys = (await embedded()).localKeys();
  if (keys === null) {
    throw misuse(
      "VEIL_TOKEN_KEY is not set, and the embedded default has made no keys yet",
      `set it (or VEIL_TOKEN_KEY_FILE); in a checkout, \`${PROGRAM} etl\` makes local ones`,
    );
  }
  terminal.err("VEIL_TOKEN_KEY is not set: these are tokens of the embedded default (.veil/)\n");
  return { ...env, ...keys };
}
