// Dead-letter queues: what was stored and never deleted ends up there, and may be driven back.
//
// What AWS does, by its developer guide: a message keeps its id on the way into a dead-letter queue, and
// in a standard queue its time of sending; in a FIFO queue that time is reset. A redrive
// (StartMessageMoveTask) makes a new message of it, with a new id and time. fauxqs 2.4.1 moves into a
// dead-letter queue with id and time kept, for FIFO queues too, and knows no StartMessageMoveTask; here it
// is made to move back the same way, and AWS's redrive is the same body sent again.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type postgres from "postgres";
import { type Front, type FrontOptions, startFront } from "../../line/front.ts";
import { comeBack, remaining, summary } from "../../line/stored.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { makeKeys, type TestKeys } from "../../support/keys.ts";
import { createQueue, useSqs } from "../../support/servers.ts";
import { veil } from "../../support/veil.ts";
import { DRAINS_AT_ONCE, PROGRAM } from "../trouble/trouble-run.ts";

setDefaultTimeout(900_000);

const MAX_RECEIVES = 2;
const DAY = 86_400_000;

let database: TestDatabase;
let keys: TestKeys;
let owner: postgres.Sql;
const fronts: Front[] = [];
beforeAll(async () => {
  database = await createDatabase();
  keys = await makeKeys();
  owner = database.sql(database.ownerUrl);
});
afterAll(async () => {
  for (const front of fronts) await front.stop();
  await database.drop();
});

async function sqs(action: string, asks: object): Promise<void> {
  const answer = await fetch((await useSqs()).address, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.0",
      "x-amz-target": `AmazonSQS.${action}`,
    },
    body: JSON.stringify(asks),
  });
  if (!answer.ok) throw new Error(`${action} answered ${answer.status}`);
}

const arnOf = async (name: string): Promise<string> => (await useSqs()).inspectQueue(name)!.arn;
const urlOf = async (name: string): Promise<string> => (await useSqs()).inspectQueue(name)!.url;
const idsIn = async (name: string): Promise<string[]> =>
  (await useSqs()).inspectQueue(name)!.messages.ready.map(({ messageId }) => messageId);

async function setRedrivePolicy(name: string, target: string, maxReceiveCount: number) {
  const policy = { deadLetterTargetArn: await arnOf(target), maxReceiveCount };
  await sqs("SetQueueAttributes", {
    QueueUrl: await urlOf(name),
    Attributes: { RedrivePolicy: JSON.stringify(policy) },
  });
}

type Scene = {
  readonly queue: string;
  readonly dead: string;
  readonly env: Readonly<Record<string, string>>;
  readonly send: (body: string) => string;
  /** Whether deletes are lost: confirmed, and not done. */
  losing: boolean;
};

async function stage(options: Omit<FrontOptions, "onDelete"> = {}): Promise<Scene> {
  const [queue, dead] = [await createQueue(), await createQueue()];
  await setRedrivePolicy(queue.name, dead.name, MAX_RECEIVES);
  const front = await startFront({ ...options, onDelete: () => (scene.losing ? "lose" : "pass") });
  fronts.push(front);
  const scene: Scene = {
    queue: queue.name,
    dead: dead.name,
    env: {
      ...queue.env,
      ...front.env,
      DATABASE_URL: database.url("etl"),
      VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
      VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
    },
    send: queue.send,
    losing: true,
  };
  return scene;
}

async function etl(scene: Scene, more: Readonly<Record<string, string>> = {}) {
  const run = await veil([DRAINS_AT_ONCE, "etl", "--json"], {
    env: { ...scene.env, ...more },
    program: PROGRAM,
  });
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
  return summary(run);
}

/** Stores what was sent, loses every delete, until SQS gives the messages up. Answers with the first run. */
async function storeUntilDead(scene: Scene) {
  const first = await etl(scene);
  for (let receives = 1; receives <= MAX_RECEIVES; receives++) {
    await comeBack(scene.queue);
    await etl(scene);
  }
  expect(await remaining(scene.queue)).toBe(0);
  scene.losing = false;
  return first;
}

