// A queue in trouble, for a call or for longer than its visibility time-out, in every way that SQS has: nothing
// is lost, nothing is there twice, and what is deleted is what was stored.
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { MOST_RECEIVERS } from "../../../src/line/receive.ts";
import { SQS_FAULTS, type SqsFault } from "../proxies/sqs-faults.ts";
import { withGate } from "./trouble-gate.ts";
import { AWAY, eventually } from "./trouble-run.ts";
import {
  EXPIRED_MS,
  everyKind,
  LONG,
  REAL_TIME,
  type Scene,
  type SceneOptions,
  withScene,
} from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

const PASSING: readonly SqsFault[] = SQS_FAULTS.filter(
  (fault) => !["access-denied", "queue-deleted", "empty", "partial", "lose"].includes(fault),
);
/** Of those that differ only in their names, CI tries one. */
const ALIKE: readonly SqsFault[] = [
  ...([
    "request-throttled",
    "internal-error",
    "reset-after",
    "reset-half",
    "expired-token",
  ] as const),
];
const OF_ACTION: Readonly<Record<"receive" | "delete", readonly SqsFault[]>> = {
  receive: [...PASSING, "empty"],
  delete: [...PASSING, "partial", "lose"],
};
/** How long veil waits for a queue that says nothing at all. */
const IMPATIENT = {
  ...{ queueAnswerMs: 3000, followPollSeconds: 1 },
  startDelaysMs: Array.from({ length: 50 }, () => 500),
};
/** On a busy machine it then gives up good answers as well: what was in them comes back sooner here. */
const SILENT = { slower: 10 };
const AWAY_TO_DELETE = /^warning: cannot delete .+; waiting for it, nothing is lost$/;
/** What is not deleted whatever the queue says is to come back. */
const OPTIONS: Partial<Record<SqsFault, SceneOptions>> = {
  silence: SILENT,
  partial: REAL_TIME,
  lose: REAL_TIME,
};
/** Of these a consumer sees nothing. */
const UNSEEN: readonly SqsFault[] = ["empty", "partial", "lose"];
const DOES: Readonly<Record<string, string>> = { receive: "answers", delete: "deletes" };

const back = (action: string) => new RegExp(`^the queue ${DOES[action]} again after [0-9]+ s$`);

/** That of this action's outage was told, and of nothing but outages of the queue. */
function expectOutages(said: readonly string[], action: string): void {
  expect(said.some((line) => back(action).test(line))).toBe(true);
  // A stop can come before the end of one that only a busy machine brought about.
  const others = said.filter(
    (line) => !AWAY.test(line) && !/^the queue \w+ again after/.test(line),
  );
  expect(others).toEqual([]);
}

async function expectAddsUp(scene: Scene, summary: Record<string, unknown>): Promise<void> {
  const { received, loaded, duplicates, quarantined, acknowledged } = summary as Record<
    string,
    number
  >;
  expect(loaded! + duplicates! + quarantined!).toBe(received!);
  expect(acknowledged).toBeLessThanOrEqual(received!);
  expect(await scene.verdict()).toEqual(KEPT);
}

