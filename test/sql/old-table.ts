// A table user_logins from before veil, as somebody may have it.
import { expect } from "bun:test";
import type postgres from "postgres";
import { checkInvariant, INVARIANTS } from "../../src/check.ts";
import { Failure } from "../../src/failure.ts";
import { type Migrated, migrate, type PeriodLength } from "../../src/postgres/migrate.ts";
import type { TestDatabase } from "../support/database.ts";

/** Those of the published DDL. */
export const COLUMNS = `user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
  masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date`;

/** A token of another vault, or of generation 0. */
export const token = (field: "ip" | "dev", letter: string, generation = 1): string =>
  `${field}${generation}_${letter.repeat(25)}a`;

export const asSuperuser = (
  database: TestDatabase,
  period: PeriodLength | null = null,
): Promise<Migrated> => migrate(database.open(database.ownerUrl), undefined, period);

export async function refusal(work: Promise<unknown>, what = "it"): Promise<Failure> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error(`${what} was not refused`);
}

/** Each invariant that is broken, with its examples. */
export async function brokenInvariants(database: TestDatabase): Promise<string[]> {
  const operator = database.open(await database.addLogin("operator"));
  const found: string[] = [];
  for (const invariant of INVARIANTS) {
    const { offenders, examples } = await checkInvariant(operator, invariant);
    if (offenders > 0) found.push(`${invariant.name} ${offenders}: ${examples.join(", ")}`);
  }
  return found;
}

/** What there is of tables in these schemas, whose they are, and who may use them. */
export async function shapeOf(sql: postgres.Sql): Promise<postgres.Row[]> {
  return [
    ...(await sql`
      select c.relowner::regrole::text as owner, c.relacl::text as acl, n.nspname::text as place,
        c.relname::text as name, c.relkind::text as kind, n.nspacl::text as schema
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where n.nspname in ('public', 'etl', 'pii_vault') order by c.relname`),
  ];
}

export type Period = { readonly first: string; readonly until: string };

export const periodsOf = async (sql: postgres.Sql): Promise<Period[]> =>
  [...(await sql`select first::text, until::text from etl.periods order by periods.first`)].map(
    ({ first, until }) => ({ first: String(first), until: String(until) }),
  );

export function expectSideBySide(periods: readonly Period[]): void {
  for (const [i, { first }] of periods.slice(1).entries()) {
    expect([first, periods[i]!.until]).toEqual([first, first]);
  }
}
