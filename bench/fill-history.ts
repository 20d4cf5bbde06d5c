// A database with years in it: logins and originals as veil writes them, in the periods of the past and in
// today's, only that nothing is sealed in them. Put there by the server itself, as the owner.

import type postgres from "postgres";
import { readTokenKey } from "../src/config/keys.ts";
import { DataKeys } from "../src/keys/data-keys.ts";
import { type Servers, withConnection } from "./servers.ts";

const MONTHS = 12;
/** One for each core of a small machine. */
const FILLERS = 2;

/** One period, and how many logins and as many originals it holds. Days as PostgreSQL writes them. */
export type Span = { readonly first: string; readonly until: string; readonly logins: number };

export type History = {
  readonly database: "history";
  /** Makes today's period anew, with what it held at first, and nothing in the ledger. */
  readonly reset: () => Promise<void>;
  readonly current: Span;
  readonly past: readonly Span[];
};

/** An even number: half addresses, half devices. */
const even = (count: number): number => 2 * Math.ceil(count / 2);

/** The month that many months after this day's. */
function monthOf(day: Date, after: number): string {
  const first = new Date(Date.UTC(day.getUTCFullYear(), day.getUTCMonth() + after, 1));
  return first.toISOString().slice(0, 10);
}

const spanOf = (day: Date, after: number, logins: number): Span => ({
  first: monthOf(day, after),
  until: monthOf(day, after + 1),
  logins: even(logins),
});

/** `inCurrent` of the logins in this month, the others in the twelve before it. */
export async function fillHistory(
  servers: Servers,
  { logins, inCurrent }: { readonly logins: number; readonly inCurrent: number },
  onProgress: (done: number) => void,
): Promise<History> {
  await withConnection(servers.connect("postgres"), (sql) =>
    sql.unsafe("create database history template veil"),
  );
  const dataKey = await withConnection(servers.connect("history"), (sql) =>
    registerKey(servers, sql),
  );
  const today = new Date();
  const past = Array.from({ length: MONTHS }, (_, i) =>
    spanOf(today, i - MONTHS, (logins - inCurrent) / MONTHS),
  );
  const current = spanOf(today, 0, inCurrent);
  const waiting = [...past, current].filter((span) => span.logins > 0);
  let done = 0;
  const fill = () =>
    withConnection(servers.connect("history"), async (sql) => {
      for (let span = waiting.shift(); span !== undefined; span = waiting.shift()) {
        await fillSpan(sql, dataKey, span, today);
        done += span.logins;
        onProgress(done);
      }
    });
  await Promise.all(Array.from({ length: FILLERS }, fill));
  return {
    database: "history",
    ...{ current, past },
    reset: () =>
      withConnection(servers.connect("history"), async (sql) => {
        await sql.unsafe("truncate etl.ledger");
        await fillSpan(sql, dataKey, current, today);
      }),
  };
}

/**
 * Of a month that nothing has, so many months before this one. A sixth of it comes after its last vacuum: that is the
 * most that autovacuum leaves with its default settings.
 */
export async function fillMonth(
  servers: Servers,
  monthsBefore: number,
  logins: number,
): Promise<Span> {
  const today = new Date();
  const span = spanOf(today, -monthsBefore, logins);
  await withConnection(servers.connect("history"), async (sql) => {
    const [key] = await sql`select id from pii_vault.data_keys limit 1`;
    await fillSpan(sql, String(key?.id), span, today, Math.floor(span.logins / 6));
  });
  return span;
}

async function registerKey(servers: Servers, sql: postgres.Sql): Promise<string> {
  const subkeys = readTokenKey(servers.keys);
  const { wrapped } = await new DataKeys(subkeys, [servers.keys.VEIL_RECIPIENTS]).take(1);
  const [generation, check] = [subkeys.generation, Buffer.from(subkeys.check)];
  await sql`
    insert into pii_vault.key_generations (generation, key_check) values (${generation}, ${check})`;
  await sql`
    insert into pii_vault.data_keys (id, generation, wrapped, recipients, proof)
    values (
      ${wrapped.id}, ${generation}, ${Buffer.from(wrapped.wrapped)}, ${[...wrapped.recipients]},
      ${Buffer.from(wrapped.proof)}
    )`;
  return wrapped.id;
}

/**
 * Filled first, then indexed, then attached: that is several times as fast, and leaves indexes as `reindex` would.
 * `after`: how many of them come when it has been vacuumed already.
 */
