// Rights that a queue takes away and gives back: credentials that expire and are renewed, a queue that is deleted
// in the middle, calls that are refused for good. What is held by then is stored all the same.
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { useSqs } from "../../support/servers.ts";
import { withGate } from "./trouble-gate.ts";
import { AWAY, eventually } from "./trouble-run.ts";
import { everyKind, LONG, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

const folder = mkdtempSync(join(tmpdir(), "veil-credentials-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let homes = 0;

/** Where credentials are looked for, with the variables that lead there; `write` changes the key. */
function credentials(kind: "file" | "process") {
  const place = join(folder, String(++homes));
  const write = (accessKeyId: string) => {
    const lines = [`aws_access_key_id = ${accessKeyId}`, "aws_secret_access_key = secret"];
    writeFileSync(`${place}.ini`, `[default]\n${lines.join("\n")}\n`);
    const said = { Version: 1, AccessKeyId: accessKeyId, SecretAccessKey: "secret" };
    writeFileSync(`${place}.json`, JSON.stringify(said));
  };
  writeFileSync(`${place}.sh`, `#!/bin/sh\ncat ${place}.json\n`);
  chmodSync(`${place}.sh`, 0o755);
  writeFileSync(`${place}.config`, `[default]\ncredential_process = ${place}.sh\n`);
  const env = {
    ...{ AWS_ACCESS_KEY_ID: "", AWS_SECRET_ACCESS_KEY: "" },
    AWS_SHARED_CREDENTIALS_FILE: kind === "file" ? `${place}.ini` : "/nonexistent",
    AWS_CONFIG_FILE: kind === "process" ? `${place}.config` : "/nonexistent",
  };
  return { env, write };
}

for (const kind of ["file", "process"] as const) {
  // DEFECT, fails today for a file: the SDK reads a file once in the life of a process.
  test.concurrent(`credentials of a ${kind} that expire are read again`, () =>
    withScene({}, (scene) =>
      withGate(scene.sqs.env.AWS_ENDPOINT_URL_SQS, "AKIAFIRST", async (gate) => {
        const { env, write } = credentials(kind);
        write("AKIAFIRST");
        const run = scene.start(["etl", "--follow", "--json"], { ...env, ...gate.env });
        scene.send(100);
        await scene.settled();
        gate.allow("AKIASECOND"); // and whoever gives them out is late
        scene.send(100);
        await run.says(AWAY);
        write("AKIASECOND");
        await scene.settled();
        run.signal("SIGTERM");
        const { code, summary } = await run.ended;
        expect(code).toBe(0);
        expect([...gate.seen]).toEqual(["AKIAFIRST", "AKIASECOND"]);
        expect(summary()).toMatchObject({ received: 200, acknowledged: 200 });
        expect(await scene.verdict()).toEqual(KEPT);
      }),
    ));
}

for (const how of ["--follow", "a drain"]) {
  if (!everyKind && how === "a drain") continue;
  const args = ["etl", "--json", ...(how === "--follow" ? [how] : [])];
  test.concurrent(`${how} whose queue is deleted stores what it holds, and ends with an error`, () =>
    withScene(LONG, async (scene) => {
      scene.send(5000);
      const loads = scene.pg.pauseAll("load-sent");
      const run = scene.start(args);
      await loads.reached;
      // By now more are held than the loads have taken.
      await eventually("1,800 are held", () => scene.shared.total() >= 1800);
      (await useSqs()).deleteQueue(scene.queueName);
      loads.resume();
      const { code, said, summary } = await run.ended;
      expect(code).toBe(1);
      expect(said.filter((line) => line.startsWith("error: "))).toEqual([
        expect.stringMatching(/^error: cannot (receive|delete) .*the queue does not exist at /),
      ]);
      const { received, loaded, duplicates, quarantined } = summary();
      expect(loaded + duplicates + quarantined).toBe(received);
      expect(await scene.stored()).toBe(received);
      // Nobody else can get them any more.
      expect(received).toBe(scene.shared.total());
    }));

  test.concurrent(`${how} that may receive no more stores and deletes what it holds, and ends with an error`, () =>
    withScene(LONG, async (scene) => {
      scene.send(5000);
      const loading = scene.pg.pauseNext("load-sent");
      const run = scene.start(args);
      const load = await loading;
      scene.sqs.failNext("access-denied", "receive", 1e9);
      load.resume();
      const { code, said, summary } = await run.ended;
      expect({ code, said }).toEqual({
        code: 1,
        said: [
          expect.stringMatching(/^error: cannot receive messages: .+ answered 403 \(AccessDenied/),
          expect.stringMatching(/^hint: check the queue's policy/),
        ],
      });
      const { received, acknowledged, handedBack } = summary();
      expect({ acknowledged, handedBack }).toEqual({ acknowledged: received, handedBack: 0 });
      expect(received).toBe(scene.shared.total());
      expect(scene.queued()).toEqual({ ready: 5000 - received, inFlight: 0 });
      scene.sqs.disarm();
      await scene.start(["etl", "--json"]).ended;
      expect(await scene.verdict()).toEqual(KEPT);
    }));

  test.concurrent(`${how} that may delete no more ends with an error, and what it stored is stored once`, () =>
    withScene(LONG, async (scene) => {
      scene.send(3000);
      scene.sqs.failNext("access-denied", "delete", 1e9);
      const { code, said, summary } = await scene.start(args).ended;
      expect({ code, said }).toEqual({
        code: 1,
        said: [
          expect.stringMatching(/^error: cannot delete stored messages: .+ answered 403/),
          expect.stringMatching(/^hint: check the queue's policy/),
        ],
      });
      const { received, acknowledged } = summary();
      expect(received).toBeGreaterThan(0);
      expect(acknowledged).toBe(0);
      expect(await scene.stored()).toBe(received);
      // What was not stored is there at once; what was will come, and be a duplicate.
      expect(scene.queued().ready).toBeGreaterThanOrEqual(3000 - received);
      scene.sqs.disarm();
      expect((await scene.start(["etl", "--json"]).ended).code).toBe(0);
    }));
}

for (const action of ["receive", "delete"] as const) {
  test.concurrent(`a drain gives up on a queue that throttles each ${action} for too long`, () =>
    withScene(LONG, async (scene) => {
      scene.send(1500);
      scene.at["load-delivered"] = () => {
        delete scene.at["load-delivered"];
        scene.sqs.failNext("throttled", action, 1e9);
      };
      const run = scene.start(["etl", "--json"], {}, { outageMs: 3000 });
      const { code, said, summary } = await run.ended;
      expect({ code, said: said.filter((line) => !line.startsWith("hint: ")) }).toEqual({
        code: 1,
        said: [
          expect.stringMatching(AWAY),
          expect.stringMatching(/^error: .+Throttl.+; gave up after [0-9]+ s$/),
        ],
      });
      const { received, loaded, duplicates, quarantined } = summary();
      expect(loaded + duplicates + quarantined).toBe(received);
      expect(received).toBeGreaterThan(0);
      expect(await scene.stored()).toBe(received);
    }));
}
