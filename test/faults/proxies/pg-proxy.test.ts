// The database's proxy does what it says: each fault, seen from a driver's side and from the server's.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { connect } from "node:net";
import postgres from "postgres";
import { usePostgres } from "../../support/servers.ts";
import { type PgPoint, type PgProxy, startPgProxy } from "./pg-proxy.ts";

/** Longer than what the proxy takes for a mere look at the key. */
const LONG = "x".repeat(1000);

let admin: postgres.Sql;
let proxy: PgProxy;
let sql: postgres.Sql;
let url: string;
const seen: PgPoint[] = [];
const before: Partial<Record<PgPoint, () => void>> = {};

beforeAll(async () => {
  const server = await usePostgres();
  admin = postgres(server.url, { max: 1, onnotice: () => {} });
  // What the proxy knows a load by, without veil's schema: a name, and an answer that names its batch.
  await admin.unsafe(`
    drop schema if exists etl cascade;
    create schema etl;
    create table etl.stored (batch text);
    create function etl.load(batch text, filling text) returns text language plpgsql as $$
      begin
        insert into etl.stored values (batch);
        return batch;
      end $$`);
  proxy = await startPgProxy({
    port: Number(new URL(server.url).port),
    onPoint: (point) => {
      seen.push(point);
      before[point]?.();
    },
  });
  url = proxy.url(server.url);
});
beforeEach(() => {
  sql = postgres(url, {
    max: 1,
    prepare: false,
    fetch_types: false,
    onnotice: () => {},
    connect_timeout: 3,
    backoff: false,
  });
});
afterEach(async () => {
  await proxy.set({ kind: "pass" });
  proxy.disarm();
  for (const point of Object.keys(before)) delete before[point as PgPoint];
  await sql.end({ timeout: 1 });
  seen.length = 0;
});
afterAll(async () => {
  await proxy.stop();
  await admin.unsafe("drop schema etl cascade");
  await admin.end();
});

let batches = 0;
const name = () => `batch-${++batches}`;

const load = async (batch: string, filling = LONG): Promise<string> => {
  const [row] = await sql.unsafe("select etl.load($1::text, $2::text) as batch", [batch, filling]);
  return row?.batch;
};
const loadInTransaction = (batch: string): Promise<string> =>
  sql.begin("isolation level read committed", async (client) => {
    const [row] = await client.unsafe("select etl.load($1::text, $2::text) as batch", [
      batch,
      LONG,
    ]);
    return row?.batch;
  }) as Promise<string>;

