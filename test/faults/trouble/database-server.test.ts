// What a real PostgreSQL does when it is in trouble, or set up by somebody else: deadlocks, locks that nobody
// gives up, sessions with other defaults; and how much of it is said.
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LOADS } from "../../../src/line/line.ts";
import type { Paused } from "../proxies/pg-proxy.ts";
import type { SqsPaused } from "../proxies/sqs-proxy.ts";
import { startDoor } from "./trouble-door.ts";
import { lockTable } from "./trouble-outages.ts";
import { AWAY, BACK, eventually, expectOneOutage } from "./trouble-run.ts";
import { LONG, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

const waitingLoads = async (scene: Scene): Promise<number> => {
  const [row] = await scene.database.sql`
    select count(*)::integer as count from pg_stat_activity
    where usename = ${scene.database.login} and wait_event_type = 'Lock'`;
  return Number(row?.count);
};

test.concurrent("a deadlock costs a retry and is said to nobody", () =>
  withScene(LONG, async (scene) => {
    const { sql, login } = scene.database;
    // The load looks for a deadlock after a while in which the other one has surely closed the circle;
    // the other one never does.
    await sql.unsafe(`alter role ${login} set deadlock_timeout = '6s'`);
    const { session, release } = await lockTable(scene, "public.user_logins");
    await session.unsafe("set local deadlock_timeout = '1h'");
    scene.send(300);
    const run = scene.start(["etl", "--json"]);
    await eventually("a load waits", async () => (await waitingLoads(scene)) > 0);
    // Held by the load, which waits for this session.
    await session.unsafe("lock table pii_vault.originals in access exclusive mode");
    await release();
    const { code, said, summary } = await run.ended;
    expect({ code, said }).toEqual({ code: 0, said: [] });
    expect(summary().retries).toBeGreaterThanOrEqual(1);
    expect(summary()).toMatchObject({ received: 300, duplicates: 0, acknowledged: 300 });
    expect(scene.deliveredOtherThanOnce()).toBe(0);
    expect(await scene.verdict()).toEqual(KEPT);
  }));

test.concurrent("loads that wait for an administrator's lock do not pile up", () =>
  withScene({}, async (scene) => {
    // A load gives up waiting for a lock after 20 seconds, or sooner where its login is set so.
    const { sql, login } = scene.database;
    await sql.unsafe(`alter role ${login} set lock_timeout = '1s'`);
    const run = scene.start(["etl", "--follow", "--json"]);
    // A data key that is stored, and no address twice: loads do not wait for each other.
    scene.send(10);
    await scene.settled();
    const { release } = await lockTable(scene, "public.user_logins");
    scene.send(150);
    await run.says(AWAY);
    let attempts = 0;
    scene.at["load-sent"] = () => attempts++;
    let most = 0;
    // Of each load, the second attempt after the first one's lock time-out, and the third.
    await eventually("two more attempts", async () => {
      most = Math.max(most, await waitingLoads(scene));
      return most > 0 && attempts >= 2 * most;
    });
    expect(most).toBeLessThanOrEqual(LOADS);
    expect(scene.mostReceived()).toBe(1);
    await release();
    await scene.settled();
    run.signal("SIGTERM");
    await expectOneOutage(run);
    expect(scene.deliveredOtherThanOnce()).toBe(0);
    expect(await scene.verdict()).toEqual(KEPT);
  }));

test.concurrent("a commit whose answer never came is loaded again, also inside of a transaction", () =>
  withScene(LONG, async (scene) => {
    const { sql, name } = scene.database;
    await sql.unsafe(
      `alter database ${name} set default_transaction_isolation = 'repeatable read'`,
    );
    scene.send(300);
    scene.pg.cutNext("commit-sent");
    scene.pg.cutNext("commit-answered");
    const ended = await expectOneOutage(scene.start(["etl", "--json"]));
    expect(ended.summary().duplicates).toBeGreaterThan(0);
    expect(ended.summary()).toMatchObject({ received: 300, acknowledged: 300 });
    expect(scene.pg.counts["commit-answered"]).toBeGreaterThan(1);
    expect(scene.deliveredOtherThanOnce()).toBe(0);
    expect(await scene.verdict()).toEqual(KEPT);
  }));

test.concurrent("a server that closes each connection is not dialled without end", () =>
  withScene({}, async (scene) => {
    const door = await startDoor(scene.pg.port);
    try {
      const url = new URL(scene.env.DATABASE_URL ?? "");
      url.port = String(door.port);
      const run = scene.start(["etl", "--follow", "--json"], { DATABASE_URL: url.href });
      scene.send(100);
      await scene.settled();
      door.close();
      scene.send(300);
      await run.says(AWAY);
      await sleep(3000);
      // Some for each attempt, and pauses between them that grow to seconds: a loop makes thousands.
      expect(door.turnedAway()).toBeGreaterThan(0);
      expect(door.turnedAway()).toBeLessThan(LOADS * 150);
      door.open();
      await scene.settled();
      run.signal("SIGTERM");
      await expectOneOutage(run);
      expect(scene.deliveredOtherThanOnce()).toBe(0);
      expect(await scene.verdict()).toEqual(KEPT);
    } finally {
      door.stop();
    }
  }));

/** What is held at a time, of bodies that a few polls fill it with. */
const ROOM_BYTES = 32 * 2 ** 20;
const BODY_BYTES = 400_000;

test.concurrent("room that comes free while the database is away is not filled", () =>
  withScene(LONG, async (scene) => {
    const { at, pg, sqs } = scene;
    scene.send(150, BODY_BYTES);
    const deletions: SqsPaused[] = [];
    at["delete-sent"] = () => void sqs.pauseNext("delete-sent").then((one) => deletions.push(one));
    const failing = Promise.withResolvers<Paused>();
    at["load-delivered"] = () => {
      delete at["load-delivered"];
      pg.pauseNext("load-sent").then(failing.resolve);
    };
    const run = scene.start(["etl", "--follow", "--json"]);
    const second = await failing.promise;
    // Some wait to be deleted, others to be stored, and there is no room for more.
    await eventually("no more fits in", () => scene.queued().inFlight * BODY_BYTES > ROOM_BYTES);
    await pg.set({ kind: "refuse", how: "closed" });
    second.cut();
    pg.dropAll();
    await run.says(AWAY);
    const polls = sqs.counts["receive-sent"];
    delete at["delete-sent"];
    for (const deletion of deletions) deletion.resume();
    await eventually("some are deleted", () => sqs.counts["delete-delivered"] > 0);
    await sleep(2000);
    expect(sqs.counts["receive-sent"] - polls).toBe(0);
    await pg.set({ kind: "pass" });
    await scene.settled();
    run.signal("SIGTERM");
    await expectOneOutage(run);
    expect(scene.deliveredOtherThanOnce()).toBe(0);
    expect(await scene.verdict()).toEqual(KEPT);
  }));

test.concurrent("the log is told in JSON, once when it begins and once when it ends", () =>
  withScene(LONG, async (scene) => {
    const run = scene.start(["etl", "--follow", "--json", "--log", "json"]);
    scene.send(100);
    await scene.settled();
    await scene.pg.set({ kind: "refuse", how: "closed" });
    scene.pg.dropAll();
    scene.send(100);
    await run.says(/"event":"away"/);
    await scene.pg.set({ kind: "pass" });
    await scene.settled();
    run.signal("SIGTERM");
    const { code, said } = await run.ended;
    expect(code).toBe(0);
    expect(said.map((line) => JSON.parse(line))).toEqual([
      {
        time: expect.stringMatching(/^[0-9-]{10}T[0-9:.]+Z$/),
        level: "warn",
        event: "away",
        message: expect.stringMatching(/^cannot reach the database .*nothing is lost$/),
      },
      {
        time: expect.any(String),
        level: "info",
        event: "back",
        message: expect.stringMatching(BACK),
      },
    ]);
  }));

test.concurrent("a load waits for the disk, whatever its login is set to", () =>
  withScene({}, async (scene) => {
    const { sql, login } = scene.database;
    await sql.unsafe(`alter role ${login} set synchronous_commit = off`);
    await sql.unsafe(`
      create table public.witness (setting text);
      create function public.witness() returns trigger language plpgsql security definer as $$
        begin
          insert into public.witness values (current_setting('synchronous_commit'));
          return null;
        end $$;
      create trigger witness after insert on public.user_logins
        for each statement execute function public.witness()`);
    scene.send(100);
    const { code } = await scene.start(["etl", "--json"]).ended;
    expect(code).toBe(0);
    const seen = await sql`select distinct setting from public.witness`;
    expect([...seen]).toEqual([{ setting: "on" }]);
  }));
