// FIFO queues: a group's messages become rows, and leave the queue, in the order in which they were sent.
//
// fauxqs hands out one message of a group at a time and keeps the group back until that one is deleted.
// AWS hands out as many of a group as fit into an answer, in order, and keeps the rest back. Both are
// looked at: the emulator's own FIFO queue over its protocol, and AWS's way in fifo-queue.ts, which is
// where the order within a batch shows.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type postgres from "postgres";
import { startFront } from "../../line/front.ts";
import { comeBack, remaining, summary } from "../../line/stored.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { makeKeys, type TestKeys } from "../../support/keys.ts";
import { useSqs } from "../../support/servers.ts";
import { startVeil, veil } from "../../support/veil.ts";
import { DRAINS_AT_ONCE, PROGRAM } from "../trouble/trouble-run.ts";
import { type FifoOptions, type FifoQueue, startFifoQueue } from "./fifo-queue.ts";

// Several processes at once on a machine that others use as well.
setDefaultTimeout(900_000);

let database: TestDatabase;
let keys: TestKeys;
let owner: postgres.Sql;
const stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  database = await createDatabase();
  keys = await makeKeys();
  owner = database.sql(database.ownerUrl);
  // The order in which rows are written: neither ctid nor xmin says it once several workers write.
  await owner.unsafe(`
    create table public.written (n bigserial primary key, user_id text not null);
    create function public.note_written() returns trigger language plpgsql security definer
      set search_path = pg_catalog, pg_temp
      as $$ begin insert into public.written (user_id) values (new.user_id); return null; end $$;
    create trigger note_written after insert on public.user_logins
      for each row execute function public.note_written();
    alter table public.user_logins add constraint no_poison check (user_id not like '%poison')`);
});
afterAll(async () => {
  for (const stop of stops) await stop();
  await database.drop();
});

const env = (queue: Readonly<Record<string, string>>) => ({
  ...queue,
  DATABASE_URL: database.url("etl"),
  VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
  VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
});

let scenes = 0;
const newScene = (): string => `scene${++scenes}`;

/** What message `n` of a group is known by. */
const user = (scene: string, group: number, n: number, poison = false): string =>
  `${scene}/${group}/${n}${poison ? "-poison" : ""}`;
const login = (userId: string): string =>
  JSON.stringify({ user_id: userId, ip: "203.0.113.7", device_id: userId });

/** The numbers of each group's messages, in the order in which their rows were written. */
async function written(scene: string): Promise<Map<string, number[]>> {
  const groups = new Map<string, number[]>();
  const rows = await owner`
    select user_id from public.written where user_id like ${`${scene}/%`} order by n`;
  for (const { user_id } of rows) {
    const [, group = "", n = ""] = String(user_id).split("/");
    groups.set(group, [...(groups.get(group) ?? []), Number(n)]);
  }
  return groups;
}

/** Every group's messages in order, once each, but for those in `without`. */
async function expectInOrder(
  scene: string,
  groups: number,
  messages: number,
  without: (group: number, n: number) => boolean = () => false,
): Promise<void> {
  const wanted = Array.from({ length: groups }, (_, group) => [
    String(group),
    Array.from({ length: messages }, (_, n) => n).filter((n) => !without(group, n)),
  ]);
  expect([...(await written(scene))].sort()).toEqual(wanted.sort() as [string, number[]][]);
}

const quarantined = async (ids: readonly string[]) =>
  owner`select message_id, reason from etl.quarantine where message_id in ${owner(ids as string[])}`;

// ---- AWS's way: several of a group in one answer.

function fifo(options?: FifoOptions): FifoQueue {
  const queue = startFifoQueue(options);
  stops.push(queue.stop);
  return queue;
}

/** Interleaved as producers interleave them; answers with the ids by user. */
function fill(queue: FifoQueue, scene: string, groups: number, messages: number) {
  const ids = new Map<string, string>();
  for (let n = 0; n < messages; n++) {
    for (let group = 0; group < groups; group++) {
      const name = user(scene, group, n);
      ids.set(name, queue.send(String(group), login(name)));
    }
  }
  return ids;
}

test("rows of a group stand in the order of its messages, also within a batch", async () => {
  const [queue, scene] = [fifo(), newScene()];
  fill(queue, scene, 7, 60);
  const run = await veil([DRAINS_AT_ONCE, "etl", "--json"], {
    program: PROGRAM,
    env: env(queue.env),
  });
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
  expect(summary(run)).toMatchObject({ received: 420, loaded: 420, acknowledged: 420 });
  expect(queue.answers.some((answer) => answer.length > 1)).toBe(true);
  await expectInOrder(scene, 7, 60);
  expect(queue.remaining()).toBe(0);
});

