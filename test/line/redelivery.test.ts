// Promise 1, where it is hardest to keep: deletes that fail or are lost, kills at any instruction,
// signals, several programs on one queue.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys, type TestKeys } from "../support/keys.ts";
import { createQueue } from "../support/servers.ts";
import { startVeil, veil } from "../support/veil.ts";
import { type Front, type FrontOptions, startFront } from "./front.ts";
import { comeBack, remaining, summary, until, withoutWaits } from "./stored.ts";

// Many processes at once: none of them is slow, all of them together are.
let database: TestDatabase;
let keys: TestKeys;
beforeAll(async () => {
  database = await createDatabase();
  keys = await makeKeys();
});
afterAll(() => database.drop());

const fronts: Front[] = [];
afterAll(async () => {
  for (const front of fronts) await front.stop();
});

type Scene = {
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
  readonly send: (count: number) => string[];
  /** When the front has nothing under way any more. */
  readonly idle: () => Promise<void>;
  /** Rows of this scene's messages, by what each message is known by. */
  readonly rows: () => Promise<Map<string, number>>;
};

let scenes = 0;

/** A queue of its own in the common database, behind a front if it has to misbehave. */
async function stage(options?: FrontOptions): Promise<Scene> {
  const queue = await createQueue();
  const front = options === undefined ? null : await startFront(options);
  if (front !== null) fronts.push(front);
  const scene = `scene-${++scenes}`;
  const sql = database.sql(database.ownerUrl);
  let sent = 0;
  return {
    name: queue.name,
    env: {
      ...queue.env,
      ...front?.env,
      DATABASE_URL: database.url("etl"),
      VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
      VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
    },
    send: (count) =>
      Array.from({ length: count }, () => {
        const n = sent++;
        // One in fifty is broken; its redelivery may not stand in the quarantine twice either.
        const login = { user_id: `${scene}/${n}`, ip: `198.51.100.${n % 200}`, device_id: `d${n}` };
        return queue.send(JSON.stringify(n % 50 === 49 ? { ...login, locale: 5 } : login));
      }),
    idle: async () => front?.idle(),
    rows: async () => {
      const found = await sql`
        select user_id, count(*)::integer as times from public.user_logins
        where user_id like ${`${scene}/%`} group by user_id`;
      return new Map(found.map((row) => [String(row.user_id), Number(row.times)]));
    },
  };
}

const inQuarantine = async (ids: readonly string[]): Promise<number> => {
  const sql = database.sql(database.ownerUrl);
  const [row] = await sql`
    select count(*)::integer as count from etl.quarantine where message_id = any (${ids as string[]})`;
  return Number(row?.count);
};

const inLedger = async (ids: readonly string[]): Promise<number> => {
  const sql = database.sql(database.ownerUrl);
  const [row] = await sql`
    select count(*)::integer as count from etl.ledger where message_id = any (${ids as string[]})`;
  return Number(row?.count);
};

/** Nothing lost and nothing twice, of `count` messages of which one in fifty is broken. */
async function expectExactly(scene: Scene, ids: readonly string[]): Promise<void> {
  const rows = await scene.rows();
  const broken = Math.floor(ids.length / 50);
  expect({
    rows: rows.size,
    twice: [...rows.values()].filter((times) => times > 1).length,
  }).toEqual({
    rows: ids.length - broken,
    twice: 0,
  });
  expect(await inQuarantine(ids)).toBe(broken);
  expect(await inLedger(ids)).toBe(ids.length);
  expect(await remaining(scene.name)).toBe(0);
}

test.concurrent("messages that SQS forgot to delete come back and change nothing", async () => {
  let verdict: "lose" | "pass" = "lose";
  const scene = await stage({ onDelete: () => verdict });
  const ids = scene.send(100);
  const first = await veil(["etl", "--json"], { env: scene.env });
  expect(first.code).toBe(0);
  expect(summary(first)).toMatchObject({ received: 100, loaded: 98, quarantined: 2 });
  expect(await remaining(scene.name)).toBe(100);

  verdict = "pass";
  await comeBack(scene.name);
  const second = await veil(["etl", "--json"], { env: scene.env });
  expect(second.code).toBe(0);
  expect(summary(second)).toMatchObject({
    received: 100,
    loaded: 0,
    duplicates: 100,
    quarantined: 0,
    acknowledged: 100,
    newOriginals: 0,
  });
  await expectExactly(scene, ids);
});

