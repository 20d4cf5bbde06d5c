// A run that is killed leaves nothing behind: no PostgreSQL, no program that it started, no folder.
import { afterAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "../line/stored.ts";
import { endsWithUs } from "./ends-with-us.ts";
import { SHARED_SERVER } from "./test-server.ts";
import type { Started } from "./waiting.ts";

const folder = mkdtempSync(join(tmpdir(), "veil-killed-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const checkout = fileURLToPath(new URL("../../", import.meta.url));
const WHOLE_RUN = ["test/run.ts", "./test/support/waiting.ts"];
const ONE_FILE = ["test", "--timeout=300000", "./test/support/waiting.ts"];

/** Of a process that ended and was not asked for yet, only the name is left. */
function isRunning(pid: number): boolean {
  const { stdout } = spawnSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" });
  return /^[^Z\s]/.test(stdout);
}

test.skipIf(process.platform !== "linux").each([
  ["the whole run", WHOLE_RUN, "starter"],
  ["one of its test processes", WHOLE_RUN, "tests"],
  ["a single file's run", ONE_FILE, "starter"],
] as const)("nothing is left when somebody kills %s", async (_, argv, victim) => {
  const told = join(folder, crypto.randomUUID());
  // A server of its own, whatever this run has.
  const { [SHARED_SERVER]: _shared, TEST_DATABASE_URL: _given, ...env } = process.env;
  const run = Bun.spawn(endsWithUs([process.execPath, ...argv]), {
    cwd: checkout,
    env: { ...env, TMPDIR: folder, TEST_TOLD: told },
    stdio: ["ignore", "ignore", "ignore"],
  });
  await until(() => existsSync(told) || run.exitCode !== null);
  const { pids, folders } = JSON.parse(readFileSync(told, "utf8")) as Started;
  expect(Object.values(pids).filter((pid) => !isRunning(pid))).toEqual([]);
  expect(folders.filter((path) => !existsSync(path))).toEqual([]);
  process.kill(victim === "starter" ? run.pid : pids[victim], "SIGKILL");
  const left = () => [...Object.values(pids).filter(isRunning), ...folders.filter(existsSync)];
  await until(() => left().length === 0);
  await run.exited;
});
