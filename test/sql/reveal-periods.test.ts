// A token that stands in several periods: which of its originals a request gets, by itself and beside rows, and that
// asking by period gets round nothing.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type postgres from "postgres";
import { plantCanary } from "../../src/recovery/canaries.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { outcome } from "./attempt.ts";
import { type Host, makeHost } from "./host.ts";

const OWN = "198.51.100.7";
/** Days, each of a period of its own; the first one has none, and so is one. */
const DAYS = ["2023-06-05", "2024-01-15", "2024-02-15", "2024-03-15"] as const;
const FIRSTS = ["2023-06-05", "2024-01-01", "2024-02-01", "2024-03-01"] as const;

let database: TestDatabase;
let host: Host;
let owner: postgres.Sql;
let reader: postgres.Sql;
let token: string;

beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  await owner.unsafe(`set role veil_owner;
    select etl.make_period('2024-01-01', '2024-02-01'), etl.make_period('2024-02-01', '2024-03-01'),
      etl.make_period('2024-03-01', '2024-04-01');
    reset role`);
  host = await makeHost();
  token = host.token("ip", OWN);
});
afterAll(() => database.drop());

// In every period one more original, each sealed earlier than the one of the period before it: periods count.
beforeEach(async () => {
  reader = database.sql(database.url("revealer"));
  await owner.unsafe("truncate pii_vault.originals, pii_vault.canaries, public.user_logins");
  const etl = database.open(database.url("etl"));
  for (const [n, day] of DAYS.entries()) {
    const id = `${day}-${crypto.randomUUID()}`;
    await host.load(etl, [
      { id, body: { user_id: "u", ip: OWN }, sentAt: new Date(`${day}T12:00:00Z`) },
    ]);
    await owner`
      update pii_vault.originals set sealed_at = sealed_at - ${`${n + 1} days`}::interval
      where token = ${token} and period = etl.period_of(${day})`;
  }
});

async function request(...tokens: string[]): Promise<string> {
  const [row] = await reader`
    select pii_vault.request_reveal(${`{${tokens}}`}::text[], 'a test') as id`;
  return String(row?.id);
}

const sealOf = async (day: string): Promise<unknown> => {
  const [row] = await owner`
    select encode(sealed, 'hex') as seal from pii_vault.originals
    where token = ${token} and period = etl.period_of(${day})`;
  return row?.seal;
};

/** Before PostgreSQL 17 nobody can ask for a flush: a commit that writes brings it, as the program does it. */
async function flushed<T>(sql: postgres.Sql, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if ((error as { code?: string }).code !== "VL004") throw error;
      await sql`select pg_logical_emit_message(true, 'veil', '')`;
    }
  }
}

const fetch = async (id: string): Promise<unknown[]> => {
  const rows = await flushed(
    reader,
    async () =>
      await reader`select encode(sealed, 'hex') as seal from pii_vault.fetch_reveal(${id})`,
  );
  return rows.map(({ seal }) => seal);
};

type Asked = readonly [token: string, day: string | null];

async function fetchInPeriods(
  sql: postgres.Sql,
  id: string,
  asked: readonly Asked[],
): Promise<Record<string, unknown>[]> {
  return [
    ...(await flushed(
      sql,
      async () =>
        await sql.unsafe(
          `select token, first::text, until::text, encode(sealed, 'hex') as seal, wrapped is not null as opens
       from pii_vault.fetch_in_periods($1, $2::text[], $3::date[]) order by first`,
          [id, `{${asked.map(([one]) => one)}}`, `{${asked.map(([, day]) => day ?? "NULL")}}`],
        ),
    )),
  ];
}

test("by itself a token opens to the earliest period that is left, whenever it was sealed", async () => {
  const id = await request(token);
  for (const day of DAYS) {
    expect(await fetch(id)).toEqual([await sealOf(day)]);
    await owner`
      delete from pii_vault.originals where token = ${token} and period = etl.period_of(${day})`;
  }
  expect(await fetch(id)).toEqual([]);
});

