// The ways in which a database can be away for a while, each as something that begins and ends. Those of the
// server itself are real; the proxy does what a server cannot be asked for.
import type postgres from "postgres";
import type { Waits } from "../../../src/commands/servers.ts";
import { connecting, type Scene } from "./trouble-scene.ts";

export type Outage = {
  readonly name: string;
  /** Loads are under way while it begins. */
  readonly begin: (scene: Scene) => Promise<unknown> | unknown;
  readonly end: (scene: Scene) => Promise<unknown> | unknown;
  /** What is said of it. */
  readonly says: RegExp;
  /** It stores what it is given, and the answer is lost. */
  readonly commits?: true;
  /** Of the database, in place of the scene's. */
  readonly url?: (url: string) => string;
  /** What veil takes for silence. */
  readonly waits?: Partial<Waits>;
};

/** veil's sessions, so that its next ones are under what was just set. */
export const endSessions = ({ database: { sql, login } }: Scene) =>
  sql`select pg_terminate_backend(pid) from pg_stat_activity where usename = ${login}`;

const setDatabase = async (scene: Scene, setting: string) => {
  await scene.database.sql.unsafe(`alter database ${scene.database.name} ${setting}`);
  await endSessions(scene);
};

const setRole = async (scene: Scene, setting: string) => {
  await scene.database.sql.unsafe(`alter role ${scene.database.login} ${setting}`);
  await endSessions(scene);
};

const pass = (scene: Scene) => scene.pg.set({ kind: "pass" });

/** A lock that another session holds until the returned function is called. */
export async function lockTable(
  scene: Scene,
  table: string,
): Promise<{ readonly session: postgres.Sql; readonly release: () => Promise<unknown> }> {
  const session = scene.database.another();
  await session.unsafe("begin");
  await session.unsafe(`lock table ${table} in access exclusive mode`);
  return { session, release: () => session.unsafe("rollback") };
}

const locks = new WeakMap<Scene, Awaited<ReturnType<typeof lockTable>>>();
const lock = async (scene: Scene) => {
  locks.set(scene, await lockTable(scene, "public.user_logins"));
};
const unlock = (scene: Scene) => locks.get(scene)?.release();

const cutEach = (point: "load-half-sent" | "load-answered" | "load-half-answered") => ({
  begin: ({ pg }: Scene) => pg.cutNext(point, Number.POSITIVE_INFINITY),
  end: ({ pg }: Scene) => pg.disarm(),
  says: /\((CONNECTION_CLOSED|ECONNRESET)\)/,
});

/** Failures that pass, as far as the SQLSTATE tells; each attempt gets the next one. */
const PASSING = ["53100", "53200", "57P01", "57P03", "55P03", "58030", "08006", "25006", "57014"];

export const OUTAGES: readonly Outage[] = [
  {
    name: "refuses connections",
    begin: async ({ pg }) => {
      await pg.set({ kind: "refuse", how: "closed" });
      pg.dropAll();
    },
    end: pass,
    says: /cannot reach the database at 127\.0\.0\.1:[0-9]+ \((ECONN|CONNECTION_CLOSED)/,
  },
  {
    name: "accepts connections and closes them",
    begin: async ({ pg }) => {
      await pg.set({ kind: "refuse", how: "accepted" });
      pg.dropAll();
    },
    end: pass,
    says: /\((CONNECTION_CLOSED|ECONNRESET)\)/,
  },
  { name: "loses each load in the middle of the request", ...cutEach("load-half-sent") },
  {
    name: "commits each load and loses its answer",
    ...cutEach("load-answered"),
    commits: true,
  },
  {
    name: "loses each load in the middle of the answer",
    ...cutEach("load-half-answered"),
    commits: true,
  },
  {
    name: "falls silent in the middle of a load",
    begin: ({ pg }) => pg.set({ kind: "hold" }),
    end: pass,
    says: /the database at 127\.0\.0\.1 has not answered for 3 s/,
    waits: { stalledMs: 3000 },
  },
  {
    name: "falls silent for new connections",
    begin: async ({ pg }) => {
      await pg.set({ kind: "hold" });
      pg.dropAll();
    },
    end: pass,
    says: /\((CONNECTION_CLOSED|ECONNRESET|CONNECT_TIMEOUT)\)/,
    url: (url) => connecting(url, 4),
  },
  {
    name: "fails over to read-only",
    begin: (scene) => setDatabase(scene, "set default_transaction_read_only = on"),
    end: (scene) => setDatabase(scene, "reset default_transaction_read_only"),
    says: /25006|57P01|CONNECTION_CLOSED/,
  },
  {
    name: "has no connection left",
    begin: (scene) => setRole(scene, "connection limit 0"),
    end: (scene) => setRole(scene, "connection limit -1"),
    says: /53300: too many connections for role|57P01|CONNECTION_CLOSED/,
  },
  {
    name: "cancels loads that wait for a lock",
    begin: async (scene) => {
      await setRole(scene, "set statement_timeout = '300ms'");
      await lock(scene);
    },
    end: unlock,
    says: /57014: canceling statement due to statement timeout|57P01|CONNECTION_CLOSED/,
  },
  {
    name: "keeps loads waiting for a lock",
    begin: async (scene) => {
      await setRole(scene, "set lock_timeout = '300ms'");
      await lock(scene);
    },
    end: unlock,
    says: /55P03|57P01|CONNECTION_CLOSED/,
  },
  {
    name: "fails in one way after the other",
    begin: (scene) => {
      let next = 0;
      scene.at["load-sent"] = () => {
        const sqlstate = PASSING[next++ % PASSING.length]!;
        const severity = sqlstate.startsWith("57P") ? "FATAL" : "ERROR";
        scene.pg.answerNext({ to: "load", sqlstate, message: "not now", severity });
      };
    },
    end: (scene) => {
      delete scene.at["load-sent"];
      scene.pg.disarm();
    },
    // Several loads are under way: which of their failures is told first is anybody's guess.
    says: /the database answered with error (5|25|08)|CONNECTION_CLOSED|ECONNRESET/,
  },
  {
    name: "gives each question the answer to the one before",
    begin: (scene) => {
      scene.at["load-sent"] = () => scene.pg.swapNext();
    },
    end: (scene) => {
      delete scene.at["load-sent"];
      scene.pg.disarm();
    },
    commits: true,
    says: /the database's answer names another batch than the one that was sent/,
  },
];
