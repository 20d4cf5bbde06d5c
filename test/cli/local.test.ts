// The embedded default, as somebody meets it who has just cloned the repository: run in copies of the
// checkout, so that the one that the tests run from keeps its own database.
import { afterAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { serverAccount } from "../../src/local/binaries.ts";
import { until } from "../line/stored.ts";
import { endsWithUs } from "../support/ends-with-us.ts";
import type { Run } from "../support/veil.ts";

const repository = fileURLToPath(new URL("../../", import.meta.url));
const copies: Copy[] = [];

type Folders = {
  readonly folder: string;
  /** What its commands take for the system's temporary folder. */
  readonly temporary: string;
};

type Copy = Folders & {
  readonly start: (...args: string[]) => ReturnType<typeof startIn>;
  readonly run: (...args: string[]) => Promise<Run>;
};

function startIn({ folder, temporary }: Folders, args: readonly string[]) {
  return Bun.spawn(
    endsWithUs([process.execPath, "--no-env-file", join(folder, "src/cli.ts"), ...args]),
    {
      // Nothing of the test's own environment: it may name servers.
      env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/", TMPDIR: temporary },
      cwd: folder,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
}

function copyCheckout(): Copy {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "veil-local-")));
  chmodSync(folder, 0o755);
  for (const name of ["src", "vault", "sql", "package.json", "tsconfig.json"]) {
    cpSync(join(repository, name), join(folder, name), { recursive: true });
  }
  symlinkSync(realpathSync(join(repository, "node_modules")), join(folder, "node_modules"));
  const temporary = mkdtempSync(join(tmpdir(), "veil-temporary-"));
  chmodSync(temporary, 0o777);
  const copy: Copy = {
    folder,
    temporary,
    start: (...args) => startIn(copy, args),
    run: async (...args) => {
      const child = startIn(copy, args);
      const [stdout, stderr, code] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
        child.exited,
      ]);
      return { code, stdout, stderr };
    },
  };
  copies.push(copy);
  return copy;
}

/** The processes whose command line names this folder, or the database's that is linked from it. */
function running(folder: string): { readonly pid: number; readonly command: string }[] {
  const listed = spawnSync("ps", ["-A", "-ww", "-o", "pid=,args="], { encoding: "utf8" });
  return listed.stdout
    .split("\n")
    .map((line) => /^\s*(\d+) (.*)$/.exec(line))
    .flatMap((match) => (match === null ? [] : [{ pid: Number(match[1]), command: match[2]! }]))
    .filter(({ command }) => command.includes(basename(folder)));
}

afterAll(() => {
  for (const { folder, temporary } of copies) {
    for (const { pid } of running(folder)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended by itself.
      }
    }
    const link = join(folder, ".veil", "postgres");
    if (isLink(link)) rmSync(dirname(readlinkSync(link)), { recursive: true, force: true });
    rmSync(folder, { recursive: true, force: true });
    rmSync(temporary, { recursive: true, force: true });
  }
});

const isLink = (path: string): boolean =>
  lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;

const ok = (run: Run): Run => {
  if (run.code !== 0) throw new Error(`exit code ${run.code}: ${run.stderr}`);
  return run;
};

/** All rows, as the analyst whom `etl --follow` names an address to. */
async function analystRows({ folder, start }: Copy): Promise<number> {
  const child = start("etl", "--follow");
  let told = "";
  const reading = (async () => {
    for await (const bytes of child.stderr) told += Buffer.from(bytes).toString();
  })();
  await until(() => /analysts connect to \S+/.test(told));
  const url = /analysts connect to (\S+)/.exec(told)![1]!;
  const passwords = JSON.parse(readFileSync(join(folder, ".veil/keys/passwords.json"), "utf8"));
  const sql = postgres(url, { max: 1, password: passwords.local_analyst });
  const [row] = await sql`select count(*)::integer as rows from public.user_logins`;
  await sql.end();
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  await reading;
  return Number(row?.rows);
}

