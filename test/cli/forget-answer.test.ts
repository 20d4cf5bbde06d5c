// What `veil forget` says, and leaves behind, where its answer is late, lost, or not waited for.
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type postgres from "postgres";
import { until } from "../line/stored.ts";
import { startVeil } from "../support/veil.ts";
import { createScene, type Scene } from "./scene.ts";

const HOW_TO_KNOW = "veil audit list --action erasure.forget";

let scene: Scene;
let owner: postgres.Sql;
let folder: string;
let receipt: string;
let user: string;
beforeAll(async () => {
  scene = await createScene();
  owner = scene.database.sql(scene.database.ownerUrl);
  folder = mkdtempSync(join(tmpdir(), "veil-forget-"));
});
beforeEach(async () => {
  [user, receipt] = [randomUUID(), join(folder, randomUUID())];
  const token = `ip1_${user
    .replaceAll("-", "")
    .replace(/[0189]/g, "x")
    .slice(0, 25)}a`;
  await owner`insert into public.user_logins (user_id, masked_ip) values (${user}, ${token})`;
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await scene?.database.drop();
});

/** Said so far: what a signal waits for. */
function forget(url = scene.database.url("eraser")) {
  const args = ["forget", "--user", user, "--reason", "request", "--receipt", receipt];
  const child = startVeil(args, { env: { DATABASE_URL: url } });
  const run = { child, stderr: "", end: Promise.resolve({ code: 0, stdout: "", stderr: "" }) };
  const reading = (async () => {
    for await (const bytes of child.stderr) run.stderr += new TextDecoder().decode(bytes);
  })();
  run.end = (async () => {
    const [stdout, code] = await Promise.all([
      new Response(child.stdout).text(),
      child.exited,
      reading,
    ]);
    return { code, stdout, stderr: run.stderr };
  })();
  return run;
}

async function done(): Promise<boolean> {
  const [row] = await owner`
    select count(*)::int as n from public.user_logins
    where user_id = ${user} and starts_with(masked_ip, 'ip0_')`;
  return Number(row?.n) === 1;
}

const written = () => JSON.parse(readFileSync(receipt, "utf8"));

/** Passes all on but the answer to an erasure: it is committed, and the connection ends. */
async function losesTheAnswer(): Promise<{ readonly server: Server; readonly url: string }> {
  const target = new URL(scene.database.url("eraser"));
  const [port, hostname] = [Number(target.port), target.hostname];
  const server = createServer((client) => {
    const upstream = connect(port, hostname);
    let isErasing = false;
    client.on("data", (bytes) => {
      isErasing ||= bytes.includes("forget_user");
      upstream.write(bytes);
    });
    upstream.on("data", (bytes) => {
      if (isErasing && bytes.includes("SELECT 1\0")) client.destroy();
      else client.write(bytes);
    });
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  target.port = String((server.address() as { port: number }).port);
  target.hostname = "127.0.0.1";
  return { server, url: target.href };
}

/** Keeps the erasure waiting until `work` is over, which begins when it waits. */
async function whileItWaits(work: () => Promise<void>): Promise<void> {
  const blocker = scene.database.sql(scene.database.ownerUrl);
  await blocker.unsafe("begin; lock table pii_vault.erasure_gate in row share mode");
  await until(async () => {
    const [row] = await owner`
      select count(*)::int as n from pg_locks l join pg_database d on d.oid = l.database
      where d.datname = current_database() and not l.granted
        and l.relation = 'pii_vault.erasure_gate'::regclass`;
    return Number(row?.n) > 0;
  });
  await work();
  await blocker.unsafe("commit");
  await blocker.end();
}

test("a lost answer is no refusal: it may have been done, and the receipt's file says so, too", async () => {
  const { server, url } = await losesTheAnswer();
  const { stdout, stderr, code } = await forget(url).end;
  server.close();
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toMatch(
    /^error: the erasure was sent, but no answer came .*; it may have been done\n/,
  );
  expect(stderr).toContain(HOW_TO_KNOW);
  expect(await done()).toBe(true);
  expect(written()).toMatchObject({ erasure: null, note: expect.stringContaining(HOW_TO_KNOW) });
});

test("the first Ctrl-C waits for what was sent, which is then done, reported and receipted", async () => {
  const run = forget();
  await whileItWaits(async () => {
    expect(written()).toMatchObject({ erasure: null });
    run.child.kill("SIGINT");
    await until(() => run.stderr.includes("Ctrl-C again does not wait"));
  });
  const { stdout, stderr, code } = await run.end;
  expect(code).toBe(0);
  expect(stderr).toContain(HOW_TO_KNOW);
  expect(stdout).toContain("erased");
  expect(await done()).toBe(true);
  expect(written()).toMatchObject({
    kind: "user",
    erased: { ip: 1 },
    audit: { position: expect.any(Number) },
  });
});

test("the second Ctrl-C ends it at once, and the receipt's file says that nobody waited", async () => {
  const run = forget();
  await whileItWaits(async () => {
    run.child.kill("SIGINT");
    await until(() => run.stderr.includes("Ctrl-C again does not wait"));
    run.child.kill("SIGINT");
    expect((await run.end).code).toBe(130);
  });
  expect(run.stderr).toContain(HOW_TO_KNOW);
  expect(written()).toMatchObject({ erasure: null, note: expect.stringContaining(HOW_TO_KNOW) });
});

test("what was refused leaves no file, and a Ctrl-C before anything was sent says nothing", async () => {
  await owner`insert into pii_vault.holds (user_id, reason) values (${user}, 'case')`;
  const refused = await forget().end;
  expect(refused.code).toBe(1);
  expect(refused.stderr).toStartWith("error: 1 of 1 token is under a legal hold");
  expect(existsSync(receipt)).toBe(false);

  // A server that accepts and says nothing.
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as { port: number };
  const reached = new Promise<void>((resolve) => silent.once("connection", () => resolve()));
  const run = forget(`postgres://nobody:x@127.0.0.1:${port}/none?sslmode=disable`);
  await reached;
  run.child.kill("SIGINT");
  expect(await run.end).toMatchObject({ code: 130, stdout: "", stderr: "" });
  expect(existsSync(receipt)).toBe(false);
  expect(await done()).toBe(false);
  silent.close();
});
