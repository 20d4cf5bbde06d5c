// What killed.test.ts kills: a test that has started all that tests start, and then waits for ever.
import { test } from "bun:test";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createScene } from "../cli/scene.ts";
import { startOwnCluster, usePostgres } from "./servers.ts";
import { startVeil } from "./veil.ts";

/** Where they are, as this file's reader is told. */
export type Started = {
  readonly pids: Readonly<Record<"tests" | "server" | "ownServer" | "veil", number>>;
  readonly folders: readonly string[];
};

const postmaster = (data: string): number =>
  Number(readFileSync(join(data, "postmaster.pid"), "utf8").split("\n")[0]);

test("waits", async () => {
  const scene = await createScene();
  const own = await startOwnCluster();
  const folder = dirname((await usePostgres()).log ?? "");
  const veil = startVeil(["etl", "--follow"], { env: scene.etl });
  const pids = {
    tests: process.pid,
    server: postmaster(join(folder, "data")),
    ownServer: postmaster(own.cluster.data),
    veil: veil.pid,
  };
  const started: Started = { pids, folders: [folder, own.folder, tmpdir()] };
  const told = process.env.TEST_TOLD ?? "";
  writeFileSync(`${told}.new`, JSON.stringify(started));
  renameSync(`${told}.new`, told);
  await new Promise(() => {});
});