test.concurrent("a first run shows what was received, stored and quarantined, and the rest follows from it", async () => {
  const copy = copyCheckout();
  const first = ok(await copy.run("etl"));
  expect(first.stderr).toStartWith("first run: ");
  expect(first.stdout).toMatch(/^ {2}received +100 /m);
  expect(first.stdout).toMatch(/^ {2}became rows +97 /m);
  expect(first.stdout).toMatch(/^ {2}duplicates +0 /m);
  expect(first.stdout).toMatch(/^ {2}quarantined +3 /m);
  for (const reason of [
    "1 × this is another type of message: it has none of a login's fields",
    "1 × ip is an array, expected a string",
    "1 × app_version is not written as a version",
  ]) {
    expect(first.stdout).toContain(reason);
  }
  // The line to copy from the summary works as it stands there.
  const [, token = ""] = /next: npx bun run reveal (ip1_[a-z2-7]{26})\n/.exec(first.stdout) ?? [];
  expect(first.stdout).toContain("bun run quarantine list");
  const revealed = ok(await copy.run("reveal", token, "--json"));
  expect(JSON.parse(revealed.stdout)).toEqual([
    {
      token,
      field: "ip",
      original: expect.stringMatching(/^(203\.0\.113\.\d+|2001:[0-9A-Fa-f:]+)$/),
      verified: true,
      sealedAt: expect.any(String),
    },
  ]);
  // A user's logins want two roles of one login: the analyst's, and the one for a revelation.
  for (const way of [[], ["--break-glass"]]) {
    const joined = ok(await copy.run("reveal", "--user", "user-01", "--reason", "a test", ...way));
    expect(joined.stdout).toContain("user-01");
  }
  expect(running(copy.folder)).toEqual([]);

  // A second run finds nothing to do; commands that run at once share the servers.
  const together = await Promise.all([
    copy.run("quarantine", "list", "--json"),
    copy.run("reveal", token, "--json"),
    copy.run("etl"),
    copy.run("quarantine", "list", "--json"),
  ]);
  for (const run of together) ok(run);
  expect(JSON.parse(together[0]!.stdout).length).toBe(3);
  expect(JSON.parse(together[1]!.stdout)).toEqual(JSON.parse(revealed.stdout));
  expect(together[2]!.stdout).toMatch(/^the queue is empty: nothing to do /);
  expect(together[2]!.stdout).toContain("--reset-local");
  expect(running(copy.folder)).toEqual([]);

  // Its keys serve `token`, which needs no server.
  const original = JSON.parse(revealed.stdout)[0].original as string;
  const known = spawnSync(
    process.execPath,
    ["--no-env-file", join(copy.folder, "src/cli.ts"), "token", "ip"],
    { input: `${original}\n`, env: { PATH: process.env.PATH }, encoding: "utf8" },
  );
  expect(known.stdout).toBe(`${token}\n`);
  const { mode } = lstatSync(join(copy.folder, ".veil/keys"));
  expect(mode & 0o777).toBe(0o700);

  // After a reboot the process id of the server may be anybody's; this one is the test's own.
  const data = realpathSync(join(copy.folder, ".veil/postgres/data"));
  const pidFile = join(data, "postmaster.pid");
  expect(existsSync(pidFile)).toBe(false);
  const lines = [process.pid, data, 1700000000, 5432, "", "127.0.0.1", "  1 1", "ready   "];
  writeFileSync(pidFile, `${lines.join("\n")}\n`);
  const { uid, gid } = lstatSync(data);
  chownSync(pidFile, uid, gid);
  expect(JSON.parse(ok(await copy.run("reveal", token, "--json")).stdout)).toEqual(
    JSON.parse(revealed.stdout),
  );

  const fresh = ok(await copy.run("etl", "--reset-local", "--json"));
  expect(JSON.parse(fresh.stdout)).toMatchObject({
    received: 100,
    loaded: 97,
    quarantined: 3,
    acknowledged: 100,
  });
  const gone = await copy.run("reveal", token, "--json");
  expect({ code: gone.code, stdout: gone.stdout }).toEqual({ code: 1, stdout: "[]\n" });
  expect(await analystRows(copy)).toBe(97);
  expect(running(copy.folder)).toEqual([]);
  expect(readdirSync(copy.folder).sort()).toEqual(
    [".veil", "node_modules", "package.json", "sql", "src", "tsconfig.json", "vault"].sort(),
  );
});