for (const action of ["receive", "delete"] as const) {
  for (const fault of OF_ACTION[action]) {
    if (!everyKind && ALIKE.includes(fault)) continue;
    test.concurrent(`--follow waits while each ${action} meets: ${fault}`, () =>
      withScene(OPTIONS[fault] ?? {}, async (scene) => {
        const { sqs } = scene;
        const waits = fault === "silence" ? IMPATIENT : {};
        const run = scene.start(["etl", "--follow", "--json"], {}, waits);
        scene.send(100);
        await scene.settled();
        sqs.failNext(fault, action, 1e9);
        scene.send(200);
        const isSeen = !UNSEEN.includes(fault);
        if (isSeen) await run.says(action === "delete" ? AWAY_TO_DELETE : AWAY);
        else await eventually("it strikes", () => sqs.struck.has(fault));
        if (action === "delete" && isSeen) {
          // While nothing can be deleted, nothing is received. Each receiver may have been about to ask;
          // whoever goes on asking does so at once, and more often.
          const polls = sqs.counts["receive-sent"];
          scene.send(20 * MOST_RECEIVERS);
          await scene.keptHidden();
          expect(sqs.counts["receive-sent"] - polls).toBeLessThanOrEqual(MOST_RECEIVERS);
          if (fault !== "silence") expect(scene.mostReceived()).toBeLessThan(2);
        } else if (fault === "lose") {
          const isBack = () => [...scene.shared.deliveries.values()].some((times) => times > 1);
          await eventually("some come again", isBack);
        } else {
          await sleep(EXPIRED_MS);
        }
        expect(sqs.struck.get(fault) ?? 0).toBeGreaterThan(0);
        // It answers at once where SQS would make the caller wait.
        if (fault !== "empty") expect(sqs.struck.get(fault)).toBeLessThan(2000);
        sqs.disarm();
        await scene.settled();
        run.signal("SIGTERM");
        const { code, said, summary } = await run.ended;
        expect(code).toBe(0);
        if (isSeen) expectOutages(said, action);
        else expect(said).toEqual([]);
        await expectAddsUp(scene, summary());
        // What SQS hands out and veil never sees, or does not delete whatever it says, comes again.
        const comesAgain = action === "receive" || fault in OPTIONS;
        if (!comesAgain) expect(scene.deliveredOtherThanOnce()).toBe(0);
        if (action === "receive") expect(summary().duplicates).toBe(0);
        if (fault === "lose") expect(summary().duplicates).toBeGreaterThan(0);
      }));
  }

  test.concurrent(`a drain goes on after every fault of a ${action}, one after the other`, () =>
    withScene(SILENT, async (scene) => {
      scene.send(600);
      for (const fault of OF_ACTION[action]) scene.sqs.failNext(fault, action);
      const { code, said, summary } = await scene.start(["etl", "--json"], {}, IMPATIENT).ended;
      expect(code).toBe(0);
      for (const line of said) expect(line).toMatch(new RegExp(`${AWAY.source}|again after`));
      expect(scene.sqs.armed()).toBe(false);
      // Where an answer was not waited for, what was in it is not the drain's any more.
      while (scene.queued().ready + scene.queued().inFlight > 0) {
        await scene.comeBack();
        expect((await scene.start(["etl", "--json"]).ended).code).toBe(0);
      }
      await expectAddsUp(scene, summary());
    }));
}

for (const [name, mode] of [
  ["refuses connections", { kind: "refuse", how: "closed" }],
  ["accepts connections and closes them", { kind: "refuse", how: "accepted" }],
  ["falls silent", { kind: "hold" }],
  ["is slow", { kind: "slow", milliseconds: 1500 }],
] as const) {
  test.concurrent(`--follow waits for a queue that ${name}`, () =>
    withScene(REAL_TIME, async (scene) => {
      const run = scene.start(["etl", "--follow", "--json"], {}, IMPATIENT);
      scene.send(100);
      await scene.settled();
      const loading = scene.pg.pauseNext("load-sent");
      scene.send(200);
      const load = await loading; // some are held, and are to be deleted
      await scene.sqs.set(mode);
      if (mode.kind === "refuse") scene.sqs.dropAll();
      load.resume();
      await sleep(EXPIRED_MS);
      expect(run.isRunning()).toBe(true);
      await scene.sqs.set({ kind: "pass" });
      await scene.settled();
      run.signal("SIGTERM");
      const { code, said, summary } = await run.ended;
      expect(code).toBe(0);
      // Of receiving and of deleting, each with its end.
      for (const line of said) expect(line).toMatch(new RegExp(`${AWAY.source}|again after`));
      await expectAddsUp(scene, summary());
    }));
}

