// The logins that an analyst reads, page by page out of one cursor, and again from the first.

import type { Query } from "../postgres/database.ts";
import { array, type Row, type Value } from "../postgres/values.ts";

export type LoginFilter = {
  readonly userId: string | null;
  /** Days as YYYY-MM-DD, both included. */
  readonly since: string | null;
  readonly until: string | null;
  /** Logins with one of these tokens. */
  readonly tokens: readonly string[] | null;
};

/** A login as it is stored, with tokens in the place of personal data. */
export type StoredLogin = {
  readonly userId: string | null;
  readonly createDate: string | null;
  readonly deviceType: string | null;
  readonly locale: string | null;
  readonly appVersion: string | null;
  readonly maskedIp: string | null;
  readonly maskedDeviceId: string | null;
};

export type LoginCursor = {
  /** The next logins; none at the end. */
  readonly page: () => Promise<readonly StoredLogin[]>;
  readonly rewind: () => Promise<void>;
};

/** With two tokens each, a page's tokens fit into one request. */
export const LOGINS_PER_PAGE = 5000;

/**
 * `query` is of a transaction: behind PgBouncer the next statement could otherwise run on another
 * connection. Only logins that are alike in every column have no order between them.
 */
export async function openLogins(query: Query, filter: LoginFilter): Promise<LoginCursor> {
  const { conditions, values } = where(filter);
  // A function that somebody has put into `public` could fit a call better than the one that is
  // meant.
  await query("set local search_path = pg_catalog, pg_temp");
  // All rows will be read: the plan that is quickest to the first row is not wanted.
  await query("set local cursor_tuple_fraction = 1");
  await query(
    `declare logins scroll cursor for
     select user_id, pg_catalog.to_char(create_date, 'YYYY-MM-DD') as create_date, device_type,
       locale, etl.app_version_text(app_version) as app_version, masked_ip, masked_device_id
     from public.user_logins
     where ${conditions.join(" and ")}
     order by user_logins.create_date, user_id collate "C", masked_ip collate "C",
       masked_device_id collate "C", device_type collate "C", locale collate "C",
       user_logins.app_version`,
    values,
  );
  const fetch = () => query(`fetch forward ${LOGINS_PER_PAGE} from logins`);
  // While a page is worked on, the database reads the next one.
  let ahead: Promise<readonly Row[]> | undefined;
  return {
    page: async () => {
      const rows = await (ahead ?? fetch());
      ahead = rows.length > 0 ? fetch() : undefined;
      ahead?.catch(() => {}); // thrown where it is awaited, if it ever is
      return rows.map(readLogin);
    },
    rewind: async () => {
      await ahead;
      ahead = undefined;
      await query("move absolute 0 in logins");
    },
  };
}

function where({ userId, since, until, tokens }: LoginFilter) {
  const conditions: string[] = [];
  const values: Value[] = [];
  const parameter = (value: string) => `$${values.push(value)}`;
  if (userId !== null) conditions.push(`user_id = ${parameter(userId)}::text`);
  if (since !== null) conditions.push(`create_date >= ${parameter(since)}::date`);
  if (until !== null) conditions.push(`create_date <= ${parameter(until)}::date`);
  if (tokens !== null) {
    const of = (prefix: string) =>
      `any (${parameter(array(tokens.filter((token) => token.startsWith(prefix))))}::text[])`;
    conditions.push(`(masked_ip = ${of("ip")} or masked_device_id = ${of("dev")})`);
  }
  return { conditions, values };
}

function readLogin(row: Row): StoredLogin {
  const text = (column: string): string | null => {
    const value = row[column];
    return typeof value === "string" ? value : null;
  };
  return {
    userId: text("user_id"),
    createDate: text("create_date"),
    deviceType: text("device_type"),
    locale: text("locale"),
    appVersion: text("app_version"),
    maskedIp: text("masked_ip"),
    maskedDeviceId: text("masked_device_id"),
  };
}
