// A small file system of one test's own, for a database whose disk is full. Only root may mount one.
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serverAccount } from "../../../src/local/binaries.ts";

export type Disk = {
  readonly folder: string;
  /** Nothing more fits on it. */
  readonly fill: () => void;
  readonly free: () => void;
  /** When nobody uses it any more. */
  readonly remove: () => void;
};

/** Null where this machine lets nobody mount anything. */
export function mountDisk(megabytes: number): Disk | null {
  const folder = mkdtempSync(join(tmpdir(), "veil-disk-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "veil", folder]);
  if (mounted.status !== 0) {
    rmdirSync(folder);
    return null;
  }
  const account = serverAccount();
  if (account !== null) chownSync(folder, account.uid, account.gid);
  chmodSync(folder, 0o700);
  const ballast = join(folder, "ballast");
  return {
    folder,
    fill: () => {
      // Large pieces first, then what is left of a page.
      for (const size of [2 ** 20, 2 ** 12]) {
        try {
          for (;;) writeFileSync(ballast, Buffer.alloc(size), { flag: "a" });
        } catch {
          // Full.
        }
      }
    },
    free: () => rmSync(ballast, { force: true }),
    remove: () => {
      spawnSync("umount", [folder]);
      rmdirSync(folder);
    },
  };
}