async function fillSpan(
  sql: postgres.Sql,
  dataKey: string,
  span: Span,
  today: Date,
  after = 0,
): Promise<void> {
  const { first, until } = span;
  const [originals, rows] = tablesOf(span);
  const vacuumed = span.logins - after;
  for (const statement of [
    "set role veil_owner",
    "set maintenance_work_mem = '512MB'",
    `drop table if exists ${originals}, ${rows}`,
    `delete from etl.periods where first = '${first}'`,
    `delete from etl.ledger_totals where sent_on >= '${first}' and sent_on < '${until}'`,
    `select pii_vault.make_originals_table('${nameOf(originals)}')`,
    `select etl.make_logins_table('${nameOf(rows)}')`,
    ...[originals, rows].map(dropIndexes),
    ...fillingOf(span, dataKey, today, 0, vacuumed),
    ...(await indexesOf(sql, "pii_vault.originals", originals)),
    ...(await indexesOf(sql, "public.user_logins", rows)),
    `alter table pii_vault.originals attach partition ${originals}
      for values from ('${first}') to ('${until}')`,
    `alter table public.user_logins attach partition ${rows}
      for values from ('${first}') to ('${until}')`,
    `insert into etl.periods (first, until) values ('${first}', '${until}')`,
    // Otherwise autovacuum would take all of it for new.
    "select pg_stat_force_next_flush()",
    `vacuum analyze ${originals}, ${rows}`,
    ...(after === 0 ? [] : fillingOf(span, dataKey, today, vacuumed, span.logins)),
    // Not counted from the rows: nothing reads those before what is measured.
    `insert into etl.ledger_totals (sent_on, messages)
      select ${dayOf(span, today)}, count(*) from generate_series(0::bigint, ${span.logins - 1}) n group by 1`,
    "reset role",
  ]) {
    await sql.unsafe(statement);
  }
}

/** Of originals and of rows. */
export function tablesOf({ first }: Span): readonly [string, string] {
  const suffix = first.replaceAll("-", "");
  return [`pii_vault.originals_${suffix}`, `etl.user_logins_${suffix}`];
}

const nameOf = (table: string): string => table.slice(table.indexOf(".") + 1);

/** Of login and original `n`. What is ahead of today is not there yet. */
function dayOf({ first, until, logins }: Span, today: Date): string {
  const tomorrow = `'${today.toISOString().slice(0, 10)}'::date + 1`;
  return `'${first}'::date + (n * (least('${until}'::date, ${tomorrow}) - '${first}'::date) / ${logins})::integer`;
}

/** Puts these of its logins and originals there, by their numbers. */
function fillingOf(span: Span, dataKey: string, today: Date, from: number, to: number): string[] {
  const { first, logins } = span;
  const [originals, rows] = tablesOf(span);
  const day = dayOf(span, today);
  const series = `generate_series(${from}::bigint, ${to - 1}) n`;
  return [
    `insert into ${originals} (token, period, data_key, sealed, sealed_at)
      select
        ${tokenSql("n % 2 = 0", first, "n")}, '${first}', '${dataKey}',
        -- No nonce twice.
        int8send(n) || int4send('${first}'::date - '2000-01-01') || sha256(int8send(n)),
        ${day}
      from ${series}`,
    // Each original has two logins: address i, and some device that is far from it.
    `insert into ${rows} (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
      )
      select
        gen_random_uuid(), case n % 2 when 0 then 'android' else 'ios' end,
        ${tokenSql("true", first, "n / 2 * 2")},
        ${tokenSql("false", first, `n * ${STRIDE} % ${logins / 2} * 2 + 1`)},
        case when n % 5 > 0 then 'en_US' end, 2003000,
        ${day}
      from ${series}`,
  ];
}

/** Prime: in half of the logins' number it visits each device, in a mixed order. */
const STRIDE = 1_000_003;

/** The token of an original, by its number in its period. A digest's letters in base64 are folded to those of base32. */
export const tokenSql = (isIp: string, first: string, number: string): string =>
  `case when ${isIp} then 'ip1_' else 'dev1_' end || translate(
    lower(left(
      encode(sha256(int8send(('${first}'::date - '2000-01-01') * 1000000000000 + (${number}))), 'base64'), 25
    ) collate "C"),
    '0189+/', '234567'
  ) || substr('aeimquy4', ((${number}) % 8)::integer + 1, 1)`;

/** What makes the indexes that a partition has to have when it is attached. */
async function indexesOf(sql: postgres.Sql, parent: string, table: string): Promise<string[]> {
  const indexes = await sql`
    select
      pg_get_constraintdef(c.oid) as key,
      regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', '') as definition
    from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.contype = 'p'
    where i.indrelid = ${parent}::regclass`;
  return indexes.map(({ key, definition }) =>
    key === null
      ? `create index on ${table} using ${definition}`
      : `alter table ${table} add ${key}`,
  );
}

/** Tables are made with their indexes. */
const dropIndexes = (table: string): string => `do $$
  declare
    index record;
  begin
    for index in
      select i.indexrelid::regclass as name, c.conname as key
      from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.contype = 'p'
      where i.indrelid = '${table}'::regclass
    loop
      if index.key is null then
        execute format('drop index %s', index.name);
      else
        execute format('alter table ${table} drop constraint %I', index.key);
      end if;
    end loop;
  end
  $$`;
