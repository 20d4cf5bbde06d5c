// The one door to PostgreSQL. What the program needs of a database stands in the type `Database`.
import type { DatabaseConfig } from "../config/database-url.ts";
import { type Client, connect, serverOf } from "./driver.ts";
import { isBroken, unreachable } from "./errors.ts";
import { withoutTls } from "./tls.ts";
import type { Row, Value } from "./values.ts";

export type Query = (text: string, values?: readonly Value[]) => Promise<readonly Row[]>;

export type Database = {
  readonly host: string;
  /** One statement, committed when it answers. `timeoutMs`: how long the answer is waited for. */
  readonly query: (
    text: string,
    values?: readonly Value[],
    timeoutMs?: number,
  ) => Promise<readonly Row[]>;
  /** All of `work` or none of it, at READ COMMITTED whatever the server's default is. */
  readonly transaction: <T>(work: (query: Query) => Promise<T>, timeoutMs?: number) => Promise<T>;
  /** For reading only. All of `work` sees what was committed when its first query began. */
  readonly snapshot: <T>(work: (query: Query) => Promise<T>) => Promise<T>;
  /**
   * Calls back at each notification, on a connection of its own, until the answer is called. It
   * only ever saves time: a pooler in transaction mode lets no notification through, and a lost
   * connection is not made again.
   */
  readonly listen: (channel: string, onNotify: (payload: string) => void) => Promise<() => void>;
  /** Goes on with new connections, where the old ones cannot be trusted any more. */
  readonly renew: () => void;
  /** `seconds`: how long running statements are waited for. */
  readonly close: (seconds?: number) => Promise<void>;
};

/** Connects at the first query, not here. */
export function openDatabase(config: DatabaseConfig, connections = 1): Database {
  let client = connect(config, { connections });
  // After an outage the whole client is replaced: what the driver keeps of a broken connection
  // (unsent bytes, for one) can spoil the next one.
  const replace = (broken: Client) => {
    if (client === broken) client = connect(config, { connections });
    broken.discard();
  };
  const transact = async <T>(
    mode: string,
    work: (query: Query) => Promise<T>,
    timeoutMs?: number,
  ): Promise<T> => {
    // A connection of its own. The driver's transactions (3.4.9) write their rollback to a
    // connection that is gone, and nobody can catch what that throws.
    let gone = false;
    const own = connect(config, {
      connections: 1,
      onclose: () => {
        gone = true;
      },
    });
    const query: Query = async (text, values = []) => {
      // Otherwise the driver would connect again and run the statement outside of the transaction.
      if (gone) throw unreachable("CONNECTION_CLOSED", serverOf(config));
      return await own.query(text, values, timeoutMs);
    };
    try {
      await query(`begin ${mode}`);
      const result = await work(query);
      await query("commit");
      await own.close();
      return result;
    } catch (error) {
      own.discard(); // what was not committed goes with it
      throw await withoutTls(error, config);
    }
  };
  return {
    host: config.host,
    query: async (text, values = [], timeoutMs) => {
      const used = client;
      try {
        return await used.query(text, values, timeoutMs);
      } catch (error) {
        if (isBroken(error)) replace(used);
        throw await withoutTls(error, config);
      }
    },
    transaction: (work, timeoutMs) => transact("isolation level read committed", work, timeoutMs),
    snapshot: (work) => transact("isolation level repeatable read read only", work),
    listen: async (channel, onNotify) => {
      const onnotify = (_channel: string, payload: string) => onNotify(payload);
      const own = connect(config, { connections: 1, onnotify });
      try {
        await own.query(`listen "${channel}"`, []);
      } catch (error) {
        own.discard();
        throw error;
      }
      return () => own.discard();
    },
    renew: () => replace(client),
    close: (seconds) => client.close(seconds),
  };
}
