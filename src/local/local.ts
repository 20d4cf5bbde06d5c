// The embedded default: a real PostgreSQL and a real SQS-protocol queue that veil starts itself
// when neither is configured. Everything it makes lives under `.veil/` of the checkout, generated
// keys and passwords too; `bun run etl --reset-local` removes it.
//
// Commands that run at once share the servers, and the last one to leave stops them. The next
// command finds whatever a crash, a kill or a reboot left behind, and uses it or clears it away.
import { accessSync, chmodSync, constants, existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Environment } from "../config/environment.ts";
import type { QueueConfig } from "../config/queue-url.ts";
import { failed, misuse } from "../failure.ts";
import { ensureKeyFiles } from "../keys/files.ts";
import { type Lease, openLease } from "./lease.ts";
import {
  DATABASE,
  openLocalDatabase,
  removeLocalDatabase,
  stopLocalDatabase,
  storedIds,
} from "./local-database.ts";
import { shareQueue, stopQueue } from "./local-queue.ts";
import { loginWith, type Role } from "./logins.ts";
import { checkout, home, keys, run } from "./places.ts";

export type Local = {
  /** Database and keys, as a person would have set them. What is set already stays as it is. */
  readonly env: Environment;
  /** Null for a command that needs no queue. */
  readonly queue: QueueConfig | null;
  /** Where an analyst can connect while the servers run, without the password. */
  readonly analystUrl: string;
  readonly close: () => Promise<void>;
};

/**
 * Throws in a compiled binary. It carries no servers, and is known by having no sources beside it.
 */
export function requireCheckout(needed: string): void {
  if (existsSync(join(checkout, "src", "local", "queue-server.ts"))) return;
  throw misuse(
    `${needed} not set; the embedded default, which needs nothing, is for checkouts only`,
    "set QUEUE_URL and DATABASE_URL (docs/configuration.md lists all variables)",
  );
}

/**
 * The variables that name the local keys, for commands that need no server. Null before there are
 * any.
 */
export function localKeys(): Environment | null {
  return existsSync(join(keys, "recipients.txt")) ? keyFiles() : null;
}

const keyFiles = (): Environment => ({
  VEIL_TOKEN_KEY_FILE: join(keys, "token.key"),
  VEIL_VERIFY_KEY_FILE: join(keys, "verify.key"),
  VEIL_IDENTITY_FILE: join(keys, "identity.txt"),
  VEIL_RECIPIENTS_FILE: join(keys, "recipients.txt"),
});

/** Starts what is not running, and answers when this command can use it. */
export async function openLocal(
  env: Environment,
  roles: readonly Role[],
  needs: { readonly queue: boolean; readonly reset: boolean },
  tell: (text: string) => void,
): Promise<Local> {
  makeFolders();
  const lease = openLease(run);
  const close = () => leave(lease);
  try {
    return await lease.exclusively(async (alone) => {
      if (needs.reset) await reset(alone);
      if (!existsSync(keys)) {
        tell("first run: making keys, a database and a queue under .veil/");
        if (!needs.queue)
          tell("the database is empty: `npx bun run etl` fills it with the samples");
      }
      mkdirSync(keys, { recursive: true, mode: 0o700 });
      await ensureKeyFiles(keys);
      const { port, url } = await openLocalDatabase();
      const queue = needs.queue ? await shareQueue(alone, () => storedIds(port, alone)) : null;
      return {
        env: fill(env, { DATABASE_URL: url(loginWith(roles)), ...keyFiles() }),
        queue,
        analystUrl: `postgres://local_analyst@127.0.0.1:${port}/${DATABASE}`,
        close,
      };
    });
  } catch (error) {
    await close();
    throw error;
  }
}

/** For a process that a command has started: the servers run until this one has left, too. */
export async function joinLocal(): Promise<() => Promise<void>> {
  const lease = openLease(run);
  await lease.exclusively(async () => {});
  return () => leave(lease);
}

const leave = (lease: Lease): Promise<void> =>
  lease.leave(async () => {
    await stopQueue();
    await stopLocalDatabase();
  });

function makeFolders(): void {
  try {
    mkdirSync(run, { recursive: true, mode: 0o700 });
    if ((statSync(home).mode & 0o777) !== 0o755) chmodSync(home, 0o755);
    accessSync(run, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw failed(
      `the embedded default cannot use ${home} (${code})`,
      "it belongs to whoever ran veil here first: run as that user, remove it, or set DATABASE_URL",
    );
  }
}

/** A variable that is set already stays as it is, in either of its two spellings. */
function fill(env: Environment, additions: Environment): Environment {
  const missing = Object.entries(additions).filter(([name]) => {
    const plain = name.replace(/_FILE$/, "");
    return !env[plain] && !env[`${plain}_FILE`];
  });
  return { ...env, ...Object.fromEntries(missing) };
}

async function reset(alone: boolean): Promise<void> {
  if (!alone) {
    throw failed(
      "another command is using the local database and queue",
      "let it finish, then run --reset-local again",
    );
  }
  await stopQueue();
  await removeLocalDatabase();
  for (const name of ["keys", "sample.json"]) {
    rmSync(join(home, name), { recursive: true, force: true });
  }
}
