// What happens to the database of a dump: a little of everything that a database of this version may have seen.
import type postgres from "postgres";
import { readIdentities } from "../../../src/config/keys.ts";
import { forget } from "../../../src/erasure/forget.ts";
import { addHold, releaseHold } from "../../../src/erasure/holds.ts";
import { OpeningKeys } from "../../../src/keys/open.ts";
import { load } from "../../../src/line/load.ts";
import type { Database } from "../../../src/postgres/database.ts";
import { decide } from "../../../src/recovery/approvals.ts";
import { plantCanary } from "../../../src/recovery/canaries.ts";
import { discard } from "../../../src/recovery/quarantine.ts";
import { replay } from "../../../src/recovery/replay.ts";
import { seal } from "../../../vault/seal.ts";
import { reveal } from "../../support/reveal.ts";
import { veil } from "../../support/veil.ts";
import { type Host, makeHost } from "../host.ts";

/** One of each role whose doings stand in the database. */
export const LOGINS = [
  ...([
    "etl",
    "operator",
    "revealer",
    "breakglass",
    "approver",
    "policy",
    "eraser",
    "auditor",
  ] as const),
];
export type Login = (typeof LOGINS)[number];
export type Logins = Readonly<Record<Login, Database>>;
export type Life = {
  /** A superuser's. */
  readonly sql: postgres.Sql;
  readonly logins: Logins;
  readonly urlOf: (role: Login) => string;
};

export const day = (offset: number): string =>
  new Date(Date.now() + offset * 86_400_000).toISOString().slice(0, 10);

const login = (id: string, on: string) => ({
  id,
  sentAt: new Date(`${on}T12:00:00Z`),
  body: {
    user_id: `user-${id}`,
    ip: `203.0.113.${id}`,
    device_id: id === "7" ? "another" : "one phone",
    app_version: "2.3.0",
  },
});

export async function live(life: Life): Promise<void> {
  const host = await makeHost();
  await receive(life, host);
  await recover(life, host);
  await erase(life, host);
  await chain(life);
}

/** Quarantines a body that is a login by today's rules. */
async function quarantine(host: Host, etl: Database, messageId: string): Promise<void> {
  const key = await host.dataKeys.take(1);
  const body = JSON.stringify({ user_id: messageId, ip: "203.0.113.77" });
  const sealed = seal(key.dataKey.bytes, { kind: "quarantine", messageId }, body);
  const sentAt = new Date(`${day(-1)}T12:00:00Z`);
  const rejected = [{ messageId, sentAt, reason: "an old rule", sealed }];
  await load(etl, host.subkeys, key, { rows: [], originals: new Map(), rejected });
}

/** In two periods of now and two of long ago; what could not become rows is open, discarded and replayed. */
async function receive({ sql, logins: { etl, operator } }: Life, host: Host): Promise<void> {
  await host.load(
    etl,
    [1, 2, 3, 4].map((n) => login(String(n), day(0))),
  );
  await host.load(
    etl,
    [2, 3, 5].map((n) => login(String(n), day(n === 5 ? -31 : 0))),
  );
  await host.load(etl, [login("6", "2019-03-21"), login("7", "2024-06-11")]);
  for (const id of ["open", "discarded", "replayed"]) await quarantine(host, etl, id);
  await discard(operator, ["discarded"], "no use");
  const keys = openingKeys(host);
  const { subkeys, dataKeys } = host;
  const replayer = { database: operator, keys, reason: "fixed", subkeys, dataKeys };
  await replay(replayer, ["replayed"], () => {});
  // What the ledger holds of long ago is counted and goes.
  const housekeep = `select etl.housekeep_on('${day(1)}')`;
  await sql.unsafe(`set role veil_owner; ${housekeep}; ${housekeep}; reset role`);
}

const openingKeys = (host: Host): OpeningKeys =>
  new OpeningKeys({ identities: readIdentities(host.keys), verifyKey: null, subkeys: null });

/** Requests that were served, refused, approved, denied, and made in an emergency. */
async function recover({ logins }: Life, host: Host): Promise<void> {
  const { policy, revealer, approver, breakglass } = logins;
  const token = host.token("ip", "203.0.113.1");
  await reveal(revealer, openingKeys(host), [token], "case 1");
  await plantCanary(
    policy,
    { subkeys: host.subkeys, recipients: [host.keys.VEIL_RECIPIENTS] },
    ...(["ip", "198.51.100.99", "a decoy"] as const),
  );
  await reveal(revealer, openingKeys(host), [host.token("ip", "198.51.100.99")], "case 2");
  await policy.query(
    `select pii_vault.set_policy('ip', '{"approval": true, "hourly": 100}', 'rule 1')`,
  );
  const ask = async (reason: string) => {
    const [row] = await revealer.query(
      "select pii_vault.request_reveal($1::text[], $2)::text as id",
      [`{${token}}`, reason],
    );
    return String(row?.id);
  };
  await decide(approver, "approve", await ask("case 3"), null);
  await decide(approver, "deny", await ask("case 4"), "not needed");
  await ask("case 5");
  for (const reason of ["fire", "flood"]) {
    const [row] = await breakglass.query(
      "select pii_vault.break_glass($1::text[], $2, null)::text as id",
      [`{${token}}`, reason],
    );
    if (reason === "fire") await decide(approver, "review", String(row?.id), "it was one");
  }
}

/** A user, a token, periods; beside a hold that is open and one that is not. */
async function erase({ logins: { policy, eraser }, urlOf }: Life, host: Host): Promise<void> {
  await addHold(policy, { user: "user-7" }, "case 6");
  const closed = await addHold(policy, { token: host.token("ip", "203.0.113.2") }, "case 7");
  await releaseHold(policy, closed, "case 7 is closed");
  await forget(eraser, { user: "user-3" }, "request 1");
  await forget(eraser, { user: "old-4" }, "request 2");
  await forget(eraser, { tokens: [host.token("ip", "203.0.113.4")] }, "request 3");
  const expired = await veil(
    ["expire", "--older-than", "400d", "--rows", "--reason", "retention", "--yes"],
    { env: { DATABASE_URL: urlOf("eraser") } },
  );
  if (expired.code !== 0) throw new Error(`nothing expired: ${expired.stderr}`);
}

/** But for the last entry, which waits. */
async function chain({ logins: { auditor, policy } }: Life): Promise<void> {
  await auditor.query("call pii_vault.chain_audit()");
  await policy.query(`select pii_vault.set_policy('ip', '{"approval": false}', 'rule 2')`);
}
