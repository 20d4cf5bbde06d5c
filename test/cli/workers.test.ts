// `veil etl --workers`: several processes that are one run to whoever started it, whatever becomes of some
// of them.
import { afterEach, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import type postgres from "postgres";
import { remaining, totalsOf, until } from "../line/stored.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { endsWithUs } from "../support/ends-with-us.ts";
import { makeKeys, type TestKeys } from "../support/keys.ts";
import { createQueue, useSqs } from "../support/servers.ts";
import { startVeil, veil } from "../support/veil.ts";
import { atTerminal } from "./pseudo-terminal.ts";

type Scene = {
  readonly queue: Awaited<ReturnType<typeof createQueue>>;
  readonly database: TestDatabase;
  readonly keys: TestKeys;
  readonly sql: postgres.Sql;
  readonly env: Readonly<Record<string, string>>;
  readonly send: (count: number) => void;
};

const scenes: Scene[] = [];
const pids: number[] = [];
afterEach(async () => {
  for (const pid of pids.splice(0)) if (isRunning(pid)) process.kill(pid, "SIGKILL");
  for (const { database } of scenes.splice(0)) await database.drop();
});

async function createScene(visibilitySeconds = 60): Promise<Scene> {
  const [database, keys, queue] = await Promise.all([
    createDatabase(),
    makeKeys(),
    createQueue({ VisibilityTimeout: String(visibilitySeconds) }),
  ]);
  let sent = 0;
  const scene: Scene = {
    ...{ queue, database, keys, sql: database.sql(database.ownerUrl) },
    env: {
      ...queue.env,
      DATABASE_URL: database.url("etl"),
      VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
      VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
    },
    send: (count) => {
      for (let i = 0; i < count; i++) {
        const n = sent++;
        queue.send(
          JSON.stringify({ user_id: `u${n}`, ip: `192.0.2.${n % 200}`, device_id: `d${n}` }),
        );
      }
    },
  };
  scenes.push(scene);
  return scene;
}

/** How many rows there are for how many users: in these tests each message has a user of its own. */
async function stored({ sql }: Scene): Promise<readonly [rows: number, users: number]> {
  const [row] = await sql`
    select count(*)::integer as rows, count(distinct user_id)::integer as users from user_logins`;
  return [row!.rows, row!.users];
}

/** Messages that were handed to nobody yet. */
async function neverReceived({ queue }: Scene): Promise<number> {
  const { ready } = (await useSqs()).inspectQueue(queue.name)!.messages;
  return ready.filter((message) => message.approximateReceiveCount === 0).length;
}

function children(pid: number): number[] {
  if (!existsSync(`/proc/${pid}/task`)) return [];
  const lists = readdirSync(`/proc/${pid}/task`).map((task) => {
    try {
      return readFileSync(`/proc/${pid}/task/${task}/children`, "utf8");
    } catch {
      return "";
    }
  });
  return lists.flatMap((list) => list.split(" ").filter(Boolean).map(Number));
}

const isRunning = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
};

function start(args: readonly string[], scene: Scene) {
  const child = startVeil(["etl", "--json", ...args], { env: scene.env });
  pids.push(child.pid);
  const ended = Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]).then(([stdout, stderr, code]) => ({ stdout, stderr, code }));
  return { pid: child.pid, ended, kill: (signal: NodeJS.Signals) => child.kill(signal) };
}

/** What was said, but for a database that took long: on a busy machine that is no finding. */
const calm = (stderr: string): string =>
  stderr.replace(/^.*(; waiting for it, nothing is lost|stores again after \d+ s)\n/gm, "");

const sumOf = (stdout: string) => {
  expect(stdout).toMatch(/^\{[^\n]*\}\n$/);
  const sum = JSON.parse(stdout) as Record<string, number>;
  expect(sum.loaded! + sum.duplicates! + sum.quarantined!).toBe(sum.received!);
  return sum;
};

