// Before the first message: a run that follows waits for servers that are not up yet, and a signal ends every
// start as it ends every run, also while nothing answers.
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { listen, portOf } from "../proxies/listen.ts";
import { errorResponse } from "../proxies/pg-wire.ts";
import { withGate } from "./trouble-gate.ts";
import { AWAY, eventually } from "./trouble-run.ts";
import { connecting, everyKind, LONG, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

const BACK = /^the server can be reached again after [0-9]+ s$/;
const NOTHING = { received: 0, loaded: 0, duplicates: 0, quarantined: 0, acknowledged: 0 };

const MODES = {
  "refuses connections": { kind: "refuse", how: "closed" },
  "accepts connections and closes them": { kind: "refuse", how: "accepted" },
  "does not answer": { kind: "hold" },
} as const;
type Name = keyof typeof MODES;
const NAMES = Object.keys(MODES) as Name[];

const SERVERS = ["database", "queue"] as const;
const setServer = ({ pg, sqs }: Scene, server: (typeof SERVERS)[number], name: Name | null) => {
  const mode = name === null ? ({ kind: "pass" } as const) : MODES[name];
  return server === "database" ? pg.set(mode) : sqs.set(mode);
};

/** Short where each of a start's attempts takes as long. */
const impatient = ({ env }: Scene) => ({ DATABASE_URL: connecting(env.DATABASE_URL ?? "", 4) });
const IMPATIENT = { startDelaysMs: [100], queueAnswerMs: 2000 };

for (const server of SERVERS) {
  for (const name of NAMES) {
    test.concurrent(`--follow waits for a ${server} that ${name} when it starts, and says so once`, () =>
      withScene(LONG, async (scene) => {
        await setServer(scene, server, name);
        scene.send(100);
        const run = scene.start(["etl", "--follow", "--json"], impatient(scene), IMPATIENT);
        await run.says(AWAY);
        await sleep(2000);
        expect(run.isRunning()).toBe(true);
        await setServer(scene, server, null);
        await scene.settled();
        run.signal("SIGTERM");
        const { code, said, summary } = await run.ended;
        expect(code).toBe(0);
        // On a busy machine the queue's answers may take long later, too.
        expect(said.slice(0, 2)).toEqual([
          expect.stringMatching(AWAY),
          expect.stringMatching(BACK),
        ]);
        for (const line of said) expect(line).toMatch(new RegExp(`${AWAY.source}|again after`));
        expect(said.filter((line) => BACK.test(line))).toHaveLength(1);
        expect(summary()).toMatchObject({ received: 100, acknowledged: 100 });
        expect(scene.deliveredOtherThanOnce()).toBe(0);
        expect(await scene.verdict()).toEqual(KEPT);
      }));

    for (const how of ["--follow", "a drain"]) {
      // It has nothing to wait for then: it ends at once.
      if (how === "a drain" && server === "queue" && name !== "does not answer") continue;
      if (!everyKind && name !== "does not answer") continue;
      const args = ["etl", "--json", "--grace", "3", ...(how === "--follow" ? [how] : [])];
      test.concurrent(`a signal ends ${how} that waits for a ${server} that ${name}`, () =>
        withScene(LONG, async (scene) => {
          await setServer(scene, server, name);
          scene.send(10);
          const run = scene.start(args, impatient(scene), IMPATIENT);
          await run.listens();
          await sleep(500); // it waits by now, or is about to
          run.signal("SIGTERM");
          const { code, said, summary } = await run.ended;
          expect({ code, said: said.filter((line) => !AWAY.test(line)) }).toEqual({
            code: 0,
            said: [],
          });
          expect(summary()).toMatchObject({ ...NOTHING, handedBack: 0 });
          expect(scene.queued()).toEqual({ ready: 10, inFlight: 0 });
        }));
    }
  }

  test.concurrent(`a drain does not wait long for a ${server} that is not there, and says so`, () =>
    withScene(LONG, async (scene) => {
      await setServer(scene, server, "refuses connections");
      const { code, said, summary } = await scene.start(["etl", "--json"], {}, IMPATIENT).ended;
      expect({ code, said }).toEqual({
        code: 1,
        said: [
          expect.stringMatching(/^error: cannot (reach the database|read the queue's attributes)/),
          expect.stringMatching(/^hint: /),
        ],
      });
      expect(summary()).toMatchObject(NOTHING);
    }));
}

test.concurrent("--follow waits for a queue that is throttled after its first answer", () =>
  withScene(LONG, (scene) =>
    withGate(scene.sqs.env.AWS_ENDPOINT_URL_SQS, "test", async (gate) => {
      gate.refuse("GetQueueAttributes", "throttled", 1);
      scene.send(100);
      const run = scene.start(["etl", "--follow", "--json"], gate.env);
      // As often as the SDK asks by itself, and again.
      await eventually("it asks on, or ends", () => {
        return !run.isRunning() || gate.refused("GetQueueAttributes") > 5;
      });
      expect({ isRunning: run.isRunning(), said: run.said() }).toEqual({
        isRunning: true,
        said: [expect.stringMatching(AWAY)],
      });
      gate.refuse("GetQueueAttributes", null);
      await scene.settled();
      run.signal("SIGTERM");
      expect((await run.ended).code).toBe(0);
    }),
  ));

test.concurrent("--follow waits for a database that is asked for TLS and has no process left to answer", async () => {
  // What a postmaster says that cannot fork, before it has read anything.
  const said = errorResponse({ severity: "FATAL", sqlstate: "53200", message: "out of memory" });
  const postmaster = await listen(0, (client) => {
    client.on("error", () => {});
    client.end(said);
  });
  await withScene(LONG, async (scene) => {
    const url = new URL(scene.env.DATABASE_URL ?? "");
    url.port = String(portOf(postmaster));
    url.searchParams.set("sslmode", "require");
    const run = scene.start(["etl", "--follow", "--json"], { DATABASE_URL: url.href });
    await run.says(AWAY);
    run.signal("SIGTERM");
    expect((await run.ended).code).toBe(0);
  });
  postmaster.close();
});

test.concurrent("a signal ends a start that the database keeps waiting", () =>
  withScene(LONG, async (scene) => {
    await scene.database.sql.unsafe(`
      create or replace function etl.housekeep() returns table (created integer, dropped integer, periods integer)
        language sql security definer set search_path = pg_catalog, pg_temp
        as 'select 0, 0, 0 from pg_sleep(3600)'`);
    const run = scene.start(["etl", "--json", "--grace", "3"]);
    await eventually("it waits", async () => {
      const [row] = await scene.database.sql`
        select pid from pg_stat_activity
        where usename = ${scene.database.login} and wait_event = 'PgSleep'`;
      return row !== undefined;
    });
    run.signal("SIGTERM");
    // Fifty times its grace: not slow, but deaf.
    await Promise.race([run.ended, sleep(150_000)]);
    expect(run.isRunning()).toBe(false);
    const { code, said, summary } = await run.ended;
    expect({ code, said }).toEqual({ code: 0, said: [] });
    expect(summary()).toMatchObject({ ...NOTHING, handedBack: 0 });
  }));

test.concurrent("a signal ends --follow while it waits for messages", () =>
  withScene(LONG, async (scene) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const run = scene.start(["etl", "--follow", "--json"]);
      const polls = scene.sqs.counts["receive-sent"];
      while (scene.sqs.counts["receive-sent"] < polls + 1 && run.isRunning()) await sleep(20);
      run.signal(signal);
      const { code, said, summary } = await run.ended;
      expect({ code, said }).toEqual({ code: 0, said: [] });
      expect(summary()).toMatchObject({ ...NOTHING, handedBack: 0 });
    }
  }));
