// The numbered files of this folder, in order, as text inside the program: a compiled binary migrates
// without a file beside it.

import roles from "./001_roles.sql" with { type: "text" };
import logins from "./002_logins.sql" with { type: "text" };
import vault from "./003_vault.sql" with { type: "text" };
import ledger from "./004_ledger.sql" with { type: "text" };
import load from "./005_load.sql" with { type: "text" };
import reveal from "./006_reveal.sql" with { type: "text" };
import quarantine from "./007_quarantine.sql" with { type: "text" };
import loadInOrder from "./008_load.sql" with { type: "text" };
import check from "./009_check.sql" with { type: "text" };
import loadCheaply from "./010_load.sql" with { type: "text" };
import governance from "./011_governance.sql" with { type: "text" };
import audit from "./012_audit.sql" with { type: "text" };
import policy from "./013_policy.sql" with { type: "text" };
import approvals from "./014_approvals.sql" with { type: "text" };
import erasure from "./015_erasure.sql" with { type: "text" };
import canaries from "./016_canaries.sql" with { type: "text" };
import checkErasure from "./017_check.sql" with { type: "text" };
import loadUnforgotten from "./018_load.sql" with { type: "text" };
import databaseRights from "./database_rights.sql" with { type: "text" };

export type Migration = { readonly version: number; readonly name: string; readonly sql: string };

/** Forward only: a file that has been released is never edited, a later one changes what it made. */
export const migrations: readonly Migration[] = [
  { version: 1, name: "roles", sql: roles },
  { version: 2, name: "logins", sql: logins },
  { version: 3, name: "vault", sql: vault },
  { version: 4, name: "ledger", sql: ledger },
  { version: 5, name: "load", sql: load },
  { version: 6, name: "reveal", sql: reveal },
  { version: 7, name: "quarantine", sql: quarantine },
  { version: 8, name: "load", sql: loadInOrder },
  { version: 9, name: "check", sql: check },
  { version: 10, name: "load", sql: loadCheaply },
  { version: 11, name: "governance", sql: governance },
  { version: 12, name: "audit", sql: audit },
  { version: 13, name: "policy", sql: policy },
  { version: 14, name: "approvals", sql: approvals },
  { version: 15, name: "erasure", sql: erasure },
  { version: 16, name: "canaries", sql: canaries },
  { version: 17, name: "check", sql: checkErasure },
  { version: 18, name: "load", sql: loadUnforgotten },
];

/** Not of a version: run after the others, every time. */
export const DATABASE_RIGHTS: string = databaseRights;

export const SCHEMA_VERSION = migrations.at(-1)!.version;
