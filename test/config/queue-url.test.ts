import { describe, expect, test } from "bun:test";
import type { Environment } from "../../src/config/environment.ts";
import { readQueue } from "../../src/config/queue-url.ts";
import { CANARY, expectRefused, refusal } from "../support/refusals.ts";

describe("QUEUE_URL", () => {
  const read = (QUEUE_URL: string, env: Environment = {}) => readQueue({ QUEUE_URL, ...env });

  test.each([
    ["https://sqs.eu-central-1.amazonaws.com/123456789012/logins", "eu-central-1"],
    ["https://sqs.us-gov-west-1.amazonaws.com/123456789012/logins", "us-gov-west-1"],
    ["https://sqs.cn-north-1.amazonaws.com.cn/123456789012/logins", "cn-north-1"],
    ["https://sqs.eu-west-1.api.aws/123456789012/logins.fifo", "eu-west-1"],
    ["https://vpce-0a1b-2c.sqs.us-east-1.vpce.amazonaws.com/123456789012/logins", "us-east-1"],
    ["https://queue.amazonaws.com/123456789012/logins", null],
    ["https://us-west-2.queue.amazonaws.com/123456789012/logins", null],
  ])("at AWS keeps the SDK's endpoint: %s", (url, region) => {
    const expected = { queue: url, endpoint: null, region, credentials: null };
    expect(read(url)).toEqual(expected);
    // The queue's own region beats a default.
    expect(read(url, { AWS_REGION: "ap-south-1" })).toEqual(expected);
  });

  test.each([
    ["http://localhost:4566/000000000000/logins", "http://localhost:4566"],
    ["http://127.0.0.1:9324/queue/logins", "http://127.0.0.1:9324"],
    ["http://[::1]:9324/queue/logins", "http://[::1]:9324"],
    ["https://sqs.example.org/1/logins", "https://sqs.example.org"],
    ["https://amazonaws.com.example.org/1/logins", "https://amazonaws.com.example.org"],
    ["https://notamazonaws.com/1/logins", "https://notamazonaws.com"],
  ])("of an emulator is its own endpoint: %s", (url, endpoint) => {
    expect(read(url)).toEqual({ queue: url, endpoint, region: "us-east-1", credentials: null });
    expect(read(url, { AWS_REGION: "eu-west-1" }).region).toBeNull();
    expect(read(url, { AWS_DEFAULT_REGION: "eu-west-1" }).region).toBeNull();
    expect(read(url, { AWS_REGION: "", AWS_DEFAULT_REGION: "" }).region).toBe("us-east-1");
  });

  test("of an emulator may name its region", () => {
    const url = "http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/logins";
    expect(read(url)).toMatchObject({
      endpoint: "http://sqs.eu-west-1.localhost.localstack.cloud:4566",
      region: "eu-west-1",
    });
  });

  test("is passed on as it stands where an endpoint is set", () => {
    const urls = [
      "http://a-host-that-does-not-resolve.invalid:1234/000000000000/logins",
      "https://sqs.eu-central-1.amazonaws.com/123456789012/logins",
    ];
    for (const queue of urls) {
      for (const name of ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"]) {
        const env = { [name]: "http://localhost:4566" };
        expect(read(queue, env)).toMatchObject({ queue, endpoint: "http://localhost:4566" });
      }
    }
    const both = { AWS_ENDPOINT_URL_SQS: "http://sqs:1", AWS_ENDPOINT_URL: "http://all:2" };
    expect(read("logins", both).endpoint).toBe("http://sqs:1");
    expect(read("logins", { ...both, AWS_ENDPOINT_URL_SQS: "" }).endpoint).toBe("http://all:2");
  });

  test.each(["logins", "Logins_2-b", "logins.fifo", "x", "x".repeat(75), `${"x".repeat(75)}.fifo`])(
    "may be a queue's name: %s",
    (queue) => {
      expect(read(queue)).toEqual({ queue, endpoint: null, region: null, credentials: null });
      expect(read(` ${queue}\n`).queue).toBe(queue);
    },
  );

  test.each([
    `${CANARY} ${CANARY}`,
    `${CANARY}.txt`,
    `${CANARY}/${CANARY}`,
    `arn:aws:sqs:us-east-1:1:${CANARY}`,
    `ftp://localhost/1/${CANARY}`,
    `${CANARY}${"x".repeat(75)}`,
    `localhost:4566/1/${CANARY}`,
    `http://${CANARY}`,
    `http://${CANARY}/`,
    `http://[${CANARY}]/1/logins`,
    `http://u:${CANARY}@h:99999/1/logins`,
    "http://",
  ])("is refused where it is neither a URL of a queue nor a name: %s", (url) => {
    expectRefused("QUEUE_URL", () => read(url));
  });

  test("is refused by name where it is missing", () => {
    for (const env of [{}, { QUEUE_URL: "" }, { QUEUE_URL: " \n" }]) {
      expectRefused("QUEUE_URL", () => readQueue(env));
    }
  });

  test("does not excuse a malformed AWS_ENDPOINT_URL_SQS", () => {
    for (const endpoint of [CANARY, "http://", `//${CANARY}`, `http://${CANARY}:x`]) {
      const env = { AWS_ENDPOINT_URL_SQS: endpoint };
      expectRefused("AWS_ENDPOINT_URL_SQS", () => read("logins", env));
    }
  });

  // `host:port` is a URL of the scheme `host` to the parser, and no endpoint.
  test("does not excuse an AWS_ENDPOINT_URL_SQS without http:// either", () => {
    for (const endpoint of ["localhost:4566", "ftp://localhost/"]) {
      expectRefused("AWS_ENDPOINT_URL_SQS", () =>
        read("logins", { AWS_ENDPOINT_URL_SQS: endpoint }),
      );
    }
  });

  test("names AWS_ENDPOINT_URL where that is the malformed one", () => {
    const { message } = refusal(() => read("logins", { AWS_ENDPOINT_URL: CANARY }));
    expect(message).toMatch(/AWS_ENDPOINT_URL(?!_SQS)/);
  });
});
