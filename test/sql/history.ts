// A database that has seen everything that may rightly happen to one: rows from before veil, dropped partitions,
// replays, discards, forgotten tokens, requests, data keys of both kinds.
import { readIdentities } from "../../src/config/keys.ts";
import { expire } from "../../src/erasure/expire.ts";
import { forget } from "../../src/erasure/forget.ts";
import { DataKeys } from "../../src/keys/data-keys.ts";
import { OpeningKeys } from "../../src/keys/open.ts";
import { load } from "../../src/line/load.ts";
import { parseMessage } from "../../src/login/parse.ts";
import { maxSeals, protect } from "../../src/login/protect.ts";
import type { Database } from "../../src/postgres/database.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { discard } from "../../src/recovery/quarantine.ts";
import { replay } from "../../src/recovery/replay.ts";
import { generateIdentity } from "../../vault/age.ts";
import { seal } from "../../vault/seal.ts";
import { ROLES, type Role, type TestDatabase } from "../support/database.ts";
import { reveal } from "../support/reveal.ts";
import type { Host } from "./host.ts";

const noon = (day: string): Date => new Date(`${day}T12:00:00Z`);

/** Quarantines a body whatever the rules say, as an older version would have. */
export async function quarantine(
  host: Host,
  etl: Database,
  messageId: string,
  day: string,
): Promise<void> {
  const key = await host.dataKeys.take(1);
  const body = JSON.stringify({ user_id: messageId, ip: "203.0.113.77" });
  const sealed = seal(key.dataKey.bytes, { kind: "quarantine", messageId }, body);
  const rejected = [{ messageId, sentAt: noon(day), reason: "an old rule", sealed }];
  await load(etl, host.subkeys, key, { rows: [], originals: new Map(), rejected });
}

/** One login, sealed under a data key of its own. */
async function loadFor(
  host: Host,
  etl: Database,
  kind: "classic" | "post-quantum",
  recipients: number,
): Promise<void> {
  const made = await Promise.all(Array.from({ length: recipients }, () => generateIdentity(kind)));
  const dataKeys = new DataKeys(
    host.subkeys,
    made.map(({ recipient }) => recipient),
  );
  const key = await dataKeys.take(maxSeals(1));
  const body = JSON.stringify({ user_id: kind, device_id: `${kind} ${recipients}` });
  const id = `${kind}-${recipients}`;
  const message = { id, body, sentAt: noon("2030-03-02"), parsed: parseMessage(body) };
  await load(etl, host.subkeys, key, protect([message], host.subkeys, key.dataKey));
}

/** Of an empty database; the answer names a login of each role. */
export async function makeHistory(
  database: TestDatabase,
  host: Host,
): Promise<Record<Role, string>> {
  const owner = database.open(database.ownerUrl);
  await migrate(owner);
  // As they came from elsewhere: no message stands for them, and not all of their values are tokens.
  await owner.query(`insert into public.user_logins values
    ('a1', null, '192.0.2.200', 'an old device', null, null, '2019-12-31'),
    ('a2', null, '192.0.2.201', null, null, null, '2030-01-02'),
    ('a3', null, null, null, null, null, null)`);
  await owner.query(`insert into etl.adopted (day, messages, plain_values)
    values ('2019-12-31', 1, 2), ('2030-01-02', 1, 1), (null, 1, 0)`);
  const urls = {} as Record<Role, string>;
  for (const role of ROLES) urls[role] = await database.addLogin(role);
  const etl = database.open(urls.etl);
  const operator = database.open(urls.operator);
  const revealer = database.open(urls.revealer);
  const housekeep = async (day: string) => {
    for (let periods = 1; periods > 0; ) {
      const [row] = await owner.query("select periods from etl.housekeep_on($1::date)", [day]);
      periods = Number(row?.periods);
    }
  };
  const login = (n: number, day: string) => ({
    id: `m${n}`,
    sentAt: noon(day),
    body: { user_id: `u${n}`, ip: `203.0.113.${n}`, device_id: `d${n % 3}` },
  });

  await housekeep("2030-01-01");
  await host.load(etl, [login(1, "2030-01-02"), login(2, "2030-01-02"), login(3, "2030-01-02")]);
  await host.load(etl, [login(1, "2030-01-02"), login(4, "2030-01-05"), login(5, "2011-01-01")]);
  // Gone from the ledger, and known by their totals.
  await housekeep("2030-03-01");
  await host.load(etl, [login(6, "2030-03-02"), login(7, "2030-03-02"), login(8, "2030-03-02")]);
  for (const id of ["open", "discarded", "replayed"]) await quarantine(host, etl, id, "2030-03-03");
  // Known to the quarantine and not to the ledger any more: back again, it is a duplicate.
  await quarantine(host, etl, "late", "2030-01-02");
  await housekeep("2030-03-02");
  await quarantine(host, etl, "late", "2030-01-02");
  await loadFor(host, etl, "post-quantum", 1);
  await loadFor(host, etl, "post-quantum", 2);
  await loadFor(host, etl, "classic", 3);

  const keys = new OpeningKeys({
    identities: readIdentities(host.keys),
    verifyKey: null,
    subkeys: null,
  });
  const replayer = {
    database: operator,
    keys,
    reason: "fixed",
    subkeys: host.subkeys,
    dataKeys: host.dataKeys,
  };
  await replay(replayer, ["replayed"], () => {});
  await discard(operator, ["discarded"], null);
  await reveal(revealer, keys, [host.token("ip", "203.0.113.1")], "case 1");
  // Forgotten: the row stays, and its token stands for nothing. Expired: the day is long gone.
  const eraser = database.open(urls.eraser);
  await forget(eraser, { tokens: [host.token("ip", "203.0.113.8")] }, "request 1");
  await expire(eraser, {
    olderThanDays: 4000,
    withRows: false,
    reason: "retention",
    dryRun: false,
  });
  await Promise.all([owner, etl, operator, revealer, eraser].map((one) => one.close()));
  return urls;
}
