// A temporary folder of this process's own. The folder and the PostgreSQL servers in it are gone when the
// process ends, however it ends: `kill -9` too.
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { canReach, serverAccount } from "../../src/local/binaries.ts";
import { outside } from "../../src/local/places.ts";

/**
 * Waits at the end of a pipe whose other end this process holds. The kernel closes the pipe when the process
 * dies. Then every server with its data below the folder is ended as `pg_ctl stop --mode immediate` would,
 * what is mounted there is unmounted, and the folder is removed.
 */
const WATCHER = `
trap '' HUP INT TERM
read -r _
find "$1" -name postmaster.pid 2>/dev/null | while read -r file; do
  read -r pid < "$file" && ps -ww -o args= -p "$pid" | grep -qF "$1" || continue
  kill -QUIT "$pid"
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
  kill -KILL "$pid" 2>/dev/null
done
mount | while read -r _ _ place _; do case "$place" in "$1"/*) umount "$place" ;; esac; done
rm -rf "$1"
`;

export type OwnFolder = {
  readonly path: string;
  /** Removes the folder now; the servers in it are stopped by then. */
  readonly remove: () => void;
};

// Collected as garbage, one would close its pipe.
const watchers = new Set<{ readonly stdin: { readonly end: () => void } }>();

/** Others may enter: PostgreSQL's own user has to, where we are root. */
export function makeOwnFolder(name: string): OwnFolder {
  const place = canReach(serverAccount(), tmpdir()) ? tmpdir() : outside;
  mkdirSync(place, { recursive: true });
  const path = mkdtempSync(join(place, `veil-${name}-`));
  chmodSync(path, 0o755);
  // In a session of its own: a Ctrl-C, or a kill of the whole group, is not for it.
  const watcher = spawn("sh", ["-c", WATCHER, "sh", path], {
    cwd: "/",
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  watcher.unref();
  watchers.add(watcher);
  return {
    path,
    remove: () => {
      rmSync(path, { recursive: true, force: true });
      watcher.stdin.end();
      watchers.delete(watcher);
    },
  };
}