test.concurrent("a first run that is killed, at whatever moment, is finished by the next", async () => {
  const copy = copyCheckout();
  const veil = join(copy.folder, ".veil");
  const rows = () => running(copy.folder);
  const moments: [string, () => boolean][] = [
    ["the keys are being made", () => existsSync(join(veil, "keys"))],
    ["the cluster is being made", () => existsSync(join(veil, "postgres", "data.new"))],
    ["the server starts", () => existsSync(join(veil, "postgres/data/postmaster.pid"))],
    ["the queue starts", () => rows().some(({ command }) => command.includes("queue-server"))],
    ["the queue is filled", () => existsSync(join(veil, "run/queue.json"))],
    ["messages are under way", () => existsSync(join(veil, "sample.json"))],
  ];
  for (const [moment, reached] of moments) {
    const child = copy.start("etl");
    try {
      await until(() => reached() || child.exitCode !== null);
    } catch {
      throw new Error(`never: ${moment}`);
    }
    child.kill("SIGKILL");
    await child.exited;
  }
  // Some of these were true at once, of what a kill before had left: so once more by the clock.
  for (const milliseconds of [250, 500, 900, 1300]) {
    const child = copy.start("etl");
    await Bun.sleep(milliseconds);
    child.kill("SIGKILL");
    await child.exited;
  }

  ok(await copy.run("etl"));
  const list = JSON.parse(ok(await copy.run("quarantine", "list", "--json")).stdout);
  expect(list.length).toBe(3);
  expect(await analystRows(copy)).toBe(97);
  // A queue server whose starter was killed ends by itself, once it finds that nobody is there.
  await until(() => running(copy.folder).length === 0);
  // A password that a killed command wrote down for initdb, for one.
  expect(readdirSync(copy.temporary)).toEqual([]);
});

test.concurrent("workers share the servers, which run until the last of them has left", async () => {
  const copy = copyCheckout();
  const child = copy.start("etl", "--workers", "3");
  const workers = () => running(copy.folder).filter(({ command }) => / worker$/.test(command));
  await until(() => workers().length === 3 || child.exitCode !== null);
  child.kill("SIGKILL");
  await until(() => running(copy.folder).length === 0);
  // What the first run had stored is there, and the rest comes now.
  ok(await copy.run("etl", "--workers", "2", "--json"));
  expect(await analystRows(copy)).toBe(97);
  const again = ok(await copy.run("etl", "--workers", "2"));
  expect(again.stdout).toMatch(/^the queue is empty: nothing to do/);
  expect(running(copy.folder)).toEqual([]);
});

test.concurrent("several first runs at once make one database, and every sample becomes one row", async () => {
  const copy = copyCheckout();
  const runs = await Promise.all([1, 2, 3].map(() => copy.run("etl", "--json")));
  const summaries = runs.map((run) => JSON.parse(ok(run).stdout) as Record<string, number>);
  const total = (name: string) => summaries.reduce((sum, one) => sum + one[name]!, 0);
  expect([total("received"), total("loaded"), total("quarantined")]).toEqual([100, 97, 3]);
  expect(running(copy.folder)).toEqual([]);
});

// Only root meets this: PostgreSQL's own user cannot pass through.
test.concurrent.skipIf(serverAccount() === null)(
  "a checkout that only root may enter works, its database linked from elsewhere",
  async () => {
    const copy = copyCheckout();
    chmodSync(copy.folder, 0o700);
    const first = ok(await copy.run("etl", "--json"));
    expect(JSON.parse(first.stdout)).toMatchObject({ received: 100, loaded: 97, quarantined: 3 });
    const link = join(copy.folder, ".veil/postgres");
    expect(isLink(link)).toBe(true);
    const outside = readlinkSync(link);
    expect(outside).not.toStartWith(copy.folder);
    const list = ok(await copy.run("quarantine", "list", "--json"));
    expect(JSON.parse(list.stdout).length).toBe(3);
    expect(running(copy.folder)).toEqual([]);
    const one = ["--max-messages", "1", "--json"];
    const fresh = ok(await copy.run("etl", "--reset-local", ...one));
    expect(JSON.parse(fresh.stdout)).toMatchObject({ received: 1, loaded: 1, duplicates: 0 });
    expect(running(copy.folder)).toEqual([]);
    // Another checkout in the place of one that was removed, as a fresh clone is.
    expect(existsSync(outside)).toBe(false);
    const left = readlinkSync(link);
    rmSync(join(copy.folder, ".veil"), { recursive: true });
    const again = ok(await copy.run("etl", ...one));
    expect(JSON.parse(again.stdout)).toMatchObject({ received: 1, loaded: 1, duplicates: 0 });
    expect(readlinkSync(link)).not.toBe(left);
    expect(running(copy.folder)).toEqual([]);
    rmSync(dirname(left), { recursive: true });
  },
);
