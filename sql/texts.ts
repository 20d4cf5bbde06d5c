// The SQL of this folder as text inside the program: a compiled binary migrates without a file beside it.
import { createHash } from "node:crypto";
import close from "./close.sql" with { type: "text" };
import renameOldTable from "./copy/rename.sql" with { type: "text" };
import copyOldRows from "./copy/rows.sql" with { type: "text" };
import admit from "./current/admit.sql" with { type: "text" };
import approvals from "./current/approvals.sql" with { type: "text" };
import assess from "./current/assess.sql" with { type: "text" };
import audit from "./current/audit.sql" with { type: "text" };
import canaries from "./current/canaries.sql" with { type: "text" };
import chain from "./current/chain.sql" with { type: "text" };
import check from "./current/check.sql" with { type: "text" };
import checkTokens from "./current/check-tokens.sql" with { type: "text" };
import checkVault from "./current/check-vault.sql" with { type: "text" };
import dropPeriod from "./current/drop-period.sql" with { type: "text" };
import erasure from "./current/erasure.sql" with { type: "text" };
import expire from "./current/expire.sql" with { type: "text" };
import expireDays from "./current/expire-days.sql" with { type: "text" };
import expirePeriod from "./current/expire-period.sql" with { type: "text" };
import forget from "./current/forget.sql" with { type: "text" };
import grants from "./current/grants.sql" with { type: "text" };
import guards from "./current/guards.sql" with { type: "text" };
import holds from "./current/holds.sql" with { type: "text" };
import housekeep from "./current/housekeep.sql" with { type: "text" };
import load from "./current/load.sql" with { type: "text" };
import originals from "./current/originals.sql" with { type: "text" };
import periods from "./current/periods.sql" with { type: "text" };
import policy from "./current/policy.sql" with { type: "text" };
import quarantine from "./current/quarantine.sql" with { type: "text" };
import replay from "./current/replay.sql" with { type: "text" };
import requests from "./current/requests.sql" with { type: "text" };
import reveal from "./current/reveal.sql" with { type: "text" };
import rows from "./current/rows.sql" with { type: "text" };
import triggers from "./current/triggers.sql" with { type: "text" };
import views from "./current/views.sql" with { type: "text" };
import open from "./open.sql" with { type: "text" };
import roles from "./roles.sql" with { type: "text" };
import loadTables from "./steps/001_load.sql" with { type: "text" };
import loginsTable from "./steps/002_logins.sql" with { type: "text" };
import vaultTables from "./steps/003_vault.sql" with { type: "text" };
import recordTables from "./steps/004_record.sql" with { type: "text" };
import sweepRelations from "./sweep-relations.sql" with { type: "text" };
import sweepRoutines from "./sweep-routines.sql" with { type: "text" };

export type Step = {
  readonly name: string;
  readonly sql: string;
  /** As the login that migrates, where this step is to be taken: before all steps, and when everything is there. */
  readonly before?: string;
  readonly after?: string;
};

export type Texts = {
  /** Run every time, before the rest. */
  readonly roles: string;
  /** Tables, each step once. Forward only: a released one is never edited, a later one changes what it made. */
  readonly steps: readonly Step[];
  /** Run where something is to be changed, before all that follows. */
  readonly open: string;
  /** Every view, before the functions that read them. */
  readonly views: string;
  /**
   * Every function and procedure, each once. Where `create or replace` is refused (another return type, say), a step
   * drops the old one first.
   */
  readonly routines: readonly string[];
  /** Every trigger, after the functions that they call. */
  readonly triggers: string;
  /** Drop what is there and not among the views and triggers, and not among the routines. */
  readonly sweepRelations: string;
  readonly sweepRoutines: string;
  readonly grants: string;
  /** Undoes `open`. */
  readonly close: string;
};

export const TEXTS: Texts = {
  roles,
  open,
  steps: [
    { name: "load", sql: loadTables },
    { name: "logins", sql: loginsTable, before: renameOldTable, after: copyOldRows },
    { name: "vault", sql: vaultTables },
    { name: "record", sql: recordTables },
  ],
  views,
  // In an order in which each SQL function finds what it calls.
  routines: [
    ...[guards, audit, chain, periods, policy, requests, admit, reveal, approvals],
    ...[originals, rows, quarantine, load, replay, housekeep],
    ...[erasure, assess, holds, forget, dropPeriod, expirePeriod, expireDays, expire],
    ...[canaries, checkVault, checkTokens, check],
  ],
  triggers,
  sweepRelations,
  sweepRoutines,
  grants,
  close,
};

/** The last step: as far as a database has to have come. */
export const SCHEMA_VERSION = TEXTS.steps.length;

/** Of everything but the steps. Two programs with one step and one hash make the same schema. */
export const schemaHash = (texts: Texts): string =>
  hashOf([
    texts.roles,
    texts.open,
    texts.views,
    ...texts.routines,
    texts.triggers,
    texts.sweepRelations,
    texts.sweepRoutines,
    texts.grants,
    texts.close,
  ]);

/** Of what is written under locks that wait for whoever reads and writes. */
export const relationsHash = ({ views, triggers, sweepRelations }: Texts): string =>
  hashOf([views, triggers, sweepRelations]);

function hashOf(texts: readonly string[]): string {
  const hash = createHash("sha256");
  // Lengths keep the texts apart.
  for (const text of texts) hash.update(`${text.length}\n${text}`);
  return hash.digest("hex");
}
