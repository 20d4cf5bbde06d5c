// A database that is away for longer than the queue's visibility time-out, in every way that it can be:
// nothing is lost, nothing is there twice, and no message is received in vain.
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { OUTAGES, type Outage } from "./trouble-outages.ts";
import { AWAY, BACK, type Ended, type Running } from "./trouble-run.ts";
import { everyKind, HELD_MS, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(240_000);

const environment = (scene: Scene, { url }: Outage): Record<string, string> =>
  url === undefined ? {} : { DATABASE_URL: url(scene.env.DATABASE_URL ?? "") };

/** Longer than messages stay hidden by themselves, during which the queue is left alone. */
async function hold(scene: Scene, run: Running, sendMeanwhile: number): Promise<void> {
  await run.says(AWAY);
  await sleep(1000); // the polls that were under way when it was said
  const polls = scene.sqs.counts["receive-sent"];
  scene.send(sendMeanwhile);
  await sleep(HELD_MS);
  expect({
    pollsSince: scene.sqs.counts["receive-sent"] - polls,
    mostReceived: scene.mostReceived(),
    isRunning: run.isRunning(),
  }).toEqual({ pollsSince: 0, mostReceived: 1, isRunning: true });
}

async function expectKept(scene: Scene, ended: Ended, outage: Outage): Promise<void> {
  const { code, said, summary } = ended;
  expect({ code, said }).toEqual({
    code: 0,
    said: [expect.stringMatching(AWAY), expect.stringMatching(BACK)],
  });
  expect(said[0]).toMatch(outage.says);
  const { received, loaded, duplicates, quarantined, acknowledged, handedBack } = summary();
  const all = scene.sent.length;
  expect({ received, acknowledged, handedBack }).toEqual({
    ...{ received: all, acknowledged: all, handedBack: 0 },
  });
  expect(loaded + duplicates + quarantined).toBe(all);
  expect(duplicates > 0).toBe(outage.commits ?? false);
  expect(scene.deliveredOtherThanOnce()).toBe(0);
  expect(await scene.verdict()).toEqual(KEPT);
}

/** Those that CI tries on a drain, too; it has the rest in common with --follow. */
const DRAINS = ["refuses connections", "commits each load and loses its answer"];

for (const outage of OUTAGES) {
  test.concurrent(`--follow waits for a database that ${outage.name}`, () =>
    withScene({}, async (scene) => {
      const run = scene.start(["etl", "--follow", "--json"], environment(scene, outage));
      scene.send(200);
      await scene.settled();
      await outage.begin(scene);
      scene.send(300);
      await hold(scene, run, 100);
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
      const run = scene.start(["etl", "--json"], environment(scene, outage));
      await loads.reached;
      await outage.begin(scene);
      scene.send(300); // whatever those loads meet, others come after them
      loads.resume();
      await hold(scene, run, 0);
      await outage.end(scene);
      await expectKept(scene, await run.ended, outage);
    }));
}