/** Loads wait while this holds the ledger. */
async function lockLedger(scene: Scene): Promise<() => Promise<void>> {
  const locked = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const sql = scene.database.sql(scene.database.ownerUrl);
  const ended = sql.begin(async (transaction) => {
    await transaction`lock table etl.ledger in access exclusive mode`;
    locked.resolve();
    await release.promise;
  });
  await locked.promise;
  return async () => {
    release.resolve();
    await ended;
  };
}

test("three workers store every message once, and one summary adds them up", async () => {
  const scene = await createScene();
  scene.send(2000);
  for (let i = 0; i < 5; i++) scene.queue.send("not JSON");
  const run = await veil(["etl", "--json", "--workers", "3"], { env: scene.env });
  expect({ code: run.code, stderr: calm(run.stderr) }).toEqual({ code: 0, stderr: "" });
  expect(sumOf(run.stdout)).toMatchObject({
    ...{ received: 2005, loaded: 2000, duplicates: 0, quarantined: 5, acknowledged: 2005 },
    ...{ newOriginals: 2200, handedBack: 0, inFlight: 0, workers: 3, replaced: 0 },
  });
  expect(await stored(scene)).toEqual([2000, 2000]);
  expect(await totalsOf(scene.sql)).toMatchObject({ originals: 2200, quarantined: 5 });
  expect(await remaining(scene.queue.name)).toBe(0);
  scene.queue.send("[]");
  const text = await veil(["etl", "--workers", "2"], { env: scene.env });
  expect({ code: text.code, stderr: calm(text.stderr) }).toEqual({ code: 0, stderr: "" });
  expect(text.stdout).toMatch(/^done in [\d.]+ s by 2 workers\n {2}received +1 /);
  expect(text.stdout).toMatch(/ 1 × [^\n]+\n/);
});

test("one worker is this process itself, and is the default", async () => {
  for (const args of [[], ["--workers", "1"]]) {
    const scene = await createScene();
    scene.send(1);
    const run = start([...args, "--follow"], scene);
    await until(async () => (await remaining(scene.queue.name)) === 0);
    expect(children(run.pid)).toEqual([]);
    run.kill("SIGTERM");
    expect(sumOf((await run.ended).stdout)).toMatchObject({ received: 1, workers: 1, replaced: 0 });
  }
});

test("--max-messages holds over all workers, and what is left was never received", async () => {
  const scene = await createScene();
  scene.send(1000);
  let left = 1000;
  for (const [limit, workers] of [
    [1, 4],
    [7, 3],
    [437, 3],
    [100, 2],
  ] as const) {
    const args = ["etl", "--json", "--max-messages", String(limit), "--workers", String(workers)];
    const run = await veil(args, { env: scene.env });
    expect({ code: run.code, stderr: calm(run.stderr) }).toEqual({ code: 0, stderr: "" });
    left -= limit;
    expect(sumOf(run.stdout)).toMatchObject({ received: limit, acknowledged: limit, workers });
    expect(await neverReceived(scene)).toBe(left);
    expect(await remaining(scene.queue.name)).toBe(left);
  }
  const args = ["etl", "--json", "--max-messages", "5000", "--workers", "2"];
  expect(sumOf((await veil(args, { env: scene.env })).stdout).received).toBe(left);
  expect(await stored(scene)).toEqual([1000, 1000]);
});

test("--follow ends with the last message that --max-messages allows", async () => {
  const scene = await createScene();
  const run = start(["--follow", "--workers", "3", "--max-messages", "300"], scene);
  await until(() => children(run.pid).length === 3);
  scene.send(120);
  await until(async () => (await stored(scene))[0] === 120);
  scene.send(250);
  const { code, stdout, stderr } = await run.ended;
  expect({ code, stderr: calm(stderr) }).toEqual({ code: 0, stderr: "" });
  expect(sumOf(stdout)).toMatchObject({ received: 300, acknowledged: 300 });
  expect(await neverReceived(scene)).toBe(70);
});

