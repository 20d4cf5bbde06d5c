// When a run ends because of its database: a drain after a while, everything else only where waiting cannot
// help. What was not stored is in the queue at once, and the next run stores it.
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LINE_WAITS } from "../../../src/line/waits.ts";
import type { PausedAll } from "../proxies/pg-proxy.ts";
import { OUTAGES } from "./trouble-outages.ts";
import { AWAY, BACK, type Ended, eventually } from "./trouble-run.ts";
import { everyKind, LONG, MORE_THAN_LOADS_TAKE, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

/** Every message is stored and deleted, or ready for another consumer; the summary says how many of each. */
async function expectHandedBack(scene: Scene, ended: Ended): Promise<void> {
  const { received, loaded, duplicates, quarantined, acknowledged, handedBack } = ended.summary();
  expect(loaded + duplicates + quarantined).toBe(received);
  expect(scene.queued()).toEqual({ ready: scene.sent.length - acknowledged, inFlight: 0 });
  // A commit whose answer was lost is stored, and is not received to whoever loaded it.
  expect(await scene.stored()).toBeGreaterThanOrEqual(received);
  expect({ acknowledged, handedBack: handedBack > 0 }).toEqual({
    acknowledged: received,
    handedBack: true,
  });
}

async function expectNextRunStoresAll(scene: Scene): Promise<void> {
  const next = await scene.start(["etl", "--json"]).ended;
  // A load that its driver has forgotten is away for a minute, and is sent again.
  const said = next.said.filter((line) => !AWAY.test(line) && !BACK.test(line));
  expect({ code: next.code, said }).toEqual({ code: 0, said: [] });
  expect(await scene.verdict()).toEqual(KEPT);
}

test("a drain waits for a minute before it gives up, and so does a load", () => {
  expect(LINE_WAITS).toMatchObject({ outageMs: 60_000, loadMs: 60_000, stalledMs: 5_000 });
});

/** Instead of a minute; what it takes a busy machine to store a batch is no silence. */
const IMPATIENT = { outageMs: 3000, stalledMs: 3000, loadMs: 6000 };
const GAVE_UP = /^error: .+; gave up after [0-9]+ s$/;
const DRAIN = ["etl", "--json", "--grace", "120"];

for (const name of ["refuses connections", "falls silent in the middle of a load"]) {
  const outage = OUTAGES.find((one) => one.name === name)!;
  test.concurrent(`a drain gives up on a database that ${name} for too long`, () =>
    withScene(LONG, async (scene) => {
      scene.send(MORE_THAN_LOADS_TAKE);
      scene.at["load-delivered"] = () => {
        delete scene.at["load-delivered"];
        void outage.begin(scene);
      };
      const { summary, code, said, ...ended } = await scene.start(DRAIN, {}, IMPATIENT).ended;
      expect(code).toBe(1);
      expect(said.some((line) => AWAY.test(line))).toBe(true);
      const others = said.filter((line) => !AWAY.test(line) && !BACK.test(line));
      expect(others).toEqual([expect.stringMatching(GAVE_UP), expect.stringMatching(/^hint: /)]);
      expect(summary().received).toBeGreaterThan(0);
      await outage.end(scene);
      await eventually("the connections are gone", () => scene.pg.connections() === 0);
      await expectHandedBack(scene, { summary, code, said, ...ended });
      await expectNextRunStoresAll(scene);
    }));
}

test.concurrent("a drain gives up on a silent database also where a load is a transaction", () =>
  withScene(LONG, async (scene) => {
    const { sql, name } = scene.database;
    await sql.unsafe(
      `alter database ${name} set default_transaction_isolation = 'repeatable read'`,
    );
    scene.send(1500);
    // The first one only: what was held is delivered in the end, too.
    scene.at["load-delivered"] = () => {
      delete scene.at["load-delivered"];
      void scene.pg.set({ kind: "hold" });
    };
    const run = scene.start(DRAIN, {}, IMPATIENT);
    await Promise.race([run.ended, sleep(150_000)]); // many times its patience
    expect(run.isRunning()).toBe(false);
    const { code, said } = await run.ended;
    expect(code).toBe(1);
    expect(said.filter((line) => GAVE_UP.test(line))).toHaveLength(1);
    await scene.pg.set({ kind: "pass" });
    await eventually("the connections are gone", () => scene.pg.connections() === 0);
    await expectNextRunStoresAll(scene);
  }));

type Refusal = {
  readonly name: string;
  readonly begin: (scene: Scene) => string;
  readonly end: (scene: Scene) => string;
  readonly says: RegExp;
  /** What meets it in the ordinary run. */
  readonly usually: How;
};

const HOWS = ["--follow", "a drain"] as const;
type How = (typeof HOWS)[number];

const LOAD = "etl.load";
const terminate = (login: string) =>
  `select pg_terminate_backend(pid) from pg_stat_activity where usename = '${login}'`;

const REFUSALS: readonly Refusal[] = [
  {
    name: "takes away the right to load",
    begin: () => `revoke execute on function ${LOAD} from veil_etl`,
    end: () => `grant execute on function ${LOAD} to veil_etl`,
    says: /^error: .*error 42501: permission denied for function load\nhint: connect as a login/,
    usually: "--follow",
  },
  {
    name: "has the load renamed",
    begin: () => `alter function ${LOAD} rename to gone`,
    end: () => "alter function etl.gone rename to load",
    // A load under way meanwhile finds its own name gone.
    says: /^error: .*error (?:42883: function etl\.load\(|42P01: .*"load").*\nhint: .*/,
    usually: "a drain",
  },
  {
    name: "has another password",
    begin: ({ database: { login } }) => `alter role ${login} password 'other'; ${terminate(login)}`,
    end: ({ database: { login } }) => `alter role ${login} password 'test'`,
    says: /^error: .*error 28P01: password authentication failed for user .+\nhint: check user/,
    usually: "--follow",
  },
  {
    name: "lets the login in no more",
    begin: ({ database: { login } }) => `alter role ${login} nologin; ${terminate(login)}`,
    end: ({ database: { login } }) => `alter role ${login} login`,
    says: /^error: .*error 28000: role .+ is not permitted to log in\nhint: check user/,
    usually: "a drain",
  },
  {
    name: "has a table missing",
    begin: () => "alter table public.user_logins rename to gone",
    end: () => "alter table public.gone rename to user_logins",
    says: /^error: .*error 42P01: relation "public\.user_logins" does not exist\nhint: run `veil migrate`/,
    usually: "--follow",
  },
];

for (const refusal of REFUSALS) {
  for (const how of HOWS) {
    if (!everyKind && refusal.usually !== how) continue;
    test.concurrent(`${how} ends with an error when a database ${refusal.name}`, () =>
      withScene(LONG, async (scene) => {
        scene.send(MORE_THAN_LOADS_TAKE);
        // One load is stored, and none is sent until the database refuses it.
        const first = new Promise<PausedAll>((resolve) => {
          scene.at["load-delivered"] = () => {
            delete scene.at["load-delivered"];
            resolve(scene.pg.pauseAll("load-sent"));
          };
        });
        const run = scene.start([...DRAIN, ...(how === "--follow" ? [how] : [])]);
        const others = await first;
        await scene.database.sql.unsafe(refusal.begin(scene));
        others.resume();
        const ended = await run.ended;
        expect(ended.code).toBe(1);
        const said = ended.said.filter((line) => !line.startsWith("warning: "));
        expect(said.join("\n")).toMatch(refusal.says);
        expect(said).toHaveLength(2);
        expect(ended.summary().received).toBeGreaterThan(0);
        await expectHandedBack(scene, ended);
        await scene.database.sql.unsafe(refusal.end(scene));
        await expectNextRunStoresAll(scene);
      }));
  }
}