/** Moves all of the dead-letter queue back as it stands: same ids, same times. */
async function moveBack(scene: Scene): Promise<void> {
  await sqs("SetQueueAttributes", {
    QueueUrl: await urlOf(scene.queue),
    Attributes: { RedrivePolicy: "" },
  });
  await setRedrivePolicy(scene.dead, scene.queue, 0);
  const QueueUrl = await urlOf(scene.dead);
  while ((await idsIn(scene.dead)).length > 0) {
    await sqs("ReceiveMessage", { QueueUrl, MaxNumberOfMessages: 10 });
  }
}

const login = (user: string): string =>
  JSON.stringify({ user_id: user, ip: "203.0.113.7", device_id: `device of ${user}` });

/** The dates of a user's rows. */
async function rowsOf(user: string): Promise<string[]> {
  const rows = await owner`
    select create_date::text as date from public.user_logins where user_id = ${user} order by 1`;
  return rows.map(({ date }) => String(date));
}

const dateOf = (milliseconds: number): string => new Date(milliseconds).toISOString().slice(0, 10);

const replay = (...ids: string[]) =>
  veil(["quarantine", "replay", "--json", ...ids], {
    env: { ...keys, DATABASE_URL: database.url("operator") },
  });

/** Rows of these users are refused until the constraint goes: a rule that is mended later. */
async function refuse(name: string, user: string): Promise<() => Promise<unknown>> {
  await owner.unsafe(
    `alter table public.user_logins add constraint ${name} check (user_id <> '${user}')`,
  );
  return () => owner.unsafe(`alter table public.user_logins drop constraint ${name}`);
}

test.concurrent("messages whose deletes are lost are stored once, and die with their ids", async () => {
  const scene = await stage();
  const ids = [1, 2, 3, 4].map((n) => scene.send(login(`dead-${n}`)));
  ids.push(scene.send('{"user_id":'));
  const first = await storeUntilDead(scene);
  expect(first).toMatchObject({ received: 5, loaded: 4, duplicates: 0, quarantined: 1 });
  expect((await idsIn(scene.dead)).sort()).toEqual(ids.sort());

  // Driven back under their own ids: every one is known.
  await moveBack(scene);
  expect((await idsIn(scene.queue)).sort()).toEqual(ids);
  expect(await etl(scene)).toMatchObject({
    received: 5,
    loaded: 0,
    duplicates: 5,
    quarantined: 0,
    acknowledged: 5,
    newOriginals: 0,
  });
  for (const n of [1, 2, 3, 4]) expect(await rowsOf(`dead-${n}`)).toHaveLength(1);
  expect(await remaining(scene.queue)).toBe(0);
});

test.concurrent("veil on a standard queue's dead-letter queue stores what is missing there, and nothing twice", async () => {
  const scene = await stage();
  const known = scene.send(login("drained-known"));
  await storeUntilDead(scene);
  (await useSqs()).sendMessage(scene.dead, login("drained-new"));
  expect(await idsIn(scene.dead)).toContain(known);
  expect(await etl(scene, { QUEUE_URL: await urlOf(scene.dead) })).toMatchObject({
    received: 2,
    loaded: 1,
    duplicates: 1,
    acknowledged: 2,
  });
  expect(await rowsOf("drained-known")).toHaveLength(1);
  expect(await rowsOf("drained-new")).toHaveLength(1);
});

test.concurrent("a redrive under new ids is new messages: each becomes a second row, which only the producer can know", async () => {
  const scene = await stage();
  const body = login("redriven-new");
  const id = scene.send(body);
  await storeUntilDead(scene);
  // What StartMessageMoveTask does on AWS.
  expect(scene.send(body)).not.toBe(id);
  expect(await etl(scene)).toMatchObject({ received: 1, loaded: 1, duplicates: 0 });
  expect(await rowsOf("redriven-new")).toHaveLength(2);
});