const PAGES = [
  { status: 502, body: "<html>Bad Gateway</html>" },
  { status: 504, body: "" },
  { status: 429, body: "<html>slow down</html>" },
  { status: 200, body: "<html>we will be back soon</html>" },
];
for (const page of everyKind ? PAGES : PAGES.filter(({ status }) => status !== 504)) {
  test.concurrent(`--follow waits while a balancer answers ${page.status} in the place of the queue`, () =>
    withScene({}, (scene) =>
      withGate(scene.sqs.env.AWS_ENDPOINT_URL_SQS, "test", async (gate) => {
        const calls = ["ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"];
        const run = scene.start(["etl", "--follow", "--json"], gate.env);
        scene.send(100);
        await scene.settled();
        for (const call of calls) gate.refuse(call, page);
        scene.send(100);
        await run.says(AWAY);
        await sleep(1000);
        expect(run.isRunning()).toBe(true);
        for (const call of calls) gate.refuse(call, null);
        await scene.settled();
        run.signal("SIGTERM");
        const { code, said, summary } = await run.ended;
        expect({ code, away: said.filter((line) => AWAY.test(line)).length <= 2 }).toEqual({
          code: 0,
          away: true,
        });
        expect(said.join()).not.toContain("html");
        await expectAddsUp(scene, summary());
      }),
    ));
}

test.concurrent("deletes that fail in part are asked for again, entry by entry", async () => {
  const calls: (readonly string[])[] = [];
  await withScene(
    {
      ...LONG,
      queue: { onDelete: (messages) => void calls.push(messages.map(({ id }) => id)) },
    },
    async (scene) => {
      scene.send(300);
      const FAILING = 12;
      scene.sqs.failNext("partial", "delete", FAILING);
      const { code, said, summary } = await scene.start(["etl", "--json"]).ended;
      expect({ code, said }).toEqual({ code: 0, said: [] });
      expect(summary()).toMatchObject({ received: 300, acknowledged: 300 });
      // The first calls, each of which did every other entry.
      const again = calls.slice(0, FAILING).flatMap((ids) => ids.filter((_, i) => i % 2 === 1));
      const wanted = [...scene.sent.map(({ id }) => id), ...again].sort();
      expect(calls.flat().sort()).toEqual(wanted);
      expect(scene.deliveredOtherThanOnce()).toBe(0);
      expect(await scene.verdict()).toEqual(KEPT);
    },
  );
});

for (const hours of [1, -1]) {
  const clock = `a queue whose clock is ${hours} h from ours`;
  test.concurrent(`a drain empties ${clock}`, () =>
    withScene(LONG, async (scene) => {
      scene.sqs.pretendClock(hours * 3_600_000);
      scene.send(200);
      const { code, said, summary } = await scene.start(["etl", "--json"]).ended;
      expect({ code, said }).toEqual({ code: 0, said: [] });
      expect(scene.sqs.struck.get("clock")).toBeGreaterThan(0);
      expect(summary()).toMatchObject({ received: 200, acknowledged: 200 });
      expect(await scene.verdict()).toEqual(KEPT);
    }));

  test.concurrent(`--follow goes on with ${clock} from one moment to the next`, () =>
    withScene({}, async (scene) => {
      const run = scene.start(["etl", "--follow", "--json"]);
      // Not quite right again, for the proxy to look at signatures at all.
      for (const offset of [0, hours * 3_600_000, 1]) {
        scene.sqs.pretendClock(offset);
        scene.send(100);
        await scene.settled();
      }
      run.signal("SIGTERM");
      const { code, said, summary } = await run.ended;
      expect({ code, said }).toEqual({ code: 0, said: [] });
      await expectAddsUp(scene, summary());
    }));
}

test.concurrent("messages that come back after they were deleted are duplicates", () =>
  withScene({ ...LONG, queue: { redeliver: 0.5, redeliverWithinMs: 500 } }, async (scene) => {
    scene.send(500);
    const run = scene.start(["etl", "--follow", "--json"]);
    await scene.settled();
    scene.shared.settle();
    scene.shared.hurry();
    scene.send(10); // the polls return
    await eventually("all have come back", () => scene.shared.waiting() === 0);
    await scene.settled();
    run.signal("SIGTERM");
    const { code, said, summary } = await run.ended;
    expect({ code, said }).toEqual({ code: 0, said: [] });
    expect(summary().duplicates).toBeGreaterThan(0);
    expect(summary().duplicates).toBe(scene.shared.redelivered());
    await expectAddsUp(scene, summary());
  }));
