// Publications: each table of veil's has a key or a replica identity, so that a publication is in no command's way; and
// a subscriber of user_logins gets the rows, and what forgetting makes of them.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import postgres from "postgres";
import { readDatabase } from "../../src/config/database-url.ts";
import { expire } from "../../src/erasure/expire.ts";
import { forget } from "../../src/erasure/forget.ts";
import { addHold, releaseHold } from "../../src/erasure/holds.ts";
import { type Database, openDatabase } from "../../src/postgres/database.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { discard } from "../../src/recovery/quarantine.ts";
import { createDatabase } from "../support/database.ts";
import type { ScratchCluster } from "../support/scratch-cluster.ts";
import { hasOwnServer, startOwnCluster } from "../support/servers.ts";
import { type Host, makeHost } from "./host.ts";

/** Tables of which a publication could not carry an update or a delete. */
const withoutIdentity = async (sql: postgres.Sql): Promise<string[]> => {
  const rows = await sql`
    select c.oid::regclass::text as name from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p')
      and (n.nspname in ('etl', 'pii_vault') or c.oid = 'public.user_logins'::regclass)
      and c.relreplident <> 'f'
      and not (
        c.relreplident = 'd' and exists (
          select from pg_catalog.pg_index i
          where i.indrelid = c.oid and i.indisprimary and i.indisvalid and i.indimmediate
        )
      )
    order by 1`;
  return rows.map(({ name }) => String(name));
};

test("every table has a primary key or replica identity full, and each partition that is made later", async () => {
  const database = await createDatabase();
  try {
    const owner = database.sql(database.ownerUrl);
    expect(await withoutIdentity(owner)).toEqual([]);
    await owner`set role veil_owner`;
    for (const day of ["2040-01-01", "2040-02-15", "2040-03-31"]) {
      await owner`select etl.housekeep_on(${day}::date)`;
    }
    const [made] = await owner`
      select count(*)::int as n from pg_catalog.pg_partition_tree('public.user_logins') t
      where t.relid::text like '%2040%'`;
    expect(made?.n).toBeGreaterThan(2);
    expect(await withoutIdentity(owner)).toEqual([]);
    await owner`create table etl.keyless (n integer)`;
    expect(await withoutIdentity(owner)).toEqual(["etl.keyless"]);
  } finally {
    await database.drop();
  }
});