describe("by period", () => {
  test("each day opens to its own period's original, with the bounds, and no day to the earliest", async () => {
    const id = await request(token);
    const asked: Asked[] = [...DAYS, "2024-01-31", "2024-01-15", null].map((day) => [token, day]);
    const seals = await Promise.all(DAYS.map(sealOf));
    expect(new Set(seals).size).toBe(4);
    const untils = ["2023-06-06", "2024-02-01", "2024-03-01", "2024-04-01"];
    expect(await fetchInPeriods(reader, id, asked)).toEqual([
      ...FIRSTS.map((first, n) => ({
        ...{ token, first, until: untils[n], seal: seals[n], opens: true },
      })),
      { token, first: null, until: null, seal: seals[0], opens: true },
    ]);
    const [entry] = await owner`
      select items, tokens from pii_vault.audit where request = ${id} and action = 'reveal.fetch'`;
    expect(entry).toEqual({ items: 5, tokens: [] });
  });

  test("a period whose original is gone answers without one, and so does one that never had any", async () => {
    const id = await request(token);
    await owner`delete from pii_vault.originals where period = '2024-01-01'`;
    const none = { token, seal: null, opens: false };
    expect(
      await fetchInPeriods(reader, id, [
        [token, "2024-01-02"],
        [token, "2022-02-02"],
      ]),
    ).toEqual([
      { ...none, first: "2022-02-02", until: "2022-02-03" },
      { ...none, first: "2024-01-01", until: "2024-02-01" },
    ]);
    const [entry] = await owner`
      select items from pii_vault.audit where request = ${id} and action = 'reveal.fetch'`;
    expect(entry?.items).toBe(0);
  });

  test("only tokens of the request are answered for", async () => {
    const other = host.token("ip", "198.51.100.8");
    await host.load(database.open(database.url("etl")), [
      {
        id: crypto.randomUUID(),
        body: { user_id: "u", ip: "198.51.100.8" },
        sentAt: new Date(`${DAYS[1]}T12:00:00Z`),
      },
    ]);
    const id = await request(token);
    const asked: Asked[] = [
      [other, DAYS[1]],
      [other, null],
    ];
    expect(await fetchInPeriods(reader, id, asked)).toEqual([]);
    expect(await fetchInPeriods(reader, await request(other), asked)).toHaveLength(2);
  });

  test("a canary is answered as an unknown token, by itself and in each period", async () => {
    const canary = await plantCanary(
      database.open(database.url("policy")),
      { subkeys: host.subkeys, recipients: [host.keys.VEIL_RECIPIENTS] },
      "ip",
      "198.51.100.9",
      null,
    );
    const [planted] = await owner`
      select period::text from pii_vault.originals where token = ${canary}`;
    const unknown = host.token("ip", "198.51.100.10");
    const id = await request(canary, unknown);
    expect(await fetch(id)).toEqual([]);
    for (const day of [String(planted?.period), null]) {
      const [one, another] = await fetchInPeriods(reader, id, [
        [canary, day],
        [unknown, day],
      ]);
      expect({ ...one, token: "" }).toEqual({ ...another, token: "" });
      expect(one?.seal).toBe(null);
    }
  });

  test("what was sealed after the request is no part of it", async () => {
    const id = await request(token);
    await owner`update pii_vault.originals set sealed_at = clock_timestamp() where period = '2024-01-01'`;
    const asked: Asked[] = [[token, "2024-01-15"]];
    expect(await fetchInPeriods(reader, id, asked)).toMatchObject([{ seal: null }]);
    expect(await fetchInPeriods(reader, await request(token), asked)).toMatchObject([
      { seal: await sealOf("2024-01-15") },
    ]);
  });

  test("it is admitted as any fetch is", async () => {
    const asked: Asked[] = [[token, DAYS[0]]];
    const attempt = (sql: postgres.Sql, id: string) => outcome(fetchInPeriods(sql, id, asked));
    await reader.unsafe("begin");
    const own = await request(token);
    expect(await attempt(reader, own)).toBe("VL002");
    await reader.unsafe("rollback");
    expect(await attempt(reader, own)).toBe("VL001");
    const id = await request(token);
    expect(await attempt(database.sql(await database.addLogin("revealer")), id)).toBe("VL001");
    expect(await attempt(database.sql(database.url("analyst")), id)).toBe("42501");
    await reader.unsafe("begin isolation level repeatable read");
    expect(await attempt(reader, id)).toBe("VL015");
    await reader.unsafe("rollback");
    expect(await attempt(reader, id)).toBe("allowed");
  });

  test("lists that do not match, or are too long, are refused", async () => {
    const id = await request(token);
    const attempt = (tokens: string, days: string) =>
      outcome(reader.unsafe(`select pii_vault.fetch_in_periods('${id}', ${tokens}, ${days})`));
    const day = "array[date '2024-01-15']";
    expect(await attempt(`array['${token}']`, "null")).toBe("VL006");
    expect(await attempt(`array['${token}']`, "'{}'")).toBe("VL006");
    expect(await attempt("null", day)).toBe("VL006");
    expect(await attempt(`array[array['${token}']]`, "array[array[date '2024-01-15']]")).toBe(
      "VL006",
    );
    expect(await attempt(`array['${token}', '${token}']`, day)).toBe("VL006");
    expect(await attempt("array['no token']", day)).toBe("allowed");
    const many = (n: number) => [
      `array_fill('${token}'::text, array[${n}])`,
      `array_fill(date '2024-01-15', array[${n}])`,
    ];
    expect(await attempt(many(10_000)[0]!, many(10_000)[1]!)).toBe("allowed");
    expect(await attempt(many(10_001)[0]!, many(10_001)[1]!)).toBe("VL006");
  });

  test("no other period is locked", async () => {
    const id = await request(token);
    await reader.unsafe("begin");
    await fetchInPeriods(reader, id, [[token, "2024-02-15"]]);
    const [backend] = await reader`select pg_backend_pid() as pid`;
    const locked = await owner`
      select c.relname as name from pg_catalog.pg_locks l
      join pg_catalog.pg_class c on c.oid = l.relation
      where l.pid = ${backend?.pid} and c.relname ~ '^originals' and c.relkind in ('r', 'p')
      order by 1`;
    await reader.unsafe("rollback");
    expect(locked.map(({ name }) => name)).toEqual(["originals", "originals_20240201"]);
  });
});
