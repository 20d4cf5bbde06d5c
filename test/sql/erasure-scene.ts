// A database with logins in it, somebody to erase them, and eyes for what each can still see.
import { expect } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { checkInvariant, INVARIANTS } from "../../src/check.ts";
import { readIdentities } from "../../src/config/keys.ts";
import { OpeningKeys } from "../../src/keys/open.ts";
import type { LoadResult } from "../../src/line/load.ts";
import type { Database } from "../../src/postgres/database.ts";
import { createDatabase, type Role, type TestDatabase } from "../support/database.ts";
import { reveal } from "../support/reveal.ts";
import { type Host, makeHost } from "./host.ts";

export type Login = {
  readonly user: string;
  readonly ip?: string | null;
  readonly device?: string | null;
  readonly day?: string;
};

export type Row = {
  readonly user_id: string;
  readonly masked_ip: string | null;
  readonly masked_device_id: string | null;
  readonly create_date: string;
};

export type ErasureScene = {
  readonly database: TestDatabase;
  readonly owner: postgres.Sql;
  readonly host: Host;
  readonly as: (role: Role) => Database;
  readonly load: (...logins: readonly Login[]) => Promise<LoadResult>;
  readonly ip: (value: string) => string;
  readonly device: (value: string) => string;
  /** In the order in which they were stored. */
  readonly rowsOf: (...users: readonly string[]) => Promise<Row[]>;
  /** What a revealer gets for these tokens. */
  readonly revealed: (...tokens: readonly string[]) => Promise<(string | null)[]>;
  readonly inVault: (...tokens: readonly string[]) => Promise<number>;
  readonly tombstones: (...tokens: readonly string[]) => Promise<number>;
  readonly expectSound: () => Promise<void>;
};

export const FRESH = /^(ip|dev)0_[a-z2-7]{25}[aeimquy4]$/;

export async function makeErasureScene(
  database?: TestDatabase,
  given?: Host,
): Promise<ErasureScene> {
  const used = database ?? (await createDatabase());
  const owner = used.sql(used.ownerUrl);
  const host = given ?? (await makeHost());
  const opened = new Map<Role, Database>();
  const as = (role: Role): Database => {
    const known = opened.get(role) ?? used.open(used.url(role));
    opened.set(role, known);
    return known;
  };
  const keys = new OpeningKeys({
    identities: readIdentities(host.keys),
    verifyKey: null,
    subkeys: null,
  });
  return {
    ...{ database: used, owner, host, as },
    load: (...logins) =>
      host.load(
        as("etl"),
        logins.map(({ user, ip, device, day }) => ({
          id: randomUUID(),
          body: { user_id: user, ip: ip ?? null, device_id: device ?? null },
          ...(day === undefined ? {} : { sentAt: new Date(`${day}T12:00:00Z`) }),
        })),
      ),
    ip: (value) => host.token("ip", value),
    device: (value) => host.token("device_id", value),
    rowsOf: async (...users) => [
      ...(await owner<Row[]>`
        select user_id, masked_ip, masked_device_id, create_date::text as create_date
        from public.user_logins where user_id = any(${users as string[]})
        order by user_id, create_date, masked_ip, masked_device_id`),
    ],
    revealed: async (...tokens) => {
      const { revealed } = await reveal(as("revealer"), keys, tokens, "a test");
      return tokens.map((token) => revealed.find((one) => one.token === token)?.original ?? null);
    },
    inVault: async (...tokens) => {
      const [row] = await owner`
        select count(*)::integer as n from pii_vault.originals
        where token = any(${tokens as string[]})`;
      return Number(row?.n);
    },
    tombstones: async (...tokens) => {
      const rows = await owner`
        select token from pii_vault.tombstones where token = any(${tokens as string[]})`;
      return rows.length;
    },
    expectSound: async () => {
      for (const invariant of INVARIANTS) {
        const { offenders, examples } = await checkInvariant(as("auditor"), invariant);
        expect({ name: invariant.name, offenders, examples }).toEqual({
          ...{ name: invariant.name, offenders: 0, examples: [] },
        });
      }
    },
  };
}
