// A migrated database of a test file's own, with a real login for each role.
import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { readDatabase as databaseConfig } from "../../src/config/database-url.ts";
import { type Database, openDatabase } from "../../src/postgres/database.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { atEnd, usePostgres } from "./servers.ts";

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

/** A migrated database to copy: to migrate another one takes ten times as long. Made where a second is needed. */
let template: Promise<string> | null = null;
let migrated = 0;

async function migrateDatabase(url: string): Promise<void> {
  const owner = openDatabase(databaseConfig({ DATABASE_URL: url }));
  await migrate(owner);
  await owner.close();
}

async function makeTemplate(admin: postgres.Sql, serverUrl: string): Promise<string> {
  const name = `veil_template_${suffix()}`;
  await admin.unsafe(`create database ${name}`);
  await migrateDatabase(withPath(serverUrl, name));
  atEnd(async () => {
    const last = postgres(serverUrl, { max: 1, onnotice: () => {} });
    await last.unsafe(`drop database ${name} with (force)`);
    await last.end();
  });
  return name;
}

/** Without `migrated`, the database is empty and its logins' roles may not exist: none are made. */
export async function createDatabase(options: { migrated?: boolean } = {}): Promise<TestDatabase> {
  const server = await usePostgres();
  const name = `veil_test_${suffix()}`;
  const admin = postgres(server.url, { max: 1, onnotice: () => {} });
  const isCopy = options.migrated !== false && migrated++ > 0;
  if (isCopy) {
    template ??= makeTemplate(admin, server.url);
    const source = await template;
    await admin.unsafe(`create database ${name} template ${source}`);
    // The rights on a database are not copied with it.
    await admin`
      update pg_database set datacl = (select datacl from pg_database where datname = ${source})
      where datname = ${name}`;
  } else {
    await admin.unsafe(`create database ${name}`);
  }
  const ownerUrl = withPath(server.url, name);
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
  const addLogin = async (role: Role): Promise<string> => {
    const login = `test_${role}_${suffix()}`;
    await admin.unsafe(`create role ${login} login password 'test' in role veil_${role}`);
    logins.push(login);
    const url = new URL(ownerUrl);
    url.username = login;
    url.password = "test";
    return url.href;
  };

  const urls = new Map<Role, string>();
  if (options.migrated !== false) {
    if (!isCopy) await migrateDatabase(ownerUrl);
    for (const role of ROLES) urls.set(role, await addLogin(role));
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
    addLogin,
    sql,
    open,
    drop: async () => {
      await Promise.all([
        ...clients.map((client) => client.end({ timeout: 1 })),
        ...databases.map((database) => database.close()),
      ]);
      await admin.unsafe(`drop database ${name} with (force)`);
      for (const login of logins) await admin.unsafe(`drop role ${login}`);
      await admin.end();
    },
  };
}

function withPath(url: string, database: string): string {
  const changed = new URL(url);
  changed.pathname = `/${database}`;
  return changed.href;
}