test.concurrent("a failing delete is exit code 1, its messages stay stored, and the next run acknowledges them", async () => {
  let verdict: "fail" | "pass" = "fail";
  const scene = await stage({ onDelete: () => verdict });
  const ids = scene.send(100);
  const first = await veil(["etl", "--json"], { env: scene.env });
  expect(first.code).toBe(1);
  expect(first.stderr).toMatch(/^error: cannot delete stored messages: .+\nhint: .+\n$/);
  const { received, loaded, duplicates, quarantined, acknowledged } = summary(first);
  expect(received).toBeGreaterThan(0);
  expect(loaded + duplicates + quarantined).toBe(received);
  expect(acknowledged).toBe(0);
  expect(await inLedger(ids)).toBe(received);
  expect(await remaining(scene.name)).toBe(100);

  verdict = "pass";
  await comeBack(scene.name);
  const second = await veil(["etl", "--json"], { env: scene.env });
  expect(second.code).toBe(0);
  expect(summary(second)).toMatchObject({
    received: 100,
    duplicates: received,
    acknowledged: 100,
  });
  await expectExactly(scene, ids);
});

test.concurrent("acknowledged counts what the answer lists as deleted, and nothing else", async () => {
  const scene = await stage({ onDelete: () => "partly" });
  const ids = scene.send(40);
  const run = await veil(["etl", "--json"], { env: scene.env });
  const { received, acknowledged } = summary(run);
  expect(received).toBe(40);
  expect(acknowledged).toBeLessThan(40);
  expect(await remaining(scene.name)).toBe(40 - acknowledged);
  expect(await inLedger(ids)).toBe(40);
});

test.concurrent("a delivery without its SentTimestamp is an error, never today's date", async () => {
  const scene = await stage({ rewrite: () => ({ sentAt: null, body: '{"user_id":"undated"}' }) });
  const ids = scene.send(1);
  const run = await veil(["etl", "--json"], { env: scene.env });
  expect(run.code).toBe(1);
  expect(run.stderr).toMatch(/^error: .*SentTimestamp\nhint: .+\n$/);
  expect(summary(run)).toMatchObject({ received: 0, acknowledged: 0 });
  expect(await inLedger(ids)).toBe(0);
  expect(await remaining(scene.name)).toBe(1);
});

test.concurrent("killed at any moment, again and again: nothing is lost and nothing is there twice", async () => {
  let delivered = 0;
  let killAt: "delivery" | "delete" | null = null;
  let kill = () => {};
  const scene = await stage({
    onDelivered: (deliveries) => {
      if (killAt === "delivery" && deliveries - delivered >= 150) kill();
      if (killAt === null) delivered = deliveries;
    },
    onDelete: () => {
      // Committed, and not yet acknowledged: the narrowest place there is.
      if (killAt !== "delete") return "pass";
      kill();
      return "lose";
    },
  });
  const ids = scene.send(2000);
  let kills = 0;
  for (const moment of ["delivery", "delete", "delivery", "delete"] as const) {
    const child = startVeil(["etl", "--json"], { env: scene.env });
    kill = () => {
      child.kill("SIGKILL");
      killAt = null;
    };
    killAt = moment;
    await child.exited;
    if (child.signalCode === "SIGKILL") kills++;
    await scene.idle();
    await comeBack(scene.name);
  }
  expect(kills).toBe(4);
  const last = await veil(["etl", "--json"], { env: scene.env });
  expect({ code: last.code, stderr: withoutWaits(last.stderr) }).toEqual({ code: 0, stderr: "" });
  const { received, loaded, duplicates, quarantined, acknowledged } = summary(last);
  expect(loaded + duplicates + quarantined).toBe(received);
  expect(acknowledged).toBe(received);
  expect(duplicates).toBeGreaterThan(0);
  await expectExactly(scene, ids);
});