test.concurrent("a quarantined message that is driven back under its id is one row after its replay, of its own date", async () => {
  const sentAt = Date.now() - 3 * DAY;
  let id = "";
  const body = login("replayed-same");
  const scene = await stage({ rewrite: (other) => (other === id ? { sentAt, body } : null) });
  const mend = await refuse("refuses_same", "replayed-same");
  id = scene.send(body);
  // A neighbour, so that it is the row that is refused and not every row.
  scene.send(login("neighbour-same"));
  expect(await storeUntilDead(scene)).toMatchObject({ loaded: 1, quarantined: 1 });
  await mend();

  await moveBack(scene);
  expect(await etl(scene)).toMatchObject({ received: 2, loaded: 0, duplicates: 2, quarantined: 0 });
  expect(await rowsOf("replayed-same")).toEqual([]);

  expect((await replay(id)).code).toBe(0);
  expect(await rowsOf("replayed-same")).toEqual([dateOf(sentAt)]);
  expect(JSON.parse((await replay(id)).stdout)).toMatchObject([{ outcome: "not open" }]);
  expect(await rowsOf("replayed-same")).toEqual([dateOf(sentAt)]);
  expect(await rowsOf("neighbour-same")).toHaveLength(1);
});

test.concurrent("a message that is replayed before it is driven back under its id is one row, too", async () => {
  const scene = await stage();
  const mend = await refuse("refuses_early", "replayed-early");
  const id = scene.send(login("replayed-early"));
  scene.send(login("neighbour-early"));
  await storeUntilDead(scene);
  await mend();
  expect((await replay(id)).code).toBe(0);
  await moveBack(scene);
  expect(await etl(scene)).toMatchObject({ received: 2, loaded: 0, duplicates: 2 });
  expect(await rowsOf("replayed-early")).toHaveLength(1);
});

test.concurrent("a quarantined message that is driven back under a new id is a row of its own, beside its entry's", async () => {
  const scene = await stage();
  const mend = await refuse("refuses_new", "replayed-new");
  const body = login("replayed-new");
  const id = scene.send(body);
  scene.send(login("neighbour-new"));
  await storeUntilDead(scene);
  await mend();
  scene.send(body);
  expect(await etl(scene)).toMatchObject({ received: 1, loaded: 1 });
  expect(await rowsOf("replayed-new")).toHaveLength(1);
  // The entry knows nothing of it: whoever drives back discards it instead of replaying it.
  expect((await replay(id)).code).toBe(0);
  expect(await rowsOf("replayed-new")).toHaveLength(2);
});

test.concurrent("a message that dies in a FIFO queue and is loaded from its dead-letter queue on a later day is a second row", async () => {
  const sentAt = Date.now() - 3 * DAY;
  let movedAt = sentAt;
  const bodies = new Map<string, string>();
  const scene = await stage({
    rewrite: (id) => ({ sentAt: movedAt, body: bodies.get(id) ?? "" }),
  });
  for (const body of [login("reset-row"), "reset to be quarantined"]) {
    bodies.set(scene.send(body), body);
  }
  expect(await storeUntilDead(scene)).toMatchObject({ loaded: 1, quarantined: 1 });
  const drain = async () => etl(scene, { QUEUE_URL: await urlOf(scene.dead) });
  // The same day, another time: known. The ledger knows a message by its day and its id.
  movedAt = sentAt - (sentAt % DAY) + 1;
  scene.losing = true;
  expect(await drain()).toMatchObject({ received: 2, loaded: 0, duplicates: 2 });
  await comeBack(scene.dead);
  scene.losing = false;
  movedAt = sentAt + DAY;
  expect(await drain()).toMatchObject({ received: 2, loaded: 1, duplicates: 1, quarantined: 0 });
  expect(await rowsOf("reset-row")).toEqual([dateOf(sentAt), dateOf(sentAt + DAY)]);
});
