// Promise 1 under fire, in small: kills at random and at named points while other faults strike, with four
// workers from source and with the compiled binary. `bun run torture` does the same for as long as one likes.
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildBinary, fromSource, torture } from "./run.ts";
import { SABOTAGES, sabotagedCopy } from "./sabotage.ts";

const CLEAN = "lost 0, twice 0, wrong 0, orphan tokens 0, acknowledged before stored 0";

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** `TEST_FAULTS=all`: everything at full length. */
const isAll = process.env.TEST_FAULTS === "all";

/** With a seed of its own, so that a failure can be run again. */
const FIRE = { workers: 4, visibilitySeconds: 2, redeliver: 0.1 };

test("a dozen kills over four workers, and other faults in between: nothing lost, nothing twice", async () => {
  const program = fromSource();
  const kills = isAll ? 36 : 12;
  const result = await torture({ ...FIRE, program, kills, messages: 200 * kills, seed: 4 });
  expect(result.verdict).toBe(CLEAN);
  // All of them unless the queue is empty before the last one.
  expect(result.kills).toBeGreaterThan(0);
}, 600_000);

test.skipIf(!isAll)(
  "a dozen kills of the compiled binary: nothing lost, nothing twice",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "veil-torture-"));
    folders.push(folder);
    const program = buildBinary(folder);
    const result = await torture({ ...FIRE, program, kills: 12, messages: 2400, seed: 12 });
    expect(result.verdict).toBe(CLEAN);
    expect(result.kills).toBeGreaterThan(0);
  },
  600_000,
);

test("every sabotage still finds its place in the source", () => {
  for (const name of Object.keys(SABOTAGES)) folders.push(sabotagedCopy(name));
});

for (const [name, words] of [
  ["delete-before-commit", /acknowledged before stored [1-9]/],
  ["no-ledger", /twice [1-9]/],
] as const) {
  if (!isAll && name !== "delete-before-commit") continue;
  test.concurrent(`the harness goes red for ${name}`, async () => {
    const copy = sabotagedCopy(name);
    folders.push(copy);
    const result = await torture({
      ...{ ...FIRE, workers: 2, program: fromSource(copy), kills: 0, messages: 500, seed: 1 },
      ...SABOTAGES[name]?.run,
      redeliver: 0.3,
    });
    expect(result.clean).toBe(false);
    expect(result.verdict).toMatch(words);
  }, 600_000);
}
