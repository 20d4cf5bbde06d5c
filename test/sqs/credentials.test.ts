// A hot call is signed with the credentials, the signer and the clock that the client has at that moment.
import { afterEach, describe, expect, setSystemTime, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SQSClient } from "@aws-sdk/client-sqs";
import { Failure } from "../../src/failure.ts";
import { openFastCalls } from "../../src/sqs/fast-calls.ts";
import { openQueue } from "../../src/sqs/queue.ts";
import * as server from "../support/recorder.ts";
import { byFetch, bySdk, CREDENTIALS, calls } from "../support/sqs-calls.ts";

const restores: (() => void)[] = [];
afterEach(async () => {
  for (const restore of restores.splice(0).reverse()) restore();
  setSystemTime();
  await server.stopRecorders();
});

const REGION = "eu-west-3";
const QUEUE_URL = "http://sqs.example/000000000000/logins";
const { receive: RECEIVE } = calls(QUEUE_URL);

type Signer = {
  readonly sign: (request: object, options: object) => Promise<unknown>;
};

/** Answers as SQS does, to whom it knows. */
const guarded =
  (
    secretOf: (accessKeyId: string, token: string | undefined) => string | undefined,
  ): server.Reply =>
  (...given) => {
    const { headers } = given[1];
    const { accessKeyId, signature } = server.readAuthorization(given[1]);
    const secret = secretOf(accessKeyId, headers["x-amz-security-token"]);
    const isGood = secret !== undefined && server.signatureOf(given[1], secret) === signature;
    (isGood ? server.answer(200, "{}") : server.refusal(403, "SignatureDoesNotMatch"))(...given);
  };

function setEnvironment(values: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name];
    const set = (to: string | undefined) => {
      if (to === undefined) delete process.env[name];
      else process.env[name] = to;
    };
    set(value);
    restores.push(() => set(before));
  }
}