test.concurrent("SIGTERM finishes what was received, says so in one line, and exits 0", async () => {
  // Once: a second signal would end the program at once.
  let terminate: (() => void) | null = null;
  let end: Promise<unknown> | null = null;
  const scene = await stage({
    // Nothing more is delivered to a program that is slow to notice the signal.
    beforeReceive: () => end,
    onDelivered: (deliveries) => {
      if (deliveries < 300) return;
      terminate?.();
      terminate = null;
    },
  });
  const ids = scene.send(2000);
  const child = startVeil(["etl", "--json"], { env: scene.env });
  terminate = () => {
    end = child.exited;
    child.kill("SIGTERM");
  };
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect({ code, stderr: withoutWaits(stderr) }).toEqual({ code: 0, stderr: "" });
  const { received, loaded, duplicates, quarantined, acknowledged } = summary({ stdout, stderr });
  expect(received).toBeGreaterThanOrEqual(300);
  expect(received).toBeLessThan(2000);
  expect(loaded + duplicates + quarantined).toBe(received);
  expect(acknowledged).toBe(received);
  expect(await inLedger(ids)).toBe(received);
  expect(await remaining(scene.name)).toBe(2000 - received);
});

for (const programs of [2, 4]) {
  test.concurrent(`${programs} programs share a queue without losing or doubling a message`, async () => {
    const scene = await stage();
    const ids = scene.send(800);
    const runs = await Promise.all(
      Array.from({ length: programs }, () => veil(["etl", "--json"], { env: scene.env })),
    );
    expect(runs.map(({ code, stderr }) => `${code}${withoutWaits(stderr)}`)).toEqual(
      runs.map(() => "0"),
    );
    const summaries = runs.map(summary);
    const total = (name: "received" | "loaded" | "quarantined" | "acknowledged") =>
      summaries.reduce((sum, one) => sum + one[name], 0);
    expect({
      received: total("received"),
      loaded: total("loaded"),
      quarantined: total("quarantined"),
      acknowledged: total("acknowledged"),
    }).toEqual({ received: 800, loaded: 784, quarantined: 16, acknowledged: 800 });
    await expectExactly(scene, ids);
  });
}

test.concurrent("--max-messages is exact while the queue holds more", async () => {
  const scene = await stage();
  scene.send(45);
  let left = 45;
  for (const most of [7, 1, 10, 25]) {
    const run = await veil(["etl", "--json", "--max-messages", String(most)], { env: scene.env });
    expect(run.code).toBe(0);
    expect(summary(run)).toMatchObject({ received: most, acknowledged: most, inFlight: 0 });
    left -= most;
    expect(await remaining(scene.name)).toBe(left);
  }
});

test.concurrent("--max-messages ends when the queue holds less", async () => {
  const runs = [1, 7, 10, 25, 31].map(async (most) => {
    const scene = await stage();
    const ids = scene.send(most - 1);
    const child = startVeil(["etl", "--json", "--max-messages", String(most)], { env: scene.env });
    const [stdout, code] = await Promise.all([new Response(child.stdout).text(), child.exited]);
    expect({ most, code, signal: child.signalCode }).toEqual({ most, code: 0, signal: null });
    expect(summary({ stdout, stderr: "" })).toMatchObject({
      received: most - 1,
      acknowledged: most - 1,
      inFlight: 0,
    });
    expect(await inLedger(ids)).toBe(most - 1);
  });
  await Promise.all(runs);
});

test.concurrent("--follow stays for messages that are sent later, and SIGTERM ends it with a summary", async () => {
  const scene = await stage();
  const child = startVeil(["etl", "--follow", "--json"], { env: scene.env });
  const output = Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const first = scene.send(5);
  await until(async () => (await inLedger(first)) === 5);
  const second = scene.send(20);
  await until(async () => (await inLedger(second)) === 20 && (await remaining(scene.name)) === 0);
  expect(child.exitCode).toBeNull();
  child.kill("SIGTERM");
  const [stdout, stderr, code] = await output;
  expect({ code, stderr: withoutWaits(stderr) }).toEqual({ code: 0, stderr: "" });
  expect(summary({ stdout, stderr })).toMatchObject({
    received: 25,
    loaded: 25,
    duplicates: 0,
    quarantined: 0,
    acknowledged: 25,
    inFlight: 0,
  });
  expect((await scene.rows()).size).toBe(25);
});