test("workers that are killed are replaced, and nothing is lost or twice", async () => {
  const scene = await createScene(2);
  const run = start(["--follow", "--workers", "3"], scene);
  await until(() => children(run.pid).length === 3);
  const kills = 4;
  const killed = new Set<number>();
  for (let i = 0; i < kills; i++) {
    scene.send(700);
    await until(async () => (await stored(scene))[0] > i * 700);
    await until(() => children(run.pid).filter((pid) => !killed.has(pid)).length === 3);
    const victim = children(run.pid).find((pid) => !killed.has(pid))!;
    killed.add(victim);
    process.kill(victim, "SIGKILL");
  }
  await until(async () => (await remaining(scene.queue.name)) === 0);
  await until(() => children(run.pid).filter((pid) => !killed.has(pid)).length === 3);
  run.kill("SIGTERM");
  const { code, stdout, stderr } = await run.ended;
  expect(code).toBe(0);
  const sum = sumOf(stdout);
  expect(sum).toMatchObject({ workers: 3, replaced: kills });
  expect(await stored(scene)).toEqual([700 * kills, 700 * kills]);
  // A delivery is told of before it is deleted: whatever is gone from the queue stands in the summary.
  expect(sum.received).toBeGreaterThanOrEqual(700 * kills);
  const lines = calm(stderr).trimEnd().split("\n");
  expect(lines.length).toBe(kills);
  for (const line of lines) {
    expect(line).toMatch(/^warning: worker \d \(process \d+\) was killed by SIGKILL; another one /);
  }
});

for (const victims of [1, 2]) {
  test(`what a killed worker may have received is not dealt out again (${victims} of two)`, async () => {
    const scene = await createScene(300);
    const run = start(["--follow", "--workers", "2", "--max-messages", "1200"], scene);
    await until(() => children(run.pid).length === 2);
    const release = await lockLedger(scene);
    scene.send(1500);
    // All of it is received, and nothing of it can be stored.
    await until(async () => (await neverReceived(scene)) === 300);
    const killed = children(run.pid).slice(0, victims);
    for (const pid of killed) process.kill(pid, "SIGKILL");
    // Their last loads may still commit.
    await until(
      () =>
        children(run.pid).filter((pid) => !killed.includes(pid)).length === 2 ||
        !isRunning(run.pid),
    );
    await release();
    const { code, stdout, stderr } = await run.ended;
    expect(code).toBe(0);
    const warnings = calm(stderr).trimEnd().split("\n");
    expect(warnings).toHaveLength(victims);
    const missing = warnings
      .map((line) => Number(/up to (\d+) messages of --max-messages/.exec(line)?.[1] ?? 0))
      .reduce((sum, one) => sum + one, 0);
    const sum = sumOf(stdout);
    expect(sum.received! + missing).toBe(1200);
    // One alone may have been too slow to be dealt anything.
    if (victims === 2)
      expect({ missing, replaced: sum.replaced }).toEqual({ missing: 1200, replaced: 2 });
    else expect(sum.replaced).toBe(1);
    expect(await neverReceived(scene)).toBe(300);
  });
}

test("a worker that dies again and again ends the run, which says what to do", async () => {
  const scene = await createScene();
  const run = start(["--follow", "--workers", "2"], scene);
  let isOver = false;
  run.ended.then(() => {
    isOver = true;
  });
  await until(() => {
    for (const pid of children(run.pid)) if (isRunning(pid)) process.kill(pid, "SIGKILL");
    return isOver;
  });
  const { code, stdout, stderr } = await run.ended;
  expect(code).toBe(1);
  sumOf(stdout);
  expect(stderr.match(/^error: /gm)).toEqual(["error: "]);
  expect(stderr).toMatch(
    /^error: worker \d died 6 times in a row; the last one was killed by SIGKILL\nhint: [^\n]*memory[^\n]*\n$/m,
  );
});

