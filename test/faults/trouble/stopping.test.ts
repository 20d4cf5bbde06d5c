// A signal ends a run within its grace, whatever the servers do: exit code 0, one line of summary that adds up,
// and what is not stored is there for others at once.
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { OUTAGES } from "./trouble-outages.ts";
import { AWAY, BACK, type Ended, eventually } from "./trouble-run.ts";
import { everyKind, LONG, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

/** So many that receivers find no room for all: none of them waits at an empty queue. */
const MORE_THAN_IS_HELD = 4500;

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
const HOWS = ["--follow", "a drain"] as const;
const argsOf = (how: (typeof HOWS)[number], graceSeconds: number) => [
  ...["etl", "--json", "--grace", String(graceSeconds)],
  ...(how === "--follow" ? [how] : []),
];

/**
 * A grace in which a busy machine hands everything back, and of which only moments are left to what does not
 * answer.
 */
const GRACE_SECONDS = 200;
const IMPATIENT = { workShare: 0.01, handBackShare: 0.9 };

function expectStopped(ended: Ended): void {
  const { received, loaded, duplicates, quarantined, acknowledged } = ended.summary();
  expect({ code: ended.code, errors: ended.said.filter((line) => !AWAY.test(line)) }).toEqual({
    code: 0,
    errors: [],
  });
  expect(loaded + duplicates + quarantined).toBe(received);
  expect(acknowledged).toBeLessThanOrEqual(received);
}

/** Whatever is not deleted can be received at once. */
async function expectAllThere(scene: Scene, ended: Ended): Promise<void> {
  const { acknowledged } = ended.summary();
  expect(scene.queued()).toEqual({ ready: scene.sent.length - acknowledged, inFlight: 0 });
}

async function expectNextRunStoresAll(scene: Scene): Promise<Ended> {
  const next = await scene.start(["etl", "--json"]).ended;
  // A load that its driver has forgotten is away for a minute, and is sent again.
  const said = next.said.filter((line) => !AWAY.test(line) && !BACK.test(line));
  expect({ code: next.code, said }).toEqual({ code: 0, said: [] });
  expect(scene.queued()).toEqual({ ready: 0, inFlight: 0 });
  expect(await scene.verdict()).toEqual(KEPT);
  return next;
}

for (const how of HOWS) {
  for (const signal of SIGNALS) {
    if (!everyKind && (how === "a drain") !== (signal === "SIGINT")) continue;
    test.concurrent(`${signal} in the middle of ${how} finishes what is held`, () =>
      withScene(LONG, async (scene) => {
        scene.send(3000);
        const loaded = scene.pg.pauseNext("load-delivered");
        const run = scene.start(argsOf(how, 600));
        (await loaded).resume();
        run.signal(signal);
        const ended = await run.ended;
        expectStopped(ended);
        const { received, acknowledged, handedBack } = ended.summary();
        expect({ acknowledged, handedBack }).toEqual({ acknowledged: received, handedBack: 0 });
        expect(received).toBeGreaterThan(0);
        expect(ended.said).toEqual([]);
        await expectAllThere(scene, ended);
        await expectNextRunStoresAll(scene);
        expect(scene.deliveredOtherThanOnce()).toBe(0);
      }));
  }

  for (const name of ["refuses connections", "falls silent in the middle of a load"]) {
    const outage = OUTAGES.find((one) => one.name === name)!;
    if (!everyKind && (how === "a drain") !== (name === "refuses connections")) continue;
    test.concurrent(`a stop of ${how} hands back all that a database does not store that ${name}`, () =>
      withScene(LONG, async (scene) => {
        scene.send(MORE_THAN_IS_HELD);
        const loads = scene.pg.pauseAll("load-sent");
        const run = scene.start(argsOf(how, GRACE_SECONDS), {}, { ...IMPATIENT, ...outage.waits });
        await loads.reached;
        await outage.begin(scene);
        loads.resume();
        await run.says(AWAY);
        run.signal("SIGTERM");
        const ended = await run.ended;
        expectStopped(ended);
        expect(ended.summary()).toMatchObject({ received: 0, acknowledged: 0 });
        expect(ended.summary().handedBack).toBe(scene.shared.deliveries.size);
        await expectAllThere(scene, ended);
        await outage.end(scene);
        await eventually("the connections are gone", () => scene.pg.connections() === 0);
        await expectNextRunStoresAll(scene);
      }));
  }

  // The ordinary run has the rest for --follow alone.
  if (!everyKind && how === "a drain") continue;

  test.concurrent(`a stop of ${how} gives up a load whose answer does not come, although it commits`, () =>
    withScene(LONG, async (scene) => {
      scene.send(MORE_THAN_IS_HELD);
      const committed = scene.pg.pauseAll("load-answered");
      const run = scene.start(argsOf(how, GRACE_SECONDS), {}, IMPATIENT);
      await committed.reached;
      run.signal("SIGTERM");
      const ended = await run.ended;
      expectStopped(ended);
      expect(ended.summary().received).toBe(0);
      expect(await scene.stored()).toBeGreaterThan(0);
      await expectAllThere(scene, ended);
      committed.cut();
      const next = await expectNextRunStoresAll(scene);
      expect(next.summary().duplicates).toBeGreaterThan(0);
    }));

  for (const [name, mode] of [
    ["refuses connections", { kind: "refuse", how: "closed" }],
    ["falls silent", { kind: "hold" }],
  ] as const) {
    test.concurrent(`a stop of ${how} is not kept up by a queue that ${name}`, () =>
      withScene(LONG, async (scene) => {
        scene.send(1500);
        const loads = scene.pg.pauseAll("load-sent");
        const run = scene.start(argsOf(how, 3));
        await loads.reached;
        await scene.sqs.set(mode);
        if (mode.kind === "refuse") scene.sqs.dropAll();
        loads.resume();
        run.signal("SIGTERM");
        const ended = await run.ended;
        expectStopped(ended);
        await scene.sqs.set({ kind: "pass" });
        await scene.comeBack();
        await expectNextRunStoresAll(scene);
      }));
  }

  test.concurrent(`a stop of ${how} ends within its grace when nothing answers at all`, () =>
    withScene(LONG, async (scene) => {
      scene.send(1500);
      const loads = scene.pg.pauseAll("load-sent");
      const run = scene.start(argsOf(how, 3));
      await loads.reached;
      await Promise.all([scene.sqs.set({ kind: "hold" }), scene.pg.set({ kind: "hold" })]);
      loads.resume();
      run.signal("SIGTERM");
      const ended = await run.ended;
      expectStopped(ended);
      expect(ended.summary()).toMatchObject({ acknowledged: 0, handedBack: 0 });
      await Promise.all([scene.sqs.set({ kind: "pass" }), scene.pg.set({ kind: "pass" })]);
      await scene.comeBack();
      await expectNextRunStoresAll(scene);
    }));

  for (const second of SIGNALS) {
    test.concurrent(`a second signal (${second}) ends ${how} at once, and nothing is lost`, () =>
      withScene(LONG, async (scene) => {
        scene.send(1500);
        const loading = scene.pg.pauseNext("load-sent");
        const run = scene.start(argsOf(how, 100_000));
        await loading;
        run.signal("SIGTERM");
        await sleep(500);
        expect(run.isRunning()).toBe(true);
        run.signal(second);
        const { code, said, stdout } = await run.ended;
        expect({ code, said, stdout }).toEqual({ code: 130, said: [], stdout: "" });
        await scene.comeBack();
        await expectNextRunStoresAll(scene);
      }));
  }

  test.concurrent(`a stop of ${how} leaves what is stored and cannot be deleted to come again`, () =>
    withScene(LONG, async (scene) => {
      scene.send(MORE_THAN_IS_HELD);
      scene.sqs.failNext("silence", "delete", 1e9);
      const run = scene.start(argsOf(how, GRACE_SECONDS), {}, IMPATIENT);
      await eventually("a delete is under way", () => scene.sqs.struck.has("silence"));
      run.signal("SIGTERM");
      const ended = await run.ended;
      expectStopped(ended);
      const { received, acknowledged, handedBack } = ended.summary();
      expect(acknowledged).toBe(0);
      expect(await scene.stored()).toBe(received);
      // What was handed back was not known to be stored. Its load may answer in that very moment: then it is counted as
      // stored, too, and comes back as a duplicate. A poll that is cut off when the time for work is over may take
      // messages with it: those come back by themselves.
      expect(handedBack).toBeLessThanOrEqual(scene.shared.deliveries.size);
      scene.sqs.disarm();
      await scene.comeBack();
      await expectNextRunStoresAll(scene);
    }));

  test.concurrent(`a stop of ${how} that may hand nothing back ends all the same`, () =>
    withScene(LONG, async (scene) => {
      scene.send(1500);
      scene.sqs.failNext("access-denied", "visibility", 1e9);
      const loads = scene.pg.pauseAll("load-sent");
      const run = scene.start(argsOf(how, 3));
      await loads.reached;
      run.signal("SIGTERM");
      const { code, summary } = await run.ended;
      expect(code).toBe(0);
      expect(summary()).toMatchObject({ received: 0, handedBack: 0 });
      loads.cut();
      scene.sqs.disarm();
      await scene.comeBack();
      await expectNextRunStoresAll(scene);
    }));
}
