// Where the lean transport of the hot calls sends them: wherever the SDK's client does, and nowhere else.
import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { SQSClient, type SQSClientConfig } from "@aws-sdk/client-sqs";
import { openFastCalls } from "../../src/sqs/fast-calls.ts";
import * as server from "../support/recorder.ts";
import { byFetch, bySdk, CREDENTIALS, calls, SESSION } from "../support/sqs-calls.ts";

const restores: (() => void)[] = [];
afterEach(async () => {
  for (const restore of restores.splice(0)) restore();
  await server.stopRecorders();
});

/** Where the SDK's client and a fast call go, and for which region they sign; nothing is sent. */
async function destinations(settings: SQSClientConfig, queueUrl: string) {
  const sent: { readonly url: string; readonly host: string; readonly scope: string }[] = [];
  const keep = (url: string, headers: Readonly<Record<string, string>>) => {
    const scope = server.readAuthorization({ headers }).scope.replace(/^[0-9]+/, "");
    sent.push({ url, host: headers.host!, scope });
  };
  const handle = async ({ protocol, hostname, port, path, query, headers }: SdkRequest) => {
    expect(query).toEqual({});
    keep(`${protocol}//${hostname}${port === undefined ? "" : `:${port}`}${path}`, headers);
    throw new Error("not sent");
  };
  const fetched = spyOn(globalThis, "fetch").mockImplementation(((url: string, init: Init) => {
    keep(url, init.headers);
    return Promise.resolve(Response.json({}));
  }) as unknown as typeof fetch);
  const warned = spyOn(console, "warn").mockImplementation(() => {});
  restores.push(() => fetched.mockRestore());
  restores.push(() => warned.mockRestore());
  const client = new SQSClient({
    ...settings,
    credentials: CREDENTIALS,
    maxAttempts: 1,
    requestHandler: { handle } as unknown as NonNullable<SQSClientConfig["requestHandler"]>,
  });
  const fast = openFastCalls(client);
  const { receive } = calls(queueUrl);
  await expect(bySdk(client, receive)).rejects.toThrow("not sent");
  await byFetch(fast, receive);
  return sent;
}

type SdkRequest = {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly query: object;
  readonly headers: Record<string, string>;
};
type Init = { readonly headers: Record<string, string> };

