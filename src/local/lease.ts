// Several commands share one pair of local servers, and the last one to leave stops them. It is
// built on the file locks of SQLite: the kernel releases those when a process dies, however it
// dies. No lock file goes stale, and no process id belongs to somebody else after a reboot.
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

export type Lease = {
  /** Runs `work` while no other command starts or stops servers. */
  readonly exclusively: <T>(work: (alone: boolean) => Promise<T>) => Promise<T>;
  /** Leaves. `last` runs if nobody else is present. */
  readonly leave: (last: () => Promise<void>) => Promise<void>;
};

const CHECK_MS = 2_000;

/**
 * For a server that outlives the commands: calls `abandoned` when nobody is present any more,
 * because the last command was killed. Nobody enters while `abandoned` runs.
 */
export function watchLease(folder: string, abandoned: () => Promise<void>): void {
  setInterval(async () => {
    const locks = ["mutex.lock", "presence.lock"].map((name) => {
      const lock = new DatabaseSync(join(folder, name));
      lock.exec("pragma busy_timeout = 0");
      return lock;
    });
    try {
      for (const lock of locks) lock.exec("begin exclusive");
      await abandoned();
    } catch {
      // Somebody is there, or is entering or leaving.
    } finally {
      for (const lock of locks.reverse()) lock.close();
    }
  }, CHECK_MS);
}

/** Enters: counts as present until `leave`, or until this process ends. */
export function openLease(folder: string): Lease {
  // Held for moments by a command that starts or stops servers; a start takes a few seconds.
  const mutex = new DatabaseSync(join(folder, "mutex.lock"));
  mutex.exec("pragma busy_timeout = 120000");
  // Held shared by everybody who is present.
  const presence = new DatabaseSync(join(folder, "presence.lock"));
  presence.exec("pragma busy_timeout = 0");

  const locked = async <T>(work: () => Promise<T>): Promise<T> => {
    mutex.exec("begin exclusive");
    try {
      return await work();
    } finally {
      mutex.exec("rollback");
    }
  };
  /** Whether nobody else is present; ends up outside of any transaction. */
  const alone = (): boolean => {
    try {
      presence.exec("begin exclusive");
      presence.exec("rollback");
      return true;
    } catch {
      return false;
    }
  };
  const enter = () => {
    presence.exec("begin");
    presence.prepare("select count(*) from sqlite_schema").get();
  };
  return {
    exclusively: (work) =>
      locked(async () => {
        if (presence.isTransaction) presence.exec("rollback");
        const nobodyElse = alone();
        enter();
        return await work(nobodyElse);
      }),
    leave: (last) =>
      locked(async () => {
        if (presence.isTransaction) presence.exec("rollback");
        if (alone()) await last();
        presence.close();
      }).finally(() => mutex.close()),
  };
}
