// What is held stays hidden while work is slow; where it does not, because nobody is there to ask for that or the
// queue does not listen, it comes again, and changes nothing.
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { SqsFault } from "../proxies/sqs-faults.ts";
import { type Gate, withGate } from "./trouble-gate.ts";
import { lockTable } from "./trouble-outages.ts";
import { AWAY, BACK, eventually } from "./trouble-run.ts";
import { EXPIRED_MS, everyKind, REAL_TIME, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

const hidden = (gate: Gate) =>
  gate.entries("ChangeMessageVisibilityBatch").reduce((sum, size) => sum + size, 0);

const expectAddsUp = (summary: Readonly<Record<string, number>>) =>
  expect(summary.loaded! + summary.duplicates! + summary.quarantined!).toBe(summary.received!);

for (const [name, begin, end] of [
  [
    "silent",
    (scene: Scene) => scene.pg.set({ kind: "hold" }),
    (scene: Scene) => scene.pg.set({ kind: "pass" }),
  ],
  [
    "slow",
    // A load of some hundred messages takes longer than they are hidden for at first.
    (scene: Scene) => scene.pg.set({ kind: "slow", milliseconds: 100, bytes: 1024 }),
    (scene: Scene) => scene.pg.set({ kind: "pass" }),
  ],
] as const) {
  test.concurrent(`while the database is ${name}, messages are kept hidden, ten a call`, () =>
    withScene({}, (scene) =>
      withGate(scene.sqs.env.AWS_ENDPOINT_URL_SQS, "test", async (gate) => {
        const run = scene.start(["etl", "--follow", "--json"], gate.env);
        scene.send(10);
        await scene.settled();
        await begin(scene);
        scene.send(400);
        await eventually("many are kept hidden", () => hidden(gate) >= 100);
        await end(scene);
        await scene.settled();
        run.signal("SIGTERM");
        const { code, summary } = await run.ended;
        expect(code).toBe(0);
        expect(Math.max(...gate.entries("ChangeMessageVisibilityBatch"))).toBe(10);
        expect(summary()).toMatchObject({ received: 410, acknowledged: 410 });
        expect(scene.deliveredOtherThanOnce()).toBe(0);
        expect(await scene.verdict()).toEqual(KEPT);
      }),
    ));
}

/** Where veil counts a load that takes longer as an outage, and rests. */
const IMPATIENT = { stalledMs: 1000 };

for (const fault of ["internal-error", "reset-before", "throttled", "lose"] as const) {
  if (!everyKind && (fault === "reset-before" || fault === "throttled")) continue;
  test.concurrent(`receipts expire where each extension meets: ${fault}; another worker has them, and nothing is there twice`, () =>
    withScene(REAL_TIME, async (scene) => {
      scene.send(200);
      scene.sqs.failNext(fault satisfies SqsFault, "visibility", 1e9);
      const loading = scene.pg.pauseNext("load-sent");
      const first = scene.start(["etl", "--json"], {}, IMPATIENT);
      const load = await loading;
      // What is paused is the first one's connection. It rests once that is silent for seconds, and what
      // it held falls to the second one.
      const second = scene.start(["etl", "--follow", "--json"]);
      await eventually("it stores all", async () => (await scene.stored()) === scene.sent.length);
      load.resume();
      const { code, said, summary } = await first.ended;
      expect(code).toBe(0);
      for (const line of said) expect(line).toMatch(new RegExp(`${AWAY.source}|${BACK.source}`));
      expect(summary().duplicates).toBeGreaterThan(0);
      scene.sqs.disarm();
      await scene.settled();
      second.signal("SIGTERM");
      const other = await second.ended;
      expect(other.code).toBe(0);
      for (const one of [summary(), other.summary()]) expectAddsUp(one);
      expect(await scene.verdict()).toEqual(KEPT);
    }));
}

test.concurrent("without the right to keep messages hidden, that is said once, and the work goes on", () =>
  withScene(REAL_TIME, async (scene) => {
    scene.sqs.failNext("access-denied", "visibility", 1e9);
    const { release } = await lockTable(scene, "public.user_logins");
    scene.send(300);
    const run = scene.start(["etl", "--follow", "--json"], {}, IMPATIENT);
    await run.says(AWAY);
    await run.says(/cannot change messages' visibility/);
    await release();
    await scene.settled();
    scene.send(100);
    await scene.settled();
    run.signal("SIGTERM");
    const { code, said, summary } = await run.ended;
    expect(code).toBe(0);
    const others = said.filter((line) => !AWAY.test(line) && !BACK.test(line));
    expect(others).toEqual([
      expect.stringMatching(
        /^warning: cannot change messages' visibility: .* answered 403 .*policy needs sqs:ChangeMessageVisibility\)$/,
      ),
    ]);
    expectAddsUp(summary() as unknown as Record<string, number>);
    expect(await scene.verdict()).toEqual(KEPT);
  }));

for (const point of ["load-sent", "load-answered"] as const) {
  const when = point === "load-sent" ? "before" : "after";
  test.concurrent(`a worker that stands still ${when} its load commits wakes to duplicates`, () =>
    withScene(REAL_TIME, async (scene) => {
      scene.send(300);
      const loading = scene.pg.pauseNext(point);
      const first = scene.start(["etl", "--json"]);
      const load = await loading;
      first.signal("SIGSTOP");
      await sleep(EXPIRED_MS);
      await scene.sqs.idle(); // the polls that it had open
      const second = await scene.start(["etl", "--json"]).ended;
      expect(second.code).toBe(0);
      first.signal("SIGCONT");
      load.resume();
      const { code, summary } = await first.ended;
      expect(code).toBe(0);
      for (const one of [summary(), second.summary()]) expectAddsUp(one);
      expect(summary().duplicates + second.summary().duplicates).toBeGreaterThan(0);
      await eventually("nothing is in the queue", async () => {
        const { ready, inFlight } = scene.queued();
        if (ready + inFlight > 0) await scene.start(["etl", "--json"]).ended;
        return ready + inFlight === 0;
      });
      expect(await scene.verdict()).toEqual(KEPT);
    }));
}
