// A database that is away for so long that messages have to be kept hidden, in every way that it can be:
// nothing is lost, nothing is there twice, and no message is received in vain.
import { expect, setDefaultTimeout, test } from "bun:test";
import { MOST_RECEIVERS } from "../../../src/line/receive.ts";
import { OUTAGES, type Outage } from "./trouble-outages.ts";
import { AWAY, BACK, type Ended, type Running } from "./trouble-run.ts";
import { everyKind, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

const environment = (scene: Scene, { url }: Outage): Record<string, string> =>
  url === undefined ? {} : { DATABASE_URL: url(scene.env.DATABASE_URL ?? "") };

/**
 * Until messages have been kept hidden, during which the queue is left alone. `wasAway`: it was told before, where
 * a busy machine took longer than what counts as silence, and is not told again so soon.
 */
async function hold(scene: Scene, run: Running, wasAway: boolean): Promise<void> {
  await run.says(AWAY);
  const polls = scene.sqs.counts["receive-sent"];
  scene.send(20 * MOST_RECEIVERS);
  await scene.keptHidden();
  // Each receiver may have been about to ask; whoever goes on asking does so at once, and more often.
  const since = scene.sqs.counts["receive-sent"] - polls;
  if (!wasAway) expect(since).toBeLessThanOrEqual(MOST_RECEIVERS);
  expect({ mostReceived: scene.mostReceived(), isRunning: run.isRunning() }).toEqual({
    mostReceived: 1,
    isRunning: true,
  });
}

async function expectKept(scene: Scene, ended: Ended, outage: Outage): Promise<void> {
  const { code, said, summary } = ended;
  expect(code).toBe(0);
  expect(said.slice(0, 2)).toEqual([expect.stringMatching(AWAY), expect.stringMatching(BACK)]);
  expect(said[0]).toMatch(outage.says);
  const others = said.filter((line) => !AWAY.test(line) && !BACK.test(line));
  expect(others).toEqual([]);
  const { received, loaded, duplicates, quarantined, acknowledged, handedBack } = summary();
  const all = scene.sent.length;
  expect({ received, acknowledged, handedBack }).toEqual({
    ...{ received: all, acknowledged: all, handedBack: 0 },
  });
  expect(loaded + duplicates + quarantined).toBe(all);
  // A busy machine can bring about more of silence.
  if (outage.waits === undefined) expect(said).toHaveLength(2);
  // Any other outage may have some, too: a connection that is given up can take another load's answer with it.
  if (outage.commits) expect(duplicates).toBeGreaterThan(0);
  expect(scene.deliveredOtherThanOnce()).toBe(0);
  expect(await scene.verdict()).toEqual(KEPT);
}

/** Those that CI tries on a drain, too; it has the rest in common with --follow. */
const DRAINS = ["refuses connections", "commits each load and loses its answer"];

for (const outage of OUTAGES) {
  test.concurrent(`--follow waits for a database that ${outage.name}`, () =>
    withScene({}, async (scene) => {
      const run = scene.start(
        ["etl", "--follow", "--json"],
        environment(scene, outage),
        outage.waits,
      );
      scene.send(200);
      await scene.settled();
      const wasAway = run.said().some((line) => AWAY.test(line));
      await outage.begin(scene);
      scene.send(300);
      await hold(scene, run, wasAway);
      await outage.end(scene);
      await scene.settled();
      run.signal("SIGTERM");
      await expectKept(scene, await run.ended, outage);
    }));

  if (!everyKind && !DRAINS.includes(outage.name)) continue;
  test.concurrent(`a drain waits for a database that ${outage.name}`, () =>
    withScene({}, async (scene) => {
      scene.send(300);
      const loads = scene.pg.pauseAll("load-sent");
      const run = scene.start(["etl", "--json"], environment(scene, outage), outage.waits);
      await loads.reached;
      const wasAway = run.said().some((line) => AWAY.test(line));
      await outage.begin(scene);
      scene.send(300); // whatever those loads meet, others come after them
      loads.resume();
      await hold(scene, run, wasAway);
      await outage.end(scene);
      await expectKept(scene, await run.ended, outage);
    }));
}