/** The driver's error code; `stored` when there was none. */
const outcome = async (work: Promise<unknown>): Promise<string> => {
  try {
    await work;
    return "stored";
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
};
const isStored = async (batch: string): Promise<boolean> => {
  const rows = await admin.unsafe("select from etl.stored where batch = $1", [batch]);
  return rows.length > 0;
};
/** The server may still be at work for a client that has gone. */
const becomesStored = async (batch: string): Promise<boolean> => {
  for (let i = 0; i < 200; i++) {
    if (await isStored(batch)) return true;
    await Bun.sleep(10);
  }
  return false;
};

test("a load passes its points in order, by itself and in a transaction", async () => {
  const points: PgPoint[] = [
    ...(["load-sent", "load-half-sent", "load-forwarded"] as const),
    ...(["load-answered", "load-half-answered", "load-delivered"] as const),
  ];
  const alone = name();
  expect(await load(alone)).toBe(alone);
  expect(seen).toEqual(["connect", ...points]);
  seen.length = 0;
  const wrapped = name();
  expect(await loadInTransaction(wrapped)).toBe(wrapped);
  expect(seen).toEqual([...points, "commit-sent", "commit-answered"]);
});

test("a load without messages is a probe, and other statements are nothing", async () => {
  await load("probe", "");
  await sql.unsafe("select 1");
  await sql.unsafe("select $1::integer", [1]);
  expect(seen).toEqual(["connect", "probed"]);
});

test("a simple query is a load too", async () => {
  const batch = name();
  await sql.unsafe(`select etl.load('${batch}', '${LONG}')`).simple();
  expect(seen.filter((point) => point.startsWith("load-"))).toHaveLength(6);
  expect(await isStored(batch)).toBe(true);
});

test("a point comes before the bytes that lead away from it", async () => {
  let sent: Promise<boolean> = Promise.resolve(true);
  let answered = false;
  const batch = name();
  const loading = proxy.pauseNext("load-half-sent").then(async (paused) => {
    sent = isStored(batch);
    await sent;
    paused.resume();
    const atAnswer = await proxy.pauseNext("load-answered");
    answered = await isStored(batch);
    atAnswer.resume();
  });
  await load(batch);
  await loading;
  expect(await sent).toBe(false);
  expect(answered).toBe(true);
});

for (const [point, stored] of [
  ["load-sent", false],
  ["load-half-sent", false],
  ["load-forwarded", true],
  ["load-answered", true],
  ["load-half-answered", true],
] as const) {
  test(`a cut at ${point} ${stored ? "loses the answer of what is stored" : "stores nothing"}`, async () => {
    const batch = name();
    proxy.cutNext(point);
    expect(await outcome(load(batch))).toMatch(/^(CONNECTION_CLOSED|ECONNRESET)$/);
    expect(stored ? await becomesStored(batch) : await isStored(batch)).toBe(stored);
    // One cut only, and the driver finds its way back.
    expect(await outcome(load(name()))).toBe("stored");
  });
}

test("every load is kept at a point until they are let go, and none after that", async () => {
  const others = [1, 2].map(() => postgres(url, { max: 1, prepare: false, fetch_types: false }));
  const loadBy = (client: postgres.Sql, batch: string) =>
    outcome(client.unsafe("select etl.load($1::text, $2::text)", [batch, LONG]));
  try {
    for (const how of ["resume", "cut"] as const) {
      const all = proxy.pauseAll("load-sent");
      const before = proxy.counts["load-sent"];
      const batches = [name(), name()];
      const loading = others.map((client, i) => loadBy(client, batches[i]!));
      await all.reached;
      while (proxy.counts["load-sent"] < before + 2) await Bun.sleep(5);
      await Bun.sleep(50);
      expect(proxy.armed()).toBe(true);
      expect(await Promise.all(batches.map(isStored))).toEqual([false, false]);
      all[how]();
      const outcomes = await Promise.all(loading);
      for (const one of outcomes) {
        expect(one).toMatch(how === "resume" ? /^stored$/ : /^(CONNECTION_CLOSED|ECONNRESET)$/);
      }
      const stored = how === "resume";
      expect(await Promise.all(batches.map(isStored))).toEqual([stored, stored]);
      expect(proxy.armed()).toBe(false);
      expect(await outcome(load(name()))).toBe("stored");
    }
  } finally {
    for (const client of others) await client.end({ timeout: 1 });
  }
});

test("a cut lasts as often as it is asked to, or until it is disarmed", async () => {
  proxy.cutNext("load-sent", 2);
  for (const wanted of [false, false, true]) {
    expect((await outcome(load(name()))) === "stored").toBe(wanted);
  }
  proxy.cutNext("load-sent", Number.POSITIVE_INFINITY);
  for (let i = 0; i < 3; i++) expect(await outcome(load(name()))).not.toBe("stored");
  proxy.disarm();
  expect(await outcome(load(name()))).toBe("stored");
});

for (const [point, stored] of [
  ["load-answered", false],
  ["commit-sent", false],
  ["commit-answered", true],
] as const) {
  test(`in a transaction, a cut at ${point} ${stored ? "comes too late" : "rolls it back"}`, async () => {
    const batch = name();
    proxy.cutNext(point);
    expect(await outcome(loadInTransaction(batch))).not.toBe("stored");
    expect(stored ? await becomesStored(batch) : await isStored(batch)).toBe(stored);
  });
}

test("a load is answered with a chosen error and not passed on", async () => {
  for (const wrapped of [false, true]) {
    const batch = name();
    proxy.answerNext({ to: "load", severity: "ERROR", sqlstate: "53100", message: "disk full" });
    expect(await outcome(wrapped ? loadInTransaction(batch) : load(batch))).toBe("53100");
    expect(await isStored(batch)).toBe(false);
    expect(await outcome(load(name()))).toBe("stored");
  }
});

test("a load is passed on, and answered with a chosen error afterwards", async () => {
  const batch = name();
  proxy.answerNext({
    ...{ to: "load", severity: "FATAL", sqlstate: "57P01", afterwards: true },
    message: "terminating connection due to administrator command",
  });
  // After FATAL nothing more comes, and this driver then tells of the closed connection only.
  expect(await outcome(load(batch))).toBe("CONNECTION_CLOSED");
  expect(await isStored(batch)).toBe(true);
  // postgres.js 3.4.9 keeps the error, and rejects with it the next query, whatever became of that.
  expect(await outcome(load(name()))).toBe("57P01");
  expect(await outcome(load(name()))).toBe("stored");
});

test("a commit that is answered with an error is rolled back, or done all the same", async () => {
  for (const afterwards of [false, true]) {
    const batch = name();
    proxy.answerNext({
      ...{ to: "commit", severity: "ERROR", sqlstate: "40001", afterwards },
      message: "could not serialize access",
    });
    expect(await outcome(loadInTransaction(batch))).toBe("40001");
    expect(await isStored(batch)).toBe(afterwards);
  }
  expect(await outcome(load(name()))).toBe("stored");
});

test("an answer lasts as often as it is asked to", async () => {
  const disk = { to: "load", severity: "ERROR", sqlstate: "25006", message: "read-only" } as const;
  proxy.answerNext(disk, 2);
  expect(await outcome(load(name()))).toBe("25006");
  expect(await outcome(load(name()))).toBe("25006");
  expect(await outcome(load(name()))).toBe("stored");
});

test("a connection is refused with a server's own words", async () => {
  proxy.answerNext({
    ...{ to: "connect", severity: "FATAL", sqlstate: "53300" },
    message: "sorry, too many clients already",
  });
  expect(await outcome(sql.unsafe("select 1"))).toBe("53300");
  expect(await outcome(sql.unsafe("select 1"))).toBe("stored");
});

test("a swapped answer is the one before, and the load's own is dropped", async () => {
  const [first, second, third] = [name(), name(), name()];
  await load(first);
  proxy.swapNext();
  expect(await load(second)).toBe(first);
  expect(await load(third)).toBe(third);
  expect(await isStored(second)).toBe(true);
  const never = name();
  proxy.swapNext("unran");
  expect(await load(never)).toBe(third);
  expect(await isStored(never)).toBe(false);
  expect(await outcome(load(name()))).toBe("stored");
});

test("refused means no listener, or one that closes at once; what is open stays open", async () => {
  const knock = () =>
    new Promise<string>((resolve) => {
      const socket = connect(proxy.port, "127.0.0.1");
      let connected = false;
      socket.on("connect", () => {
        connected = true;
        socket.write("hello");
      });
      socket.on("error", () => {});
      socket.on("close", () => resolve(connected ? "accepted and closed" : "refused"));
    });
  await sql.unsafe("select 1");
  await proxy.set({ kind: "refuse", how: "closed" });
  expect(await knock()).toBe("refused");
  expect(await outcome(sql.unsafe("select 1"))).toBe("stored");
  await proxy.set({ kind: "refuse", how: "accepted" });
  expect(await knock()).toBe("accepted and closed");
  const cut = outcome(sql.unsafe("select pg_sleep(10)"));
  await Bun.sleep(50);
  expect(proxy.dropAll()).toBe(1);
  expect(await cut).toMatch(/^(CONNECTION_CLOSED|ECONNRESET)$/);
  await proxy.set({ kind: "pass" });
  // postgres.js 3.4.9 never answers a query that is sent between a socket's error and its close.
  await Bun.sleep(50);
  expect(await outcome(sql.unsafe("select 1"))).toBe("stored");
});

test("held bytes wait, and arrive when the hold ends", async () => {
  await sql.unsafe("select 1");
  await proxy.set({ kind: "hold" });
  const batch = name();
  const loading = load(batch);
  await Bun.sleep(200);
  expect(await isStored(batch)).toBe(false);
  await proxy.set({ kind: "pass" });
  expect(await loading).toBe(batch);
});

test("a slow line carries everything, piece by piece", async () => {
  await proxy.set({ kind: "slow", milliseconds: 2, bytes: 64 });
  const batch = name();
  expect(await load(batch)).toBe(batch);
});

test("what a client had sent when it was killed is still done", async () => {
  const batch = name();
  const script = `
    import postgres from "postgres";
    const sql = postgres(process.env.URL, { max: 1, prepare: false, fetch_types: false });
    await sql.unsafe("select etl.load($1::text, $2::text)", ["${batch}", "${LONG}"]);
  `;
  const child = Bun.spawn([process.execPath, "-e", script], {
    cwd: import.meta.dir,
    env: { PATH: process.env.PATH ?? "", URL: url },
    stderr: "ignore",
  });
  before["load-sent"] = () => child.kill("SIGKILL");
  await child.exited;
  expect(child.signalCode).toBe("SIGKILL");
  expect(await becomesStored(batch)).toBe(true);
});
