// How long a period is: `veil migrate --period` says it for those that are yet to be made, and moves none that is there.
import { afterEach, beforeEach, expect, test } from "bun:test";
import type postgres from "postgres";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { veil } from "../support/veil.ts";
import { makeHost } from "./host.ts";
import {
  asSuperuser,
  brokenInvariants,
  expectSideBySide,
  type Period,
  periodsOf,
} from "./old-table.ts";

let database: TestDatabase;
let owner: postgres.Sql;
beforeEach(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  await owner`set role veil_owner`;
});
afterEach(() => database.drop());

const DAY = 86_400_000;
const days = ({ first, until }: Period): number => (Date.parse(until) - Date.parse(first)) / DAY;
const weekday = (day: string): number => new Date(`${day}T00:00:00Z`).getUTCDay();

async function housekeep(day: string): Promise<Period[]> {
  await owner`select etl.housekeep_on(${day}::date)`;
  return await periodsOf(owner);
}

test("months become weeks, days and months again, side by side, and none that is there changes", async () => {
  const months = await housekeep("2040-01-15");
  expect(months.at(-1)).toEqual({ first: "2040-01-01", until: "2040-02-01" });

  expect(await asSuperuser(database, "week")).toMatchObject({ applied: [], period: "week" });
  expect(await periodsOf(owner)).toEqual(months);
  const withWeeks = await housekeep("2040-03-05");
  const weeks = withWeeks.slice(months.length);
  // 2040-02-01 is a Wednesday: the first one lasts until the first Monday.
  expect(weeks[0]).toEqual({ first: "2040-02-01", until: "2040-02-06" });
  for (const week of weeks.slice(1)) expect([weekday(week.first), days(week)]).toEqual([1, 7]);
  expect(weeks.at(-1)).toEqual({ first: "2040-03-19", until: "2040-03-26" });

  await asSuperuser(database, "day");
  const withDays = await housekeep("2040-04-01");
  expect(withDays.slice(0, withWeeks.length)).toEqual(withWeeks);
  const single = withDays.slice(withWeeks.length);
  expect(single.map(days)).toEqual(single.map(() => 1));
  expect(single.at(-1)).toEqual({ first: "2040-04-15", until: "2040-04-16" });

  await asSuperuser(database, "month");
  const all = await housekeep("2040-05-20");
  expect(all.slice(withDays.length)).toEqual([
    { first: "2040-04-16", until: "2040-05-01" },
    { first: "2040-05-01", until: "2040-06-01" },
    { first: "2040-06-01", until: "2040-07-01" },
  ]);
  // Those of the real day lie behind a gap.
  expectSideBySide(all.filter(({ first }) => first >= "2039"));

  // Without the option, it stays as it was said.
  await asSuperuser(database, "day");
  expect(await asSuperuser(database)).toMatchObject({ period: "day" });
});

test("rows and originals of a week, a day and a month stand in theirs", async () => {
  for (const [length, day] of [
    ["month", "2040-01-15"],
    ["week", "2040-03-05"],
    ["day", "2040-04-01"],
  ] as const) {
    await asSuperuser(database, length);
    await housekeep(day);
  }
  const host = await makeHost();
  const etl = database.open(database.url("etl"));
  const load = (id: string, day: string) =>
    host.load(etl, [
      { id, sentAt: new Date(`${day}T23:59:59Z`), body: { user_id: "u", ip: "192.0.2.1" } },
    ]);
  for (const day of ["2040-01-31", "2040-02-01", "2040-02-05", "2040-02-06", "2040-04-01"]) {
    await load(day, day);
  }
  const rows = await owner`
    select l.create_date::text as day, o.period::text as period, l.tableoid::regclass::text as place
    from public.user_logins l
    join pii_vault.originals o
      on o.tableoid::regclass::text = replace(l.tableoid::regclass::text, 'etl.user_logins', 'pii_vault.originals')
    order by 1`;
  expect(rows.map(({ day, period }) => `${day} ${period}`)).toEqual([
    "2040-01-31 2040-01-01",
    "2040-02-01 2040-02-01",
    "2040-02-05 2040-02-01",
    "2040-02-06 2040-02-06",
    "2040-04-01 2040-04-01",
  ]);
  expect(rows.map(({ place }) => place)).not.toContain("etl.user_logins_without_period");
  expect(await brokenInvariants(database)).toEqual([]);
});

test("the command takes a month, a week or a day, and nothing else", async () => {
  const env = { DATABASE_URL: database.ownerUrl };
  const run = await veil(["migrate", "--period", "week", "--json"], { env });
  expect(JSON.parse(run.stdout)).toMatchObject({ applied: [], period: "week" });
  expect(run.code).toBe(0);
  for (const wrong of ["year", "Week", "7", ""]) {
    const refused = await veil(["migrate", `--period=${wrong}`], { env });
    expect([wrong, refused.code, refused.stdout]).toEqual([wrong, 2, ""]);
    expect(refused.stderr).toContain("month, week, day");
  }
  const [kept] = await owner`select length from etl.period_length`;
  expect(kept?.length).toBe("week");
});