// Left out where TEST_DATABASE_URL names the server: it may keep too little in its log.
describe.skipIf(!hasOwnServer)("on a server whose log carries publications", () => {
  let cluster: ScratchCluster;
  let host: Host;
  const clients: postgres.Sql[] = [];
  const opened: Database[] = [];

  const sqlOf = (name: string): postgres.Sql => {
    const client = postgres(cluster.urlOf("postgres", name), { max: 1, onnotice: () => {} });
    clients.push(client);
    return client;
  };
  const open = (name: string, login = "postgres"): Database => {
    const database = openDatabase(readDatabase({ DATABASE_URL: cluster.urlOf(login, name) }));
    opened.push(database);
    return database;
  };

  /** A migrated database, and the publication of this statement in it. */
  async function published(name: string, publication: string): Promise<postgres.Sql> {
    await sqlOf("postgres").unsafe(`create database ${name}`);
    await migrate(open(name));
    const sql = sqlOf(name);
    await sql.unsafe(publication);
    return sql;
  }

  beforeAll(async () => {
    cluster = await startOwnCluster({ wal_level: "logical" });
    host = await makeHost();
    // Made before veil's roles are, of which they become members.
    const sql = sqlOf("postgres");
    await sql.unsafe("create database first");
    await migrate(open("first"));
    for (const role of ["etl", "eraser", "operator", "policy"]) {
      await sql.unsafe(`create role ${role} login password 'test-superuser' in role veil_${role}`);
    }
  });
  afterAll(async () => {
    await Promise.all([
      ...clients.map((client) => client.end({ timeout: 1 })),
      ...opened.map((database) => database.close()),
    ]);
  });

  const login = (id: string, ip: string, sentAt = new Date()) => ({
    ...{ id, sentAt, body: { user_id: `u-${id}`, ip, device_id: `d-${id}` } },
  });

  test("a subscriber has every row, of periods that are made later too, and no token that was forgotten", async () => {
    const source = await published(
      "source",
      `create publication logins for table public.user_logins
         with (publish = 'insert, update, delete', publish_via_partition_root = true)`,
    );
    await source`select pg_create_logical_replication_slot('logins', 'pgoutput')`;
    await sqlOf("postgres").unsafe("create database target");
    const target = sqlOf("target");
    await target.unsafe(`
      create table public.user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
        masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)`);
    await target.unsafe(
      `create subscription logins connection '${cluster.urlOf("postgres", "source")}' publication logins
         with (create_slot = false, slot_name = 'logins', copy_data = false)`,
    );
    const etl = open("source", "etl");
    await host.load(etl, [
      login("a", "192.0.2.1"),
      login("b", "192.0.2.2"),
      login("c", "192.0.2.2"),
    ]);
    await source`set role veil_owner`;
    await source`select etl.housekeep_on('2040-01-01'::date)`;
    await source`reset role`;
    await host.load(etl, [login("a2", "192.0.2.1", new Date("2040-01-01T00:00:00Z"))]);
    await forget(open("source", "eraser"), { user: "u-a" }, "request");
    await forget(open("source", "eraser"), { user: "u-a2" }, "request");

    const content = async (sql: postgres.Sql): Promise<string[]> => {
      const rows = await sql`select l::text as line from public.user_logins l order by 1`;
      return rows.map(({ line }) => String(line));
    };
    const expected = await content(source);
    expect(expected.filter((line) => line.includes("ip0_")).length).toBe(2);
    // Until the subscriber has come so far.
    const [at] = await source`select pg_catalog.pg_current_wal_lsn()::text as lsn`;
    for (let isThere = false; !isThere; ) {
      const [slot] = await source`
        select confirmed_flush_lsn >= ${String(at?.lsn)}::pg_lsn as there
        from pg_catalog.pg_replication_slots where slot_name = 'logins'`;
      isThere = slot?.there === true;
      if (!isThere) await Bun.sleep(20);
    }
    expect(await content(target)).toEqual(expected);
    await target.unsafe("alter subscription logins disable");
    await target.unsafe("alter subscription logins set (slot_name = none)");
    await target.unsafe("drop subscription logins");
  });

  test("a publication for all tables is in no command's way", async () => {
    const sql = await published("everything", "create publication everything for all tables");
    const [etl, eraser, operator, policy] = ["etl", "eraser", "operator", "policy"].map((role) =>
      open("everything", role),
    );
    const broken = { id: "broken", body: "no JSON" };
    await host.load(etl!, [login("a", "192.0.2.1"), login("b", "192.0.2.2"), broken]);
    await host.load(etl!, [login("a", "192.0.2.1"), login("c", "192.0.2.3"), broken]);
    const old = new Date(Date.now() - 20 * 86_400_000);
    await host.load(etl!, [{ ...broken, id: "older", sentAt: old }]);
    // A period that goes whole but for what is held, and days that go row by row.
    await sql.unsafe(
      "set role veil_owner; select etl.make_period('2020-01-01', '2020-02-01'); reset role",
    );
    for (const [id, day] of [
      ["d", "2020-01-15"],
      ["e", "2020-01-16"],
      ["f", "2020-03-01"],
      ["g", "2020-03-01"],
    ] as const) {
      await host.load(etl!, [
        login(id, `192.0.2.${id.charCodeAt(0)}`, new Date(`${day}T00:00:00Z`)),
      ]);
    }
    const holds = ["u-e", "u-g"].map((user) => addHold(policy!, { user }, "case"));
    const retention = { olderThanDays: 40, withRows: true, reason: "retention", dryRun: false };
    await Promise.all(holds);
    const expired = await expire(eraser!, retention);
    expect([expired.originals, expired.rows, expired.held]).toEqual([
      4,
      2,
      { originals: 4, rows: 2 },
    ]);
    for (const hold of await Promise.all(holds)) await releaseHold(policy!, hold, "closed");
    await sql`update etl.quarantine set quarantined_at = sent_at`;
    const rest = await expire(eraser!, { ...retention, olderThanDays: 15 });
    expect([rest.rows, rest.bodies.discarded]).toEqual([2, 1]);
    await discard(operator!, ["broken"], null);
    await forget(eraser!, { user: "u-a" }, "request");
    await forget(eraser!, { tokens: [host.token("ip", "192.0.2.2")] }, "request");
    await policy!.query("select pii_vault.lift_tombstones($1, 'mistake')", [
      `{${host.token("ip", "192.0.2.2")}}`,
    ]);
    await policy!.query("select pii_vault.set_policy('ip', '{\"hourly\": 5}', 'rule')");
    await etl!.query("call pii_vault.chain_audit()");
    await sql`set role veil_owner`;
    // Twice a day: where it has made periods, it does nothing of the ledger.
    for (const day of ["2040-01-01", "2040-01-01", "2040-02-15", "2040-02-15"])
      await sql`select etl.housekeep_on(${day}::date)`;
    await sql`reset role`;
    await migrate(open("everything"), undefined, "week");
    const [row] = await sql`
      select (select count(*)::int from public.user_logins where masked_ip like 'ip0%') as forgotten,
        (select string_agg(state, ',' order by state) from etl.quarantine) as quarantine,
        (select count(*)::int from etl.ledger_totals) as totals,
        (select count(*)::int from pii_vault.audit_chain) > 0 as chained`;
    expect(await withoutIdentity(sql)).toEqual([]);
    expect({ ...row }).toEqual({
      ...{ forgotten: 2, quarantine: "discarded,discarded", totals: 5, chained: true },
    });
  });
});
