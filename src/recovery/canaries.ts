// Decoy originals: planted with the writer's keys, so that their tokens look like all others.
import type { Field } from "../../vault/canonical.ts";
import type { Subkeys } from "../../vault/keys.ts";
import { seal } from "../../vault/seal.ts";
import { makeToken } from "../../vault/token.ts";
import { DataKeys } from "../keys/data-keys.ts";
import { call } from "../postgres/call.ts";
import type { Database } from "../postgres/database.ts";
import { array, utcText } from "../postgres/values.ts";

export type Canary = {
  readonly token: string;
  readonly login: string;
  readonly addedAt: string;
};

/** Answers with the token. Throws if a login has the value, or the vault holds it already. */
export async function plantCanary(
  database: Database,
  keys: { readonly subkeys: Subkeys; readonly recipients: readonly string[] },
  field: Field,
  value: string,
  reason: string | null,
): Promise<string> {
  const { subkeys, recipients } = keys;
  const token = makeToken(subkeys, field, value);
  const { dataKey, wrapped } = await new DataKeys(subkeys, recipients).take(1);
  await call(
    database,
    `select pii_vault.plant_canary($1::text, $2::bytea, $3::integer, $4::bytea, $5::uuid, $6::bytea,
       $7::text[], $8::bytea, $9::text)`,
    [
      token,
      seal(dataKey.bytes, { kind: "original", token }, value),
      subkeys.generation,
      subkeys.check,
      wrapped.id,
      wrapped.wrapped,
      array(wrapped.recipients),
      wrapped.proof,
      reason,
    ],
  );
  return token;
}

export async function listCanaries(database: Database): Promise<readonly Canary[]> {
  const rows = await database.query(
    `select token::text, login, ${utcText("added_at")} as added from pii_vault.canaries
     order by added_at, token`,
  );
  return rows.map(({ token, login, added }) => ({
    token: String(token),
    login: String(login),
    addedAt: String(added),
  }));
}

export type Alarm = {
  /** The entry of the audit. */
  readonly entry: string;
  readonly login: string;
  readonly at: string;
  readonly request: string;
};

/** The alarms of the last day, the oldest first. */
export async function recentAlarms(database: Database): Promise<readonly Alarm[]> {
  const rows = await database.query(
    `select entry::text, login, ${utcText("recorded_at")} as at, request::text
     from pii_vault.recent_alarms()`,
  );
  return rows.map(({ entry, login, at, request }) => ({
    entry: String(entry),
    login: String(login),
    at: String(at),
    request: String(request),
  }));
}

export async function removeCanary(
  database: Database,
  token: string,
  reason: string | null,
): Promise<void> {
  await call(database, "select pii_vault.remove_canary($1::text, $2::text)", [token, reason]);
}
