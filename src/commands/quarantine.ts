// `veil quarantine`: the messages that could not become rows, listed, shown, replayed and
// discarded.
import { identityRecipients } from "../../vault/age.ts";
import { chainAudit } from "../audit/chain.ts";
import type { Environment } from "../config/environment.ts";
import { readIdentities, readOptionalRecipients, readTokenKey } from "../config/keys.ts";
import { failed, misuse } from "../failure.ts";
import { DataKeys } from "../keys/data-keys.ts";
import { OpeningKeys } from "../keys/open.ts";
import type { Database } from "../postgres/database.ts";
import { awaitDecision } from "../recovery/approvals.ts";
import { discard, listEntries, openBodies, type QuarantineState } from "../recovery/quarantine.ts";
import { type ReplayOutcome, replay } from "../recovery/replay.ts";
import { printable, type Terminal, table } from "../terminal/terminal.ts";
import { askReason } from "./ask.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";
import { RECOVERY_VARIABLES, readRecoveryKeys } from "./with-recovery.ts";

const NEEDS = { roles: ["veil_operator"] } as const;

const SHOW_KEYS = {
  variables: RECOVERY_VARIABLES,
  read: (env: Environment) => new OpeningKeys(readRecoveryKeys(env)),
};

const REPLAY_KEYS = {
  variables: [...RECOVERY_VARIABLES, "VEIL_RECIPIENTS"] as const,
  read: async (env: Environment) => {
    const keys = new OpeningKeys(readRecoveryKeys(env));
    const subkeys = readTokenKey(env);
    const identities = readIdentities(env);
    // Never the recipients that the database names: they could be anybody's.
    const recipients = readOptionalRecipients(env) ?? (await identityRecipients(identities));
    return { keys, subkeys, dataKeys: new DataKeys(subkeys, recipients) };
  },
};

export type QuarantineOptions = { readonly reason: string | null; readonly json: boolean };

/** Where a request needs approval, wait for it. */
export type OpeningOptions = QuarantineOptions & { readonly wait: boolean };

const approval =
  (terminal: Terminal, database: Database, wait: boolean) => async (request: string) => {
    if (!wait) {
      throw failed(
        `request ${request} waits for approval; nothing of it was fetched`,
        "ask again with --wait: it goes on when another login has approved it (`veil approve ID`)",
      );
    }
    await chainAudit(database);
    terminal.err(`request ${request} waits for approval by another login: \`veil approve ID\`\n`);
    await awaitDecision(database, request);
  };

export async function runList(
  context: Context,
  state: QuarantineState | "all",
  json: boolean,
): Promise<void> {
  const { terminal } = context;
  await withDatabase(context, NEEDS, async ({ database, program }) => {
    const entries = await listEntries(database, state);
    if (json) terminal.out(`${JSON.stringify(entries)}\n`);
    else if (entries.length === 0) terminal.err("the quarantine holds no such messages\n");
    else {
      const rows = entries.map((e) => [e.messageId, e.sentAt, e.state, e.reason]);
      terminal.out(
        table(["MESSAGE", "SENT AT", "STATE", "REASON"], rows, terminal.isStdoutTerminal),
      );
      if (terminal.isStdoutTerminal) {
        terminal.err(`\nlook at one: ${program} quarantine show ${entries[0]!.messageId}\n`);
      }
    }
  });
}

export async function runShow(
  context: Context,
  messageId: string,
  options: OpeningOptions,
): Promise<void> {
  const { terminal } = context;
  await withDatabase(context, { ...NEEDS, keys: SHOW_KEYS }, async ({ database, keys }) => {
    const reason = options.reason ?? (await askReason(terminal));
    const onWaiting = approval(terminal, database, options.wait);
    const { bodies } = await openBodies(
      { database, keys, reason, onWaiting },
      [messageId],
      "show",
    ).finally(() => chainAudit(database));
    const [entry] = bodies;
    if (entry === undefined) {
      throw failed(
        "the quarantine holds no body of this message",
        "it was replayed or discarded, or never quarantined: `quarantine list --state all` shows which",
      );
    }
    if (entry.body === null) {
      throw failed(
        "REFUSED: the body does not open: altered, forged, or sealed for another identity or key",
        "check that VEIL_IDENTITY is the one of this vault; if it is, somebody altered the database",
      );
    }
    if (options.json) terminal.out(`${JSON.stringify(entry)}\n`);
    else terminal.out(`${terminal.isStdoutTerminal ? printable(entry.body) : entry.body}\n`);
  });
}

export async function runReplay(
  context: Context,
  messageIds: readonly string[],
  options: OpeningOptions,
): Promise<void> {
  const { terminal } = context;
  await withDatabase(context, { ...NEEDS, keys: REPLAY_KEYS }, async ({ database, keys }) => {
    const ids = messageIds.length > 0 ? [...new Set(messageIds)] : await openMessageIds(database);
    const reason = options.reason ?? (await askReason(terminal));
    const onWaiting = approval(terminal, database, options.wait);
    const outcomes: ReplayOutcome[] = [];
    try {
      await replay({ ...keys, database, reason, onWaiting }, ids, (outcome) =>
        outcomes.push(outcome),
      );
      if (ids.length === 0 && !options.json)
        terminal.err("the quarantine holds no open messages\n");
    } finally {
      // Outcomes are printed, also where a later replay failed.
      printOutcomes(context, outcomes, options.json);
      await chainAudit(database);
    }
    const failures = outcomes.filter(({ outcome }) => outcome !== "replayed").length;
    if (failures > 0) {
      throw failed(
        `${failures} of ${outcomes.length} messages were not replayed`,
        "what is still broken stays in the quarantine: fix the rules and replay, or discard it",
      );
    }
  });
}

const openMessageIds = async (database: Database): Promise<string[]> =>
  (await listEntries(database, "open")).map(({ messageId }) => messageId);

function printOutcomes(
  { terminal }: Context,
  outcomes: readonly ReplayOutcome[],
  json: boolean,
): void {
  if (json) terminal.out(`${JSON.stringify(outcomes)}\n`);
  else if (outcomes.length > 0) {
    const rows = outcomes.map((o) => [o.messageId, o.outcome, o.reason ?? ""]);
    terminal.out(table(["MESSAGE", "OUTCOME", "REASON"], rows, terminal.isStdoutTerminal));
  }
}

export async function runDiscard(
  context: Context,
  messageIds: readonly string[],
  all: boolean,
  options: QuarantineOptions,
): Promise<void> {
  const { terminal } = context;
  if (all === messageIds.length > 0) {
    throw misuse("expected message ids, or --all", "a discarded body is gone for good");
  }
  await withDatabase(context, NEEDS, async ({ database }) => {
    const ids = all ? await openMessageIds(database) : [...new Set(messageIds)];
    const reason = options.reason ?? (await askReason(terminal));
    const discarded = ids.length === 0 ? 0 : await discard(database, ids, reason);
    await chainAudit(database);
    if (options.json) terminal.out(`${JSON.stringify({ discarded })}\n`);
    else terminal.out(`discarded ${discarded} of ${ids.length}\n`);
    if (discarded < ids.length) {
      throw failed(
        `${ids.length - discarded} of ${ids.length} messages were not open in the quarantine`,
        "`quarantine list --state all` shows what became of them",
      );
    }
  });
}
