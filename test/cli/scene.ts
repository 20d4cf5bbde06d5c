// What a test of the command line runs on: a database, a queue and keys of its own.
import { createDatabase, type Role, type TestDatabase } from "../support/database.ts";
import { makeKeys, type TestKeys } from "../support/keys.ts";
import { createQueue, useSqs } from "../support/servers.ts";

export type Variables = Readonly<Record<string, string>>;

export type Scene = {
  readonly database: TestDatabase;
  readonly keys: TestKeys;
  readonly send: (body: unknown) => string;
  /** The variables of `veil etl`. */
  readonly etl: Variables;
  /** Those of a command that opens originals or bodies, as this role. */
  readonly recovering: (role: Role) => Variables;
  /** Messages in the queue, whether they wait or are with a consumer. */
  readonly queued: () => Promise<number>;
};

export async function createScene(): Promise<Scene> {
  const [database, keys, queue] = await Promise.all([createDatabase(), makeKeys(), createQueue()]);
  return {
    database,
    keys,
    send: (body) =>
      queue.send(
        // SQS takes characters beyond U+FFFF, fauxqs does not: JSON has another spelling for them.
        JSON.stringify(body).replace(
          /[\ud800-\udfff]/g,
          (unit) => `\\u${unit.charCodeAt(0).toString(16)}`,
        ),
      ),
    etl: {
      ...queue.env,
      DATABASE_URL: database.url("etl"),
      VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
      VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
    },
    recovering: (role) => ({
      DATABASE_URL: database.url(role),
      VEIL_IDENTITY: keys.VEIL_IDENTITY,
      VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
    }),
    queued: async () => {
      const found = (await useSqs()).inspectQueue(queue.name);
      const { ready, delayed, inflight } = found!.messages;
      return ready.length + delayed.length + inflight.length;
    },
  };
}

/** `env` without some of its variables. */
export const without = (env: Variables, ...names: string[]): Variables =>
  Object.fromEntries(Object.entries(env).filter(([name]) => !names.includes(name)));
