// The signature of a hot call is the one that AWS computes and the SDK's signer makes.
import { describe, expect, test } from "bun:test";
import { SQSClient } from "@aws-sdk/client-sqs";
import fc from "fast-check";
import { type Credentials, makeSigner } from "../../src/sqs/signature.ts";
import * as server from "../support/recorder.ts";
import { SESSION } from "../support/sqs-calls.ts";

const REGION = "eu-west-3";

type Signer = {
  readonly sign: (
    request: object,
    options: { readonly signingDate: Date },
  ) => Promise<{ readonly headers: Record<string, string> }>;
};
const sdkSigner = async (credentials: Credentials, region: string): Promise<Signer> =>
  (await new SQSClient({ region, credentials } as never).config.signer()) as Signer;

// From AWS's published Signature Version 4 test suite.
const SUITE_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SUITE_TOKEN =
  "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPf" +
  "IeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7W" +
  "Z0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8F" +
  "DrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
const SUITE: readonly (readonly [string, Record<string, string>, body: string, string])[] = [
  ["GET", {}, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"],
  ["POST", {}, "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"],
  [
    "POST",
    { "content-type": "application/x-www-form-urlencoded" },
    "Param1=value1",
    "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
  ],
  [
    "POST",
    { "x-amz-security-token": SUITE_TOKEN },
    "",
    "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
  ],
];

test("what these tests check signatures with computes those that AWS published", () => {
  for (const [method, more, body, signature] of SUITE) {
    const signed = { host: "example.amazonaws.com", "x-amz-date": "20150830T123600Z", ...more };
    const authorization =
      "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, " +
      `SignedHeaders=${Object.keys(signed).sort().join(";")}, Signature=${"0".repeat(64)}`;
    const request = { method, path: "/", headers: { ...signed, authorization }, body };
    expect(server.signatureOf(request, SUITE_KEY)).toBe(signature);
  }
});

describe("a signature", () => {
  const base64 = fc.stringMatching(/^[A-Za-z0-9+/]{1,60}={0,2}$/);
  const credentials = fc.record({
    accessKeyId: fc.stringMatching(/^[A-Z0-9]{1,32}$/),
    secretAccessKey: fc.oneof(base64, fc.string({ unit: "grapheme", minLength: 1 })),
    sessionToken: fc.oneof(fc.constant(undefined), fc.constant(""), base64),
  });
  const body = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.json(),
    fc.constantFrom("", "{}", "\ud800", "\u0000", "😀\u2028", "a".repeat(65_537)),
  );
  const noInvalid = { noInvalidDate: true } as const;
  const range = { min: new Date("1970-01-01T00:00:00Z"), max: new Date("9999-12-31T23:59:59Z") };
  const midnight = new Date("2028-02-29T00:00:00Z").getTime();
  const date = fc.oneof(
    fc.date({ ...noInvalid, ...range }),
    fc.integer({ min: -2_000, max: 2_000 }).map((offset) => new Date(midnight + offset)),
  );
  const path = fc.constantFrom("/", "/base/", "/a/b-c_d.e~f/", "/000000000000/");
  const region = fc.constantFrom("us-east-1", "cn-north-1", "us-gov-west-1", "ap-southeast-7");

  test("is byte for byte the SDK's, with the SDK's headers, on any day and the next", async () => {
    const input = fc.record({
      credentials,
      region,
      requests: fc.array(fc.record({ path, body, date }), { minLength: 1, maxLength: 6 }),
    });
    await fc.assert(
      fc.asyncProperty(input, async (given) => {
        const ours = makeSigner(given.credentials, given.region);
        const theirs = await sdkSigner(given.credentials, given.region);
        for (const { path, body, date } of given.requests) {
          const headers = {
            "content-length": String(Buffer.byteLength(body)),
            "content-type": "application/x-amz-json-1.0",
            host: `sqs.${given.region}.amazonaws.com`,
            "x-amz-target": "AmazonSQS.ReceiveMessage",
            "x-amzn-query-mode": "true",
          };
          const request = { method: "POST", path, headers, body };
          const { headers: expected } = await theirs.sign(
            { ...request, query: {} },
            { signingDate: date },
          );
          const signed = ours(request, date);
          expect(signed).toEqual(expected);
          const asSent = { ...request, headers: signed };
          expect(server.readAuthorization(asSent).signature).toBe(
            server.signatureOf(asSent, given.credentials.secretAccessKey),
          );
        }
      }),
      { numRuns: 300 },
    );
  });

  test("is made anew for the same second's other body, and for a clock that was put back", () => {
    const sign = makeSigner(SESSION, REGION);
    const at = (body: string, date: string) =>
      sign({ path: "/", headers: { host: "h" }, body }, new Date(date)).authorization;
    const times = ["2026-12-31T23:59:59.000Z", "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"];
    const [first, same, next] = times.map((time) => at("{}", time));
    expect(same).toBe(first!);
    expect(next).not.toBe(first!);
    expect(at("{ }", times[1]!)).not.toBe(first!);
    expect(at("{}", times[0]!)).toBe(first!);
  });
});