describe("credentials", () => {
  const numbered = (n: number, expiration?: Date) => ({
    accessKeyId: `AKIA${n}`,
    secretAccessKey: `secret/${n}+`,
    sessionToken: `token+${n}/=`,
    ...(expiration && { expiration }),
  });
  const known = guarded((id, token) => {
    const n = id.slice("AKIA".length);
    return token === `token+${n}/=` ? `secret/${n}+` : undefined;
  });
  const from = async (
    expires: (n: number) => Date | undefined,
    wrap?: (signer: Signer) => Signer,
  ) => {
    const sqs = await server.record(known);
    let asked = 0;
    const credentials = () => Promise.resolve(numbered(++asked, expires(asked)));
    const client = new SQSClient({ endpoint: sqs.url, region: REGION, credentials });
    if (wrap !== undefined) {
      const signer = (await client.config.signer()) as Signer;
      client.config.signer = (() => Promise.resolve(wrap(signer))) as never;
    }
    const fast = openFastCalls(client);
    await bySdk(client, RECEIVE);
    sqs.requests.length = 0;
    return { sqs, fast };
  };
  const ids = ({ requests }: server.Recorder) =>
    requests.map((request) => Number(server.readAuthorization(request).accessKeyId.slice(4)));

  test("that do not expire, or not soon, are asked for once", async () => {
    for (const expiration of [undefined, new Date(Date.now() + 3_600_000)]) {
      const { sqs, fast } = await from(() => expiration);
      for (let i = 0; i < 5; i++) expect(await byFetch(fast, RECEIVE)).toEqual({});
      expect(ids(sqs)).toEqual([1, 1, 1, 1, 1]);
    }
  });

  test("that have expired, or are about to, are new at the next call", async () => {
    for (const left of [-1_000, 60_000]) {
      const { sqs, fast } = await from((n) => new Date(Date.now() + (n < 8 ? left : 3_600_000)));
      for (let i = 0; i < 12; i++) expect(await byFetch(fast, RECEIVE)).toEqual({});
      const used = ids(sqs);
      expect(used.slice(1).every((n, i) => n >= used[i]!)).toBe(true);
      expect(new Set(used.slice(0, 3)).size).toBe(3);
      expect(used.slice(-5)).toEqual([8, 8, 8, 8, 8]);
    }
  });

  test("that expire after many calls are new at the first call after that", async () => {
    const hour = 3_600_000;
    const start = Date.now();
    setSystemTime(start);
    const { sqs, fast } = await from((n) => new Date(start + n * hour));
    for (const hours of [0, 0, 1, 1, 1, 2, 2]) {
      setSystemTime(start + hours * hour);
      expect(await byFetch(fast, RECEIVE)).toEqual({});
    }
    expect(ids(sqs)).toEqual([1, 1, 2, 2, 2, 3, 3]);
  });

  test("of a signer that signs otherwise are left to that signer, old ones and new ones", async () => {
    let signatures = 0;
    const otherwise = (signer: Signer): Signer => ({
      sign: (request, options) => {
        signatures++;
        const { headers } = request as { headers: Record<string, string> };
        return signer.sign({ ...request, headers: { ...headers, "x-other": "1" } }, options);
      },
    });
    const { sqs, fast } = await from(
      (n) => new Date(Date.now() + (n < 12 ? 0 : 3_600_000)),
      otherwise,
    );
    signatures = 0;
    for (let i = 1; i <= 10; i++) {
      expect(await byFetch(fast, RECEIVE)).toEqual({});
      expect(signatures).toBe(i);
    }
    expect(new Set(ids(sqs)).size).toBeGreaterThan(1);
    for (const request of sqs.requests) {
      expect(request.headers["x-other"]).toBe("1");
      expect(server.readAuthorization(request).signedHeaders).toContain("x-other");
    }
  });

  test("with an empty token are signed without one, and not by the SDK's signer each time", async () => {
    const sqs = await server.record(guarded(() => CREDENTIALS.secretAccessKey));
    const credentials = { ...CREDENTIALS, sessionToken: "" };
    const client = new SQSClient({ endpoint: sqs.url, region: REGION, credentials });
    let signatures = 0;
    const signer = (await client.config.signer()) as Signer;
    const counted: Signer["sign"] = (...given) => {
      signatures++;
      return signer.sign(...given);
    };
    client.config.signer = (() => Promise.resolve({ sign: counted })) as never;
    const fast = openFastCalls(client);
    await bySdk(client, RECEIVE);
    for (let i = 0; i < 5; i++) expect(await byFetch(fast, RECEIVE)).toEqual({});
    expect(signatures).toBe(2);
    for (const { headers } of sqs.requests) expect(headers["x-amz-security-token"]).toBeUndefined();
  });

  test("that their provider fails to give, or gives too late, are the client's to ask for", async () => {
    for (const name of ["CredentialsProviderError", "TimeoutError"]) {
      const sqs = await server.record(server.answer(200, "{}"));
      const client = new SQSClient({ endpoint: sqs.url, region: REGION, credentials: CREDENTIALS });
      const fast = openFastCalls(client);
      await bySdk(client, RECEIVE);
      client.config.credentials = () => Promise.reject(Object.assign(new Error("none"), { name }));
      expect(await byFetch(fast, RECEIVE)).toBeNull();
      expect(sqs.requests).toHaveLength(1);
    }
  });

  test("of a file that somebody else renews are read again once SQS calls the old ones expired", async () => {
    const folder = mkdtempSync(join(tmpdir(), "veil-credentials-"));
    restores.push(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, "credentials");
    const write = (n: number) => {
      const { accessKeyId, secretAccessKey, sessionToken } = numbered(n);
      const lines = [
        `aws_access_key_id = ${accessKeyId}`,
        `aws_secret_access_key = ${secretAccessKey}`,
        `aws_session_token = ${sessionToken}`,
      ];
      writeFileSync(file, `[default]\n${lines.join("\n")}\n`);
    };
    setEnvironment({
      AWS_SHARED_CREDENTIALS_FILE: file,
      AWS_CONFIG_FILE: join(folder, "config"),
      AWS_EC2_METADATA_DISABLED: "true",
      ...{ AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined },
      ...{ AWS_SESSION_TOKEN: undefined, AWS_PROFILE: undefined },
    });
    let expired = 0;
    const sqs = await server.record((...given) => {
      const { accessKeyId } = server.readAuthorization(given[1]);
      const isExpired = Number(accessKeyId.slice("AKIA".length)) <= expired;
      (isExpired ? server.refusal(403, "ExpiredToken") : known)(...given);
    });
    write(1);
    const settings = { queue: QUEUE_URL, endpoint: sqs.url, region: REGION, credentials: null };
    const queue = await openQueue(settings);
    restores.push(queue.close);
    const receive = () => queue.receive(10, 0, new AbortController().signal);
    expect(await receive()).toEqual([]);
    expired = 1;
    write(2);
    expect(await receive().catch((reason: unknown) => reason)).toBeInstanceOf(Failure);
    expect(await receive()).toEqual([]);
    expect(await receive()).toEqual([]);
    const last = sqs.requests.at(-1);
    expect(last?.headers["amz-sdk-request"]).toBeUndefined();
    expect(ids(sqs).slice(-2)).toEqual([2, 2]);
  });
});

test("a clock that is wrong is put right by the client, and the next call is signed by it", async () => {
  for (const hours of [1, -1, 24 * 400]) {
    let serverAhead = 0;
    const now = () => Date.now() + serverAhead;
    const timeOf = ({ headers }: server.Recorded) =>
      Date.parse(
        (headers["x-amz-date"] ?? "").replace(
          /^(....)(..)(..)T(..)(..)(..)Z$/,
          "$1-$2-$3T$4:$5:$6Z",
        ),
      );
    const sqs = await server.record((response, request, index) => {
      response.setHeader("date", new Date(now()).toUTCString());
      const isInTime = Math.abs(now() - timeOf(request)) < 300_000;
      const reply = isInTime
        ? server.answer(200, "{}")
        : server.refusal(403, "SignatureDoesNotMatch", "Signature expired");
      reply(response, request, index);
    });
    const client = new SQSClient({ endpoint: sqs.url, region: REGION, credentials: CREDENTIALS });
    const fast = openFastCalls(client);
    await bySdk(client, RECEIVE);
    expect(await byFetch(fast, RECEIVE)).toEqual({});
    serverAhead = hours * 3_600_000;
    expect(await byFetch(fast, RECEIVE)).toBeNull();
    await bySdk(client, RECEIVE);
    expect(await byFetch(fast, RECEIVE)).toEqual({});
    const last = sqs.requests.at(-1)!;
    expect(last.headers["amz-sdk-request"]).toBeUndefined();
    expect(server.signatureOf(last, CREDENTIALS.secretAccessKey)).toBe(
      server.readAuthorization(last).signature,
    );
  }
});
