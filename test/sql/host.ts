// An ETL host as far as the database can tell: keys, and batches protected with them.
import type postgres from "postgres";
import { readTokenKey } from "../../src/config/keys.ts";
import { DataKeys, type SealingKey } from "../../src/keys/data-keys.ts";
import { argumentsOf, type LoadResult, load } from "../../src/line/load.ts";
import { parseMessage } from "../../src/login/parse.ts";
import { maxSeals, type Protected, protect } from "../../src/login/protect.ts";
import type { Database } from "../../src/postgres/database.ts";
import type { Field } from "../../vault/canonical.ts";
import type { Subkeys } from "../../vault/keys.ts";
import { makeToken } from "../../vault/token.ts";
import { makeKeys, type TestKeys } from "../support/keys.ts";

export type Message = {
  readonly id: string;
  readonly body: string | Readonly<Record<string, unknown>>;
  readonly sentAt?: Date;
};

export type Batch = Protected & { readonly key: SealingKey };

export type Host = {
  readonly keys: TestKeys;
  readonly subkeys: Subkeys;
  readonly dataKeys: DataKeys;
  readonly token: (field: Field, original: string) => string;
  readonly protect: (messages: readonly Message[]) => Promise<Batch>;
  readonly load: (database: Database, messages: readonly Message[]) => Promise<LoadResult>;
};

export async function makeHost(given?: TestKeys): Promise<Host> {
  const keys = given ?? (await makeKeys());
  const subkeys = readTokenKey(keys);
  const dataKeys = new DataKeys(subkeys, [keys.VEIL_RECIPIENTS]);
  const protectMessages: Host["protect"] = async (messages) => {
    const parsed = messages.map(({ id, body, sentAt }) => {
      const text = typeof body === "string" ? body : JSON.stringify(body);
      return { id, body: text, sentAt: sentAt ?? new Date(), parsed: parseMessage(text) };
    });
    const key = await dataKeys.take(maxSeals(messages.length));
    return { key, ...protect(parsed, subkeys, key.dataKey) };
  };
  return {
    keys,
    subkeys,
    dataKeys,
    token: (field, original) => makeToken(subkeys, field, original),
    protect: protectMessages,
    load: async (database, messages) => {
      const { key, ...batch } = await protectMessages(messages);
      return await load(database, subkeys, key, batch);
    },
  };
}

export type Argument = Uint8Array | string | number | null;

/** The arguments of `etl.load`, by name, for a test to bend one of them. */
export function loadArguments(host: Host, batch: Batch): Record<string, Argument> {
  return argumentsOf(crypto.randomUUID(), host.subkeys, batch.key, batch) as Record<
    string,
    Argument
  >;
}

/** The bare statement: no transaction of its own, no second try. */
export async function callLoad(
  sql: postgres.Sql | postgres.TransactionSql,
  values: Record<string, Argument>,
): Promise<postgres.Row | undefined> {
  const names = Object.keys(values);
  const list = names.map((name, i) => `${name} => $${i + 1}`).join(", ");
  const [row] = await sql.unsafe(
    `select * from etl.load(${list})`,
    names.map((name) => values[name] ?? null),
  );
  return row;
}

/** How many rows each table of veil's holds, to show that nothing was written. */
export async function countRows(sql: postgres.Sql): Promise<Record<string, number>> {
  const tables = await sql`
    select format('%I.%I', n.nspname, c.relname) as name
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('public', 'etl', 'pii_vault') and c.relkind in ('r', 'p')
      and not c.relispartition
    order by 1`;
  const counts: Record<string, number> = {};
  for (const { name } of tables) {
    const [row] = await sql.unsafe(`select count(*)::integer as rows from ${name}`);
    counts[String(name)] = Number(row?.rows);
  }
  return counts;
}
