// Opens the database for a command, as a login with the roles that the command needs. A login that
// lacks one of them is told which, and the GRANT that mends it.
import { readDatabase } from "../config/database-url.ts";
import type { Environment } from "../config/environment.ts";
import type { KeyVariable } from "../config/keys.ts";
import { failed, hasCode } from "../failure.ts";
import type { Role } from "../local/logins.ts";
import { type Database, openDatabase } from "../postgres/database.ts";
import { requireSchema } from "../postgres/schema.ts";
import { INSUFFICIENT_PRIVILEGE } from "../postgres/sqlstates.ts";
import { type Context, type Servers, withServers } from "./servers.ts";

export type DatabaseNeeds<K> = {
  /** The login needs all of them. None: the command is the owner's. */
  readonly roles: readonly Role[];
  /** Each of these would do in their place. */
  readonly orRoles?: readonly Role[];
  /** Read before anything is opened, so that a malformed key starts nothing. */
  readonly keys?: {
    readonly variables: readonly KeyVariable[];
    readonly read: (env: Environment) => K | Promise<K>;
  };
  /** The command ends by itself, in good order, when it is interrupted. */
  readonly endsItself?: boolean;
  /**
   * Answers when the database is ready for the command. Default: when it is at this program's
   * schema.
   */
  readonly ready?: (database: Database) => Promise<unknown>;
};

export type OpenDatabase<K> = Servers & { readonly database: Database; readonly keys: K };

/** The database is closed however `work` ends. */
export function withDatabase<T, K = undefined>(
  context: Context,
  needs: DatabaseNeeds<K>,
  work: (opened: OpenDatabase<K>) => Promise<T>,
): Promise<T> {
  const { roles, orRoles = [], keys, endsItself = false, ready = requireSchema } = needs;
  const servers = { roles, endsItself, variables: keys?.variables ?? [] };
  return withServers(context, servers, async (opened) => {
    const read = (await keys?.read(opened.env)) as K;
    const database = openDatabase(readDatabase(opened.env));
    try {
      await ready(database);
      return await work({ ...opened, database, keys: read });
    } catch (error) {
      throw hasCode(error, INSUFFICIENT_PRIVILEGE)
        ? ((await lackingRole(database, roles, orRoles).catch(() => null)) ?? error)
        : error;
    } finally {
      // Not waited for: the answer is there, and the server takes a while to close a connection.
      void database.close();
    }
  });
}

/** Null where the login has the roles: it lacks something else. */
async function lackingRole(
  database: Database,
  roles: readonly Role[],
  orRoles: readonly Role[],
): Promise<unknown> {
  const lacking: Role[] = [];
  let login: unknown;
  for (const role of roles) {
    const [row] = await database.query(
      `select pg_catalog.quote_ident(session_user) as login,
         pg_catalog.pg_has_role(session_user, $1::text, 'usage') as has`,
      [role],
    );
    login = row?.login;
    if (row?.has === false) lacking.push(role);
  }
  if (lacking.length === 0) return null;
  return failed(
    `the login ${login} may not do this: it lacks ${[lacking.join(" and "), ...orRoles].join(" or ")}`,
    `an administrator of the database's roles runs: GRANT ${lacking.join(", ")} TO ${login};`,
  );
}
