// What a fast call puts on the wire, beside what the SDK's client does for the
// same call: to the same place, the same request, signed alike.
import { afterEach, describe, expect, setSystemTime, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SQSClient } from "@aws-sdk/client-sqs";
import { openFastCalls } from "../../src/sqs/fast-calls.ts";
import { openQueue } from "../../src/sqs/queue.ts";
import * as server from "../support/recorder.ts";
import { byFetch, bySdk, CREDENTIALS, calls, SESSION } from "../support/sqs-calls.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const never = new AbortController().signal;
const QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/logins";
afterEach(async () => {
  setSystemTime();
  await server.stopRecorders();
});

/** What each side says of itself, and what follows from it. All else has to be the same. */
const SDKS_OWN = ["amz-sdk-invocation-id", "amz-sdk-request", "user-agent", "x-amz-user-agent"];
const FETCHS_OWN = ["accept", "accept-encoding", "accept-language", "user-agent"];

const without = (headers: Readonly<Record<string, string>>, names: readonly string[]) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)));

/** Sent within the same second and by one runtime's sockets, or `apart`. */
function expectSame(theirs: server.Recorded, ours: server.Recorded, apart = false): void {
  expect(ours.method).toBe(theirs.method);
  expect(ours.path).toBe(theirs.path);
  expect(ours.body).toBe(theirs.body);
  expect(ours.names).toHaveLength(new Set(ours.names).size);
  const time = apart ? ["x-amz-date", "connection"] : [];
  expect(without(ours.headers, [...FETCHS_OWN, ...time, "authorization"])).toEqual(
    without(theirs.headers, [...SDKS_OWN, ...time, "authorization"]),
  );
  const [our, their] = [ours, theirs].map((request) => {
    const authorization = server.readAuthorization(request);
    const { signature, scope, signedHeaders } = authorization;
    expect(signature).toBe(server.signatureOf(request, CREDENTIALS.secretAccessKey));
    return {
      ...authorization,
      signature: "",
      scope: apart ? scope.slice("20260228".length) : scope,
      signedHeaders: signedHeaders.filter((name) => !SDKS_OWN.includes(name)),
    };
  });
  expect(our).toEqual(their!);
  for (const name of server.readAuthorization(ours).signedHeaders) {
    expect(SDKS_OWN).not.toContain(name);
  }
}

describe("a request", () => {
  for (const credentials of [CREDENTIALS, SESSION]) {
    for (const path of ["", "/", "/base", "/base/", "/a/b"]) {
      const token = "sessionToken" in credentials ? "with" : "without";
      test(`is the SDK's, ${token} a session token, at the endpoint's path '${path}'`, async () => {
        setSystemTime(new Date("2026-02-28T23:59:59.500Z"));
        const sqs = await server.record(server.answer(200, "{}"));
        const client = new SQSClient({
          endpoint: `${sqs.url}${path}`,
          region: "eu-central-1",
          credentials,
        });
        const fast = openFastCalls(client);
        for (const call of Object.values(calls(QUEUE_URL))) {
          await bySdk(client, call);
          expect(await byFetch(fast, call)).toEqual({});
          const [theirs, ours] = sqs.requests.splice(0);
          expectSame(theirs!, ours!);
          expect(ours!.headers["x-amz-date"]).toBe("20260228T235959Z");
          expect(ours!.headers["x-amz-security-token"]).toBe(
            "sessionToken" in credentials ? SESSION.sessionToken : undefined,
          );
        }
      });
    }
  }

  test("of an open queue says what the SDK's would, and goes by the lean transport", async () => {
    const sqs = await server.record((response, request, index) => {
      const isAsked = request.headers["x-amz-target"] === "AmazonSQS.GetQueueAttributes";
      const attributes = { Attributes: { VisibilityTimeout: "77" } };
      const isLean = request.headers["amz-sdk-request"] === undefined;
      const reply = isAsked
        ? server.answer(200, JSON.stringify(attributes))
        : server.answer(isLean ? 418 : 200, "{}");
      reply(response, request, index);
    });
    const queueUrl = `${sqs.url}/000000000000/logins`;
    const queue = await openQueue({
      queue: queueUrl,
      endpoint: sqs.url,
      region: "us-east-1",
      credentials: CREDENTIALS,
    });
    await queue.receive(7, 3, never);
    const message = { id: "id", body: "{}", sentAt: new Date(0), receipt: "receipt" };
    await queue.acknowledge([message, message], never);
    queue.close();
    const [, lean, sdk, leanDelete, sdkDelete] = sqs.requests;
    for (const [ours, theirs] of [[lean!, sdk!] as const, [leanDelete!, sdkDelete!] as const]) {
      expect(ours.headers["amz-sdk-request"]).toBeUndefined();
      expect(theirs.headers["amz-sdk-request"]).toBeDefined();
      expect(JSON.parse(ours.body)).toEqual(JSON.parse(theirs.body));
      expect(ours.headers["x-amz-target"]).toBe(theirs.headers["x-amz-target"]!);
    }
  });
});

test("a request is the SDK's under Deno too", async () => {
  const sqs = await server.record(server.answer(200, "{}"));
  const cache = mkdtempSync(join(tmpdir(), "veil-deno-"));
  try {
    const child = Bun.spawn(
      [
        join(ROOT, "node_modules/.bin/deno"),
        ...["run", "--no-prompt", "--cached-only", "--no-remote"],
        ...["--node-modules-dir=manual", "--no-lock"],
        ...[`--allow-net=${sqs.host}`, "--allow-env", "--allow-read", "--allow-sys=osRelease"],
        fileURLToPath(new URL("fast-calls.deno.ts", import.meta.url)),
        sqs.url,
      ],
      {
        cwd: ROOT,
        env: { PATH: process.env.PATH ?? "", DENO_DIR: cache, HOME: cache, NO_COLOR: "1" },
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    expect({ code, stderr, stdout }).toEqual({ code: 0, stderr: "", stdout: "{}\n{}\n" });
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
  const [first, second, third, fourth] = sqs.requests;
  expectSame(first!, second!, true);
  expectSame(third!, fourth!, true);
});
