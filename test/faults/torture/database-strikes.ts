// The faults of a database that pass, as strikes: on one worker's way to it, or on the server itself.
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../bodies/hostile-random.ts";
import { PG_POINTS } from "../proxies/pg-control.ts";
import type { PgError } from "../proxies/pg-wire.ts";
import { drawPoint, spent, type Target } from "./target.ts";

/** What a server may answer a load with that is not the load's fault. */
const ERRORS: readonly PgError[] = [
  {
    severity: "ERROR",
    sqlstate: "53100",
    message: "could not extend file: No space left on device",
  },
  { severity: "ERROR", sqlstate: "53200", message: "out of memory" },
  { severity: "ERROR", sqlstate: "57014", message: "canceling statement due to statement timeout" },
  { severity: "ERROR", sqlstate: "55P03", message: "canceling statement due to lock timeout" },
  {
    severity: "ERROR",
    sqlstate: "25006",
    message: "cannot execute INSERT in a read-only transaction",
  },
  { severity: "ERROR", sqlstate: "40P01", message: "deadlock detected" },
  { severity: "ERROR", sqlstate: "40001", message: "could not serialize access" },
  {
    severity: "FATAL",
    sqlstate: "57P01",
    message: "terminating connection due to administrator command",
  },
  { severity: "FATAL", sqlstate: "57P02", message: "terminating connection because of crash" },
];
const REFUSALS: readonly PgError[] = [
  { severity: "FATAL", sqlstate: "53300", message: "sorry, too many clients already" },
  { severity: "FATAL", sqlstate: "57P03", message: "the database system is starting up" },
];

export function cut(r: Random) {
  const point = drawPoint(
    r,
    PG_POINTS.filter((one) => one !== "probed"),
  );
  return {
    name: "database: connection cut at a point",
    run: async (target: Target) => {
      const { pg } = target.worker;
      const at = point(target);
      if (at === null) return;
      pg.cutNext(at);
      await spent(() => !pg.armed());
      pg.disarm();
    },
  };
}

export function answer(r: Random) {
  const wanted = r.pick(["load", "load", "load", "commit", "connect"] as const);
  const error = r.pick(wanted === "connect" ? REFUSALS : ERRORS);
  const afterwards = wanted !== "connect" && r.chance(0.3);
  const times = r.pick([1, 1, 2, 5]);
  return {
    name: `database: answered with ${error.sqlstate}${afterwards ? " although done" : ""}`,
    run: async ({ worker, passed }: Target) => {
      const to = wanted === "commit" && !passed("commit-sent") ? "load" : wanted;
      worker.pg.answerNext({ ...error, to, afterwards }, times);
      if (to === "connect") worker.pg.dropAll();
      await spent(() => !worker.pg.armed());
      worker.pg.disarm();
    },
  };
}

/** The halves are taken: nothing of it is a reason to quarantine anything. */
export function refuseBatch() {
  return {
    name: "database: a whole batch refused",
    run: async ({ worker }: Target) => {
      worker.pg.answerNext({
        ...{ to: "load", severity: "ERROR", sqlstate: "23514", leastBytes: 5000 },
        message: "new row violates check constraint",
      });
      await spent(() => !worker.pg.armed());
      worker.pg.disarm();
    },
  };
}

export function swap(r: Random) {
  const how = r.pick(["ran", "unran"] as const);
  return {
    name: `database: another load's answer (${how === "ran" ? "done" : "not done"})`,
    run: async ({ worker }: Target) => {
      worker.pg.swapNext(how);
      await spent(() => !worker.pg.armed());
      worker.pg.disarm();
    },
  };
}

export function dropAll() {
  return {
    name: "database: connections reset",
    run: async ({ worker }: Target) => void worker.pg.dropAll(),
  };
}

export function refuse(r: Random) {
  const how = r.pick(["closed", "accepted"] as const);
  const milliseconds = r.between(100, 2000);
  return {
    name: `database: refused (${how === "closed" ? "no listener" : "accepted and closed"})`,
    run: async ({ worker }: Target) => {
      await worker.pg.set({ kind: "refuse", how });
      worker.pg.dropAll();
      await sleep(milliseconds);
      await worker.pg.set({ kind: "pass" });
    },
  };
}

export function hold(r: Random) {
  const slow = r.chance(0.5);
  const milliseconds = r.between(100, 3000);
  return {
    name: `database: ${slow ? "slow" : "held"}`,
    run: async ({ worker }: Target) => {
      await worker.pg.set(
        slow ? { kind: "slow", milliseconds: 20, bytes: 16_384 } : { kind: "hold" },
      );
      await sleep(milliseconds);
      await worker.pg.set({ kind: "pass" });
    },
  };
}

export const terminating = (login: string): string =>
  `select pg_terminate_backend(pid) from pg_stat_activity where usename = '${login}'`;

export const lockingLedger = (seconds: number): string =>
  `lock table etl.ledger in access exclusive mode; select pg_sleep(${seconds})`;

export function terminateBackends() {
  return {
    name: "database: every backend terminated",
    run: ({ servers }: Target) => servers.strike(terminating(servers.etlLogin)),
  };
}

export function lockTable(r: Random) {
  const seconds = r.float() * 2;
  return {
    name: "database: the ledger locked",
    run: ({ servers }: Target) => servers.strike(lockingLedger(seconds)),
  };
}

export function restartDatabase() {
  return {
    name: "database: server restarted",
    run: ({ servers }: Target) => servers.restartDatabase(),
  };
}