test("several workers keep each group's order", async () => {
  const [queue, scene] = [fifo(), newScene()];
  fill(queue, scene, 12, 60);
  const runs = await Promise.all(
    Array.from({ length: 3 }, () =>
      veil([DRAINS_AT_ONCE, "etl", "--json"], { program: PROGRAM, env: env(queue.env) }),
    ),
  );
  expect(runs.map(({ code, stderr }) => `${code}${stderr}`)).toEqual(["0", "0", "0"]);
  expect(runs.reduce((sum, run) => sum + summary(run).loaded, 0)).toBe(720);
  await expectInOrder(scene, 12, 60);
  expect(queue.remaining()).toBe(0);
});

test("a worker that is killed again and again costs no group its order, and no message", async () => {
  let strike: (() => void) | null = null;
  let deletes = 0;
  const [queue, scene] = [
    fifo({
      onDelete: (ids) => {
        // Committed and not yet deleted: all of it comes back, before anything that follows it.
        if (++deletes % 4 !== 0 || strike === null) return [];
        strike();
        return ids;
      },
    }),
    newScene(),
  ];
  fill(queue, scene, 5, 100);
  let kills = 0;
  for (let round = 0; round < 4; round++) {
    const child = startVeil([DRAINS_AT_ONCE, "etl", "--json"], {
      program: PROGRAM,
      env: env(queue.env),
    });
    strike = () => child.kill("SIGKILL");
    await child.exited;
    if (child.signalCode === "SIGKILL") kills++;
    await queue.comeBack();
  }
  strike = null;
  expect(kills).toBeGreaterThan(1);
  const last = await veil([DRAINS_AT_ONCE, "etl", "--json"], {
    program: PROGRAM,
    env: env(queue.env),
  });
  expect({ code: last.code, stderr: last.stderr }).toEqual({ code: 0, stderr: "" });
  await expectInOrder(scene, 5, 100);
  expect(queue.remaining()).toBe(0);
});

