import { expect, test } from "bun:test";
import { existsSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { makeKeys } from "../support/keys.ts";

const CLI = fileURLToPath(new URL("../../src/cli.ts", import.meta.url));

test.skipIf(!existsSync("/dev/full"))(
  "what cannot be written to stdout is no success (skipped without /dev/full)",
  async () => {
    const env = { PATH: process.env.PATH ?? "", ...(await makeKeys()) };
    for (const args of [["token", "ip"], ["--help"], ["--version"]]) {
      const child = Bun.spawn([process.execPath, "--no-env-file", CLI, ...args], {
        env,
        stdin: new Blob(["192.0.2.1\n"]),
        stdout: openSync("/dev/full", "w"),
        stderr: "pipe",
      });
      const stderr = await new Response(child.stderr).text();
      expect({ args, code: await child.exited }).toEqual({ args, code: 1 });
      expect(stderr).toContain("cannot write to stdout (ENOSPC)");
    }
  },
);

test("a reader that leaves early is no failure", async () => {
  const child = Bun.spawn(
    [
      "bash",
      "-c",
      `set -o pipefail; "$0" --no-env-file "$1" token ip | head -n 1`,
      process.execPath,
      CLI,
    ],
    {
      env: { PATH: process.env.PATH ?? "", ...(await makeKeys()) },
      stdin: new Blob(["192.0.2.1\n".repeat(50_000)]),
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  expect(await new Response(child.stdout).text()).toMatch(/^ip1_[a-z2-7]{26}\n$/);
  expect(await new Response(child.stderr).text()).toBe("");
  expect(await child.exited).toBe(0);
});
