import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as vectors from "../vectors/vectors.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

test("vault, message and protect give the same bytes under Deno, without any permission", async () => {
  const cache = mkdtempSync(join(tmpdir(), "veil-deno-"));
  try {
    const child = Bun.spawn(
      [
        join(ROOT, "node_modules/.bin/deno"),
        "run",
        // No permission, no question whether to grant one, no network for a missing module.
        ...["--no-prompt", "--cached-only", "--no-remote"],
        // The packages of this checkout; no lock file left behind.
        ...["--node-modules-dir=manual", "--no-lock"],
        fileURLToPath(new URL("portable.deno.ts", import.meta.url)),
      ],
      {
        cwd: ROOT,
        env: { PATH: process.env.PATH ?? "", DENO_DIR: cache, NO_COLOR: "1" },
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const checks = Number(/^OK ([0-9]+)\n$/.exec(stdout)?.[1]);
    const lists = [vectors.canonical, vectors.tokens, vectors.keyLines, vectors.recipients];
    const least = [...lists, vectors.seals, vectors.proofs]
      .flatMap(({ accept, reject }) => [accept.length, reject.length])
      .reduce((sum, length) => sum + length, 0);
    expect(checks).toBeGreaterThan(least);
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
});