test("deletes that fail in the middle of a group bring those messages again, and nothing out of order", async () => {
  const asked = new Map<string, number>();
  const queue = fifo({
    visibilitySeconds: 2,
    onDelete: (ids) =>
      ids.filter((id, i) => {
        if (i % 3 !== 1 && !asked.has(id)) return false;
        const times = (asked.get(id) ?? 0) + 1;
        asked.set(id, times);
        // More often than veil asks in a row: it leaves the message to come back.
        return times <= 6;
      }),
  });
  const scene = newScene();
  fill(queue, scene, 3, 12);
  const child = startVeil(["etl", "--follow", "--json"], { env: env(queue.env) });
  try {
    const output = new Response(child.stdout).text();
    while (queue.remaining() > 0 && child.exitCode === null) await Bun.sleep(25);
    child.kill("SIGTERM");
    const [stdout, code] = [await output, await child.exited];
    expect(code).toBe(0);
    expect(asked.size).toBeGreaterThan(5);
    expect(summary({ stdout, stderr: "" })).toMatchObject({
      received: 36 + asked.size,
      loaded: 36,
      duplicates: asked.size,
    });
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
  await expectInOrder(scene, 3, 12);
});

test("a drain of a group that the database is slow on goes on to the group's end", async () => {
  const [queue, scene] = [fifo(), newScene()];
  fill(queue, scene, 1, 25);
  // Longer than two empty polls take: what waits behind messages of one's own is not the queue's end.
  await owner.unsafe(`
    create function public.slow() returns trigger language plpgsql
      as $$ begin perform pg_catalog.pg_sleep(0.5); return null; end $$;
    create trigger slow after insert on public.user_logins execute function public.slow()`);
  try {
    const run = await veil([DRAINS_AT_ONCE, "etl", "--json"], {
      program: PROGRAM,
      env: env(queue.env),
    });
    expect(run.code).toBe(0);
    expect(summary(run)).toMatchObject({ received: 25, loaded: 25, acknowledged: 25 });
    await expectInOrder(scene, 1, 25);
  } finally {
    await owner.unsafe("drop trigger slow on public.user_logins; drop function public.slow()");
  }
});

test("a message that cannot be a row is quarantined, and its group goes on in order", async () => {
  const [queue, scene] = [fifo(), newScene()];
  const broken: string[] = [];
  const isBroken = (group: number, n: number) => n % 10 === group;
  for (let n = 0; n < 40; n++) {
    for (let group = 0; group < 3; group++) {
      const body = isBroken(group, n) ? '{"user_id":' : login(user(scene, group, n));
      const id = queue.send(String(group), body);
      if (isBroken(group, n)) broken.push(id);
    }
  }
  const run = await veil([DRAINS_AT_ONCE, "etl", "--json"], {
    program: PROGRAM,
    env: env(queue.env),
  });
  expect(run.code).toBe(0);
  expect(summary(run)).toMatchObject({ received: 120, loaded: 108, quarantined: 12 });
  expect((await quarantined(broken)).map(({ reason }) => reason)).toEqual(
    broken.map(() => "the body is not JSON"),
  );
  await expectInOrder(scene, 3, 40, isBroken);
  expect(queue.remaining()).toBe(0);
});

test("a row that the database refuses in the middle of a group is taken out, and the order stays", async () => {
  const [queue, scene] = [fifo(), newScene()];
  const poison: string[] = [];
  const isPoison = (group: number, n: number) => (n + group) % 13 === 5;
  for (let n = 0; n < 40; n++) {
    for (let group = 0; group < 3; group++) {
      const id = queue.send(String(group), login(user(scene, group, n, isPoison(group, n))));
      if (isPoison(group, n)) poison.push(id);
    }
  }
  const run = await veil([DRAINS_AT_ONCE, "etl", "--json"], {
    program: PROGRAM,
    env: env(queue.env),
  });
  expect(run.code).toBe(0);
  expect(summary(run)).toMatchObject({
    loaded: 120 - poison.length,
    quarantined: poison.length,
  });
  expect((await quarantined(poison)).map(({ reason }) => reason)).toEqual(
    poison.map(() => "the database refused the row with error 23514"),
  );
  await expectInOrder(scene, 3, 40, isPoison);
  expect(queue.remaining()).toBe(0);
});

// ---- The emulator's own FIFO queue, over its protocol.

async function emulated(): Promise<{
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
  readonly send: (group: string, body: string, deduplicationId: string) => string;
}> {
  const server = await useSqs();
  const name = `logins-${newScene()}.fifo`;
  const { queueUrl } = server.createQueue(name, { attributes: { FifoQueue: "true" } });
  return {
    name,
    env: {
      QUEUE_URL: queueUrl,
      AWS_ENDPOINT_URL_SQS: server.address,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
    },
    send: (group, body, messageDeduplicationId) =>
      server.sendMessage(name, body, { messageGroupId: group, messageDeduplicationId }).messageId,
  };
}

test("a FIFO queue over the SQS protocol: workers, a kill, a broken message, and every group in order", async () => {
  const [queue, scene] = [await emulated(), newScene()];
  let kill: (() => void) | null = null;
  let deletes = 0;
  const front = await startFront({
    onDelete: () => {
      if (++deletes < 8 || kill === null) return "pass";
      kill();
      kill = null;
      return "lose";
    },
  });
  stops.push(front.stop);
  const isBroken = (group: number, n: number) => group === 2 && n === 4;
  const broken: string[] = [];
  for (let n = 0; n < 12; n++) {
    for (let group = 0; group < 8; group++) {
      const name = user(scene, group, n);
      const id = queue.send(String(group), isBroken(group, n) ? "{" : login(name), name);
      if (isBroken(group, n)) broken.push(id);
    }
  }
  const behind = env({ ...queue.env, ...front.env });
  const child = startVeil([DRAINS_AT_ONCE, "etl", "--json"], { program: PROGRAM, env: behind });
  kill = () => child.kill("SIGKILL");
  await child.exited;
  expect(child.signalCode).toBe("SIGKILL");
  await front.idle();
  await comeBack(queue.name);
  const runs = await Promise.all([
    veil([DRAINS_AT_ONCE, "etl", "--json"], { program: PROGRAM, env: behind }),
    veil([DRAINS_AT_ONCE, "etl", "--json"], { program: PROGRAM, env: env(queue.env) }),
  ]);
  expect(runs.map(({ code, stderr }) => `${code}${stderr}`)).toEqual(["0", "0"]);
  await expectInOrder(scene, 8, 12, isBroken);
  expect((await quarantined(broken)).length).toBe(1);
  expect(await remaining(queue.name)).toBe(0);
});

test("what is sent twice under one deduplication id is one row; under another id it is another", async () => {
  const [queue, scene] = [await emulated(), newScene()];
  const name = user(scene, 0, 0);
  const first = queue.send("0", login(name), "once");
  // SQS answers with the first message's id for five minutes, and stores nothing.
  expect(queue.send("0", login(name), "once")).toBe(first);
  expect(queue.send("0", login(name), "twice")).not.toBe(first);
  const run = await veil([DRAINS_AT_ONCE, "etl", "--json"], {
    program: PROGRAM,
    env: env(queue.env),
  });
  expect(run.code).toBe(0);
  expect(summary(run)).toMatchObject({ received: 2, loaded: 2, duplicates: 0 });
  expect(await written(scene)).toEqual(new Map([["0", [0, 0]]]));
});