test("when the parent is killed, the workers put away what they hold and end", async () => {
  const scene = await createScene();
  const run = start(["--follow", "--workers", "2"], scene);
  scene.send(1500);
  await until(async () => (await stored(scene))[0] > 0);
  const workers = children(run.pid);
  expect(workers.length).toBe(2);
  scene.send(1500);
  run.kill("SIGKILL");
  await run.ended;
  await until(() => !workers.some(isRunning));
  // Nothing is with anybody: it was stored and deleted, handed back, or never received.
  expect((await useSqs()).inspectQueue(scene.queue.name)!.messages.inflight.length).toBe(0);
  const [rows] = await stored(scene);
  expect(rows + (await remaining(scene.queue.name))).toBe(3000);
  const rest = await veil(["etl", "--json"], { env: scene.env });
  expect(sumOf(rest.stdout).duplicates).toBe(0);
  expect(await stored(scene)).toEqual([3000, 3000]);
});

test.each(["SIGTERM", "SIGINT"] as const)(
  "%s ends all workers, with one summary",
  async (signal) => {
    const scene = await createScene();
    scene.send(3000);
    const run = start(["--follow", "--workers", "3"], scene);
    await until(async () => (await stored(scene))[0] > 0);
    const workers = children(run.pid);
    expect(workers.length).toBe(3);
    run.kill(signal);
    const { code, stdout, stderr } = await run.ended;
    expect({ code, stderr: calm(stderr) }).toEqual({ code: 0, stderr: "" });
    const sum = sumOf(stdout);
    expect(sum.acknowledged).toBe(sum.received!);
    expect(await stored(scene)).toEqual([sum.received!, sum.received!]);
    expect(await remaining(scene.queue.name)).toBe(3000 - sum.received!);
    expect(workers.filter(isRunning)).toEqual([]);
  },
);

test("Ctrl-C at a terminal, which reaches the workers too, is one stop; one bar shows them all", async () => {
  const scene = await createScene();
  scene.send(2000);
  const args = ["etl", "--follow", "--workers", "2"];
  const { code, screen } = await atTerminal(args, scene.env, [{ when: " of 2000 ", keys: "\x03" }]);
  expect(code).toBe(0);
  expect(screen.match(/stopped after [\d.]+ s by 2 workers\r\n {2}received/g)?.length).toBe(1);
  expect(calm(screen.replaceAll("\r", ""))).not.toContain("warning");
  const bars = screen.match(/(\d+) of 2000/g)!.map((bar) => Number.parseInt(bar, 10));
  expect(bars).toEqual([...bars].sort((a, b) => a - b));
  const received = Number(/received +(\d+)/.exec(screen)?.[1]);
  expect(await stored(scene)).toEqual([received, received]);
  expect(await remaining(scene.queue.name)).toBe(2000 - received);
});

test("a second signal ends all of them at once", async () => {
  const scene = await createScene(300);
  // No lock: a load does not wait for one as long as a busy machine may need.
  await scene.sql.unsafe(`
    create function public.stand_still() returns trigger language plpgsql
      as $$ begin perform pg_catalog.pg_sleep(3600); return null; end $$;
    create trigger stand_still after insert on public.user_logins
      execute function public.stand_still()`);
  const run = start(["--follow", "--workers", "2", "--grace", "100000"], scene);
  await until(() => children(run.pid).length === 2);
  scene.send(1000);
  await until(async () => (await neverReceived(scene)) === 0);
  const workers = children(run.pid);
  run.kill("SIGTERM");
  await Bun.sleep(300);
  // One of them may have been too slow to receive anything: it has ended.
  expect(workers.some(isRunning)).toBe(true);
  run.kill("SIGTERM");
  const { code, stdout, stderr } = await run.ended;
  expect({ code, stdout, stderr: calm(stderr) }).toEqual({ code: 130, stdout: "", stderr: "" });
  await until(() => !workers.some(isRunning));
  // Whoever ends in order hands back what he holds: these had no time for it.
  const { inflight } = (await useSqs()).inspectQueue(scene.queue.name)!.messages;
  expect(inflight.length).toBe(1000);
});