describe("a request goes where the SDK's goes", () => {
  const regional = (region: string, settings: SQSClientConfig = {}, suffix = "amazonaws.com") =>
    [
      { region, ...settings },
      `https://sqs.${region}.${suffix}/123456789012/logins`,
      `https://sqs.${region}.${suffix}/`,
    ] as const;
  const account = "123456789012/logins";
  const region = "us-east-1";
  const cases: readonly (readonly [SQSClientConfig, queueUrl: string, expected: string])[] = [
    regional("us-east-1"),
    regional("eu-central-1"),
    regional("us-gov-west-1"),
    regional("cn-north-1", {}, "amazonaws.com.cn"),
    ...[
      "sqs-fips.us-east-1.amazonaws.com",
      "sqs.us-east-1.api.aws",
      "us-east-1.queue.amazonaws.com",
    ].map((host) => [{ region }, `https://${host}/${account}`, `https://${host}/`] as const),
    [
      { region, useFipsEndpoint: true },
      `https://sqs-fips.us-east-1.amazonaws.com/${account}`,
      "https://sqs-fips.us-east-1.amazonaws.com/",
    ],
    [
      { region, useDualstackEndpoint: true },
      `https://sqs.us-east-1.api.aws/${account}`,
      "https://sqs.us-east-1.api.aws/",
    ],
    // A VPC endpoint's name; another region's queue.
    [
      { region },
      `https://vpce-0a1b-c2d3.sqs.us-east-1.vpce.amazonaws.com/${account}`,
      "https://vpce-0a1b-c2d3.sqs.us-east-1.vpce.amazonaws.com/",
    ],
    [
      { region },
      `https://sqs.ap-south-1.amazonaws.com/${account}`,
      "https://sqs.ap-south-1.amazonaws.com/",
    ],
    ...[
      "http://localhost:4566",
      "http://[::1]:4566",
      "https://sqs.example:443/p",
      "http://e/a%20b/",
    ].map(
      (endpoint) =>
        [
          { region, endpoint },
          `https://sqs.us-east-1.amazonaws.com/${account}`,
          `${new URL(endpoint).href.replace(/\/?(\?.*)?$/, "")}/`,
        ] as const,
    ),
  ];
  for (const [settings, queueUrl, expected] of cases) {
    test(`${JSON.stringify(settings)}, ${queueUrl}`, async () => {
      const [theirs, ours, ...more] = await destinations(settings, queueUrl);
      expect(theirs?.url).toBe(expected);
      expect(ours).toEqual(theirs!);
      expect(more).toEqual([]);
    });
  }

  test("so that nothing is sent before the client has sent something, or for another queue", async () => {
    const sqs = await server.record(server.answer(200, "{}"));
    const client = new SQSClient({ endpoint: sqs.url, region, credentials: CREDENTIALS });
    const fast = openFastCalls(client);
    const { receive } = calls("http://sqs.example/1/logins");
    for (let i = 0; i < 5; i++) expect(await byFetch(fast, receive)).toBeNull();
    expect(sqs.requests).toEqual([]);
    await bySdk(client, receive);
    const other = { ...receive[1], QueueUrl: "http://sqs.example/1/other" };
    expect(await byFetch(fast, ["ReceiveMessage", other])).toBeNull();
    expect(await byFetch(fast, receive)).toEqual({});
    expect(sqs.requests).toHaveLength(2);
  });

  test("past a proxy that the environment names, as the SDK does", async () => {
    const proxy = await server.record(server.answer(200, "{}"));
    const sqs = await server.record(server.answer(200, "{}"));
    for (const name of ["HTTP_PROXY", "http_proxy", "ALL_PROXY"]) {
      const before = process.env[name];
      process.env[name] = proxy.url;
      restores.push(() => {
        if (before === undefined) delete process.env[name];
        else process.env[name] = before;
      });
    }
    const client = new SQSClient({ endpoint: sqs.url, region, credentials: CREDENTIALS });
    const fast = openFastCalls(client);
    const { receive } = calls("http://sqs.example/1/logins");
    await bySdk(client, receive);
    expect(await byFetch(fast, receive)).toEqual({});
    expect(proxy.requests).toEqual([]);
    expect(sqs.requests).toHaveLength(2);
  });

  test("and nowhere else: a redirection is not followed", async () => {
    for (const status of [301, 302, 303, 307, 308]) {
      const elsewhere = await server.record(server.answer(200, "{}"));
      const sqs = await server.record(server.answer(status, "{}", { location: elsewhere.url }));
      const client = new SQSClient({ endpoint: sqs.url, region, credentials: SESSION });
      const fast = openFastCalls(client);
      const { receive } = calls("http://sqs.example/1/logins");
      const error: unknown = await bySdk(client, receive).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ $metadata: { httpStatusCode: status } });
      expect(await byFetch(fast, receive)).toBeNull();
      expect(sqs.requests).toHaveLength(2);
      expect(elsewhere.requests).toEqual([]);
    }
  });

  test("over one connection, call after call", async () => {
    const ports = new Set<number | undefined>();
    const sqs = await server.record((response, ...rest) => {
      ports.add(response.socket?.remotePort);
      server.answer(200, "{}")(response, ...rest);
    });
    const client = new SQSClient({ endpoint: sqs.url, region, credentials: CREDENTIALS });
    const fast = openFastCalls(client);
    const { receive } = calls("http://sqs.example/1/logins");
    await bySdk(client, receive);
    ports.clear();
    for (let i = 0; i < 20; i++) expect(await byFetch(fast, receive)).toEqual({});
    expect(ports.size).toBe(1);
  });
});
