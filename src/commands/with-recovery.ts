// What the revealing commands share: keys, a reason for the record, chaining the record, and
// waiting for approval.
import { chainAudit } from "../audit/chain.ts";
import type { Environment } from "../config/environment.ts";
import { readIdentities, readOptionalTokenKey, readVerifyKey } from "../config/keys.ts";
import { failed, hasCode, Interrupted, misuse } from "../failure.ts";
import { OpeningKeys, type RecoveryKeys } from "../keys/open.ts";
import type { Role } from "../local/logins.ts";
import { NO_SUCH_REQUEST } from "../postgres/sqlstates.ts";
import type { Grounds, Recovery } from "../recovery/request.ts";
import type { RevealedPage } from "../recovery/reveal.ts";
import type { Format } from "../terminal/output.ts";
import type { Terminal } from "../terminal/terminal.ts";
import { askReason, isAtTerminal } from "./ask.ts";
import { PendingApproval } from "./await-approval.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

export const RECOVERY_VARIABLES = ["VEIL_IDENTITY", "VEIL_TOKEN_KEY", "VEIL_VERIFY_KEY"] as const;

export const readRecoveryKeys = (env: Environment): RecoveryKeys => ({
  identities: readIdentities(env),
  verifyKey: readVerifyKey(env),
  subkeys: readOptionalTokenKey(env),
});

export type RevealOptions = Grounds & {
  /** Where a request needs approval, wait for it. */
  readonly wait: boolean;
  /** Earlier requests, to be fetched instead of recording new ones. */
  readonly requests: readonly string[];
  /** Options that the command is given again with, besides the requests. */
  readonly again: readonly string[];
  readonly format: Format;
};

type RecoveryNeeds = {
  readonly roles: readonly Role[];
  /** A person may be asked for a reason: stdin does not bring tokens. */
  readonly mayAsk: boolean;
};

/** The entries that `work` makes are chained before anything is handed out, and when it ends. */
export async function withRecovery(
  context: Context,
  options: RevealOptions,
  { roles, mayAsk }: RecoveryNeeds,
  work: (recovery: Recovery, env: Environment) => Promise<void>,
): Promise<void> {
  const { terminal } = context;
  if (!(mayAsk && isAtTerminal(terminal))) requireBreakGlassReason(options, options.reason);
  const approval = new PendingApproval(terminal, options.wait, options.again);
  const keys = {
    variables: RECOVERY_VARIABLES,
    read: (env: Environment) => new OpeningKeys(readRecoveryKeys(env)),
  };
  try {
    await withDatabase(context, { roles, keys }, async ({ database, keys, program, env }) => {
      const isAsked = mayAsk && options.requests.length === 0;
      const reason = options.reason ?? (isAsked ? await askReason(terminal) : null);
      requireBreakGlassReason(options, reason);
      const recovery: Recovery = {
        database,
        keys,
        grounds: { reason, purpose: options.purpose, breakGlass: options.breakGlass },
        onRecorded: async () => void (await chainAudit(database)),
        onWaiting: (requests) => approval.await(database, program, requests),
      };
      await work(recovery, env);
      approval.end();
      await chainAudit(database);
    });
  } catch (error) {
    if (error instanceof Interrupted) approval.sayLeft();
    if (hasCode(error, NO_SUCH_REQUEST) && options.requests.length > 0) {
      // The database's own hint is for people who write SQL.
      throw failed(
        error.message,
        "is DATABASE_URL the login and the database with which it was made, and was its id copied in full?",
      );
    }
    throw error;
  }
}

/**
 * Somebody reviews a break-glass request afterwards, so it needs a reason whatever the policy says.
 */
function requireBreakGlassReason({ breakGlass }: Grounds, reason: string | null): void {
  if (!breakGlass || (reason ?? "").trim() !== "") return;
  throw misuse("break-glass wants a reason", "--reason TEXT: it goes on record, and is reviewed");
}

export const CHECK_IDENTITY =
  "check that VEIL_IDENTITY is the one of this vault; if it is, somebody has altered the database";

/** Names each token that is not revealed, on stderr. */
export function nameLost(
  terminal: Terminal,
  { unknown, unopened }: Pick<RevealedPage, "unknown" | "unopened">,
): void {
  for (const token of unknown) terminal.err(`error: ${token}: the vault does not hold it\n`);
  for (const token of unopened) terminal.err(`error: ${token}: REFUSED: ${REFUSED}\n`);
}

const REFUSED = "it does not open: altered, forged, or sealed for another identity or key";