test("a failure that all workers meet is told once", async () => {
  const scene = await createScene();
  const run = start(["--follow", "--workers", "3"], scene);
  await until(() => children(run.pid).length === 3);
  await scene.sql`revoke execute on all functions in schema etl from veil_etl`;
  scene.send(3000);
  const { code, stdout, stderr } = await run.ended;
  expect(code).toBe(1);
  expect(sumOf(stdout)).toMatchObject({ received: 0, acknowledged: 0, workers: 3, replaced: 0 });
  expect(stderr.match(/^error: /gm)).toEqual(["error: "]);
  expect(stderr).toMatch(/^error: [^\n]*permission denied[^\n]*\n(hint: [^\n]*\n)?$/i);
  expect(await remaining(scene.queue.name)).toBe(3000);
});

test("no worker has a secret among its arguments, and files are read once", async () => {
  const scene = await createScene();
  const { DATABASE_URL, VEIL_TOKEN_KEY, ...others } = scene.env as Record<string, string>;
  const url = new URL(DATABASE_URL!);
  scene.send(1);
  // A file that can be read once, as a shell's <(…) is.
  const cli = new URL("../../src/cli.ts", import.meta.url).pathname;
  const etl = `"${process.execPath}" --no-env-file "${cli}" etl --follow --workers 2 --json`;
  const child = Bun.spawn(
    endsWithUs(["bash", "-c", `DATABASE_URL_FILE=<(printf %s "$URL") exec ${etl}`]),
    {
      env: {
        ...others,
        VEIL_TOKEN_KEY: VEIL_TOKEN_KEY!,
        PATH: process.env.PATH ?? "",
        URL: url.href,
      },
      ...{ stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    },
  );
  pids.push(child.pid);
  await until(async () => (await stored(scene))[0] === 1);
  const commands = [child.pid, ...children(child.pid)].map((pid) =>
    readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").join(" "),
  );
  expect(commands.filter((command) => / worker\s*$/.test(command)).length).toBe(2);
  for (const command of commands) {
    for (const secret of [VEIL_TOKEN_KEY!.slice(2), `${url.username}:`, others.VEIL_RECIPIENTS!]) {
      expect(command).not.toContain(secret);
    }
  }
  child.kill("SIGTERM");
  expect(calm(await new Response(child.stderr).text())).toBe("");
  expect(sumOf(await new Response(child.stdout).text()).received).toBe(1);
});

test("a worker by hand, and a number that is none, are wrong usage", async () => {
  const byHand = await veil(["worker"]);
  expect({ code: byHand.code, stdout: byHand.stdout }).toEqual({ code: 2, stdout: "" });
  expect(byHand.stderr).toMatch(/^error: a worker is started by its parent[^\n]*\nhint: [^\n]+\n$/);
  for (const count of ["0", "17", "1.5", "-1", "all", ""]) {
    const run = await veil(["etl", "--workers", count]);
    expect({ count, code: run.code, stdout: run.stdout }).toEqual({ count, code: 2, stdout: "" });
    expect(run.stderr).toMatch(/^error: .*expected a whole number from 1 to 16, or auto\n/);
  }
  const help = (await veil(["etl", "--help"])).stdout;
  expect(help).toContain("--workers <n>");
  expect((await veil(["--help"])).stdout).not.toMatch(/^ +worker\b/m);
});

test("auto is a number of workers that this machine can do with", async () => {
  const scene = await createScene();
  scene.send(10);
  const run = await veil(["etl", "--json", "--workers", "auto"], { env: scene.env });
  const { received, workers } = sumOf(run.stdout);
  expect({ code: run.code, received }).toEqual({ code: 0, received: 10 });
  const cores = navigator.hardwareConcurrency;
  expect(workers).toBe(Math.min(8, Math.max(1, cores - 1)));
});
