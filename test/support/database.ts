// A migrated database of a test file's own, with a real login for each role.
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { readDatabase as databaseConfig } from "../../src/config/database-url.ts";
import { type Database, openDatabase } from "../../src/postgres/database.ts";
import { hasOwnServer, usePostgres } from "./servers.ts";
import { copyTemplate, migrateDatabase, withDatabase } from "./test-server.ts";

export const ROLES = [
  ...(["etl", "analyst", "revealer", "operator", "auditor"] as const),
  ...(["policy", "approver", "breakglass", "eraser"] as const),
];
export type Role = (typeof ROLES)[number];

export type TestDatabase = {
  readonly name: string;
  /** A superuser's. */
  readonly ownerUrl: string;
  /** Of a login that is a member of this role and of nothing else. */
  readonly url: (role: Role) => string;
  readonly login: (role: Role) => string;
  /** One more login of this role; answers with its URL. */
  readonly addLogin: (role: Role) => Promise<string>;
  /** The plain driver, for a test to do what veil would not. Closed by `drop`. */
  readonly sql: (url: string, options?: postgres.Options<Record<string, never>>) => postgres.Sql;
  /** As veil connects. Closed by `drop`. */
  readonly open: (url: string) => Database;
  readonly drop: () => Promise<void>;
};

const suffix = (): string => randomBytes(5).toString("hex");

export type DatabaseOptions = {
  /** If not, the database is empty, and has no logins: their roles may not exist. */
  readonly migrated?: boolean;
  /** A copy of one that was migrated, which is fast. If not, its audit chain is no other database's. */
  readonly copied?: boolean;
};

export async function createDatabase(options: DatabaseOptions = {}): Promise<TestDatabase> {
  const { migrated = true, copied = true } = options;
  const server = await usePostgres();
  const name = `veil_test_${suffix()}`;
  const admin = postgres(server.url, { max: 1, onnotice: () => {} });
  if (migrated && copied) await copyTemplate(admin, server.template, name);
  else await admin.unsafe(`create database ${name}`);
  const ownerUrl = withDatabase(server.url, name);
  const clients: postgres.Sql[] = [];
  const databases: Database[] = [];
  const logins: string[] = [];

  const sql: TestDatabase["sql"] = (url, extra = {}) => {
    const client = postgres(url, { max: 1, onnotice: () => {}, ...extra });
    clients.push(client);
    return client;
  };
  const open = (url: string): Database => {
    const database = openDatabase(databaseConfig({ DATABASE_URL: url }));
    databases.push(database);
    return database;
  };
  const urlOf = (login: string): string => {
    const url = new URL(ownerUrl);
    url.username = login;
    url.password = "test";
    return url.href;
  };
  const addLogins = async (roles: readonly Role[]): Promise<string[]> => {
    const made = roles.map((role) => `test_${role}_${suffix()}`);
    const create = (login: string, i: number) =>
      `create role ${login} login password 'test' in role veil_${roles[i]}`;
    await admin.unsafe(made.map(create).join(";"));
    logins.push(...made);
    return made.map(urlOf);
  };

  const urls = new Map<Role, string>();
  if (migrated && !copied) await migrateDatabase(ownerUrl);
  if (migrated) {
    const made = await addLogins(ROLES);
    for (const [i, role] of ROLES.entries()) urls.set(role, made[i]!);
  }
  const url = (role: Role): string => {
    const found = urls.get(role);
    if (found === undefined) throw new Error("this database was made without logins");
    return found;
  };
  return {
    name,
    ownerUrl,
    url,
    login: (role) => new URL(url(role)).username,
    addLogin: async (role) => (await addLogins([role]))[0]!,
    sql,
    open,
    drop: async () => {
      await Promise.all([
        ...clients.map((client) => client.end({ timeout: 1 })),
        ...databases.map((database) => database.close()),
      ]);
      // A server of our own is thrown away soon, and a drop would make it write all that it has to disk.
      if (!hasOwnServer) {
        await admin.unsafe(`drop database ${name} with (force)`);
        for (const login of logins) await admin.unsafe(`drop role ${login}`);
      }
      await admin.end();
    },
  };
}
