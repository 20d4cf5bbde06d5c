// A server that keeps what it was asked, as it came over the wire, and checks signatures as AWS does: from
// the request's own bytes, by what AWS publishes about Signature Version 4, not by what made the request.
import { createHash, createHmac } from "node:crypto";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Recorded = {
  readonly method: string;
  readonly path: string;
  /** Names as they came. */
  readonly names: readonly string[];
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

export type Recorder = {
  readonly host: string;
  readonly url: string;
  readonly requests: Recorded[];
  readonly arrival: (request: number) => Promise<void>;
  /** Its connection was closed, or its answer was complete. */
  readonly ending: (request: number) => Promise<void>;
};

export type Reply = (response: ServerResponse, request: Recorded, index: number) => void;

export const answer =
  (status: number, body: string, headers: Readonly<Record<string, string>> = {}): Reply =>
  (response) =>
    void response.writeHead(status, { "content-type": TYPE, ...headers }).end(body);

const TYPE = "application/x-amz-json-1.0";

/** As SQS refuses. */
export const refusal = (status: number, type: string, text = ""): Reply =>
  answer(status, JSON.stringify({ __type: `com.amazonaws.sqs#${type}`, message: text }));

const servers: Server[] = [];

export async function record(reply: Reply): Promise<Recorder> {
  const requests: Recorded[] = [];
  const waiting: { readonly count: number; readonly go: () => void }[] = [];
  const endings: Promise<void>[] = [];
  const server = createServer((incoming, response) => {
    response.sendDate = false; // the SDK would set its clock by it
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("end", () => {
      const names = incoming.rawHeaders.filter((_, i) => i % 2 === 0);
      const headers = Object.fromEntries(
        names.map((name, i) => [name.toLowerCase(), incoming.rawHeaders[2 * i + 1] ?? ""]),
      );
      const { method = "", url: path = "" } = incoming;
      const request = { method, path, names, headers, body: Buffer.concat(chunks).toString() };
      const index = requests.push(request) - 1;
      endings.push(new Promise((end) => response.on("close", end)));
      for (const { count, go } of waiting) if (requests.length >= count) go();
      reply(response, request, index);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const arrival = (request: number) =>
    new Promise<void>((go) => {
      if (requests.length > request) go();
      else waiting.push({ count: request + 1, go });
    });
  const ending = (request: number) => arrival(request).then(() => endings[request]);
  return { host, url: `http://${host}`, requests, arrival, ending };
}

export async function stopRecorders(): Promise<void> {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

export type Authorization = {
  readonly algorithm: string;
  readonly accessKeyId: string;
  readonly scope: string;
  readonly signedHeaders: readonly string[];
  readonly signature: string;
};

export function readAuthorization({ headers }: Pick<Recorded, "headers">): Authorization {
  const form =
    /^(\S+) Credential=([^/]+)\/([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/;
  const match = form.exec(headers.authorization ?? "");
  if (match === null) throw new Error("not an authorization");
  const [, algorithm = "", accessKeyId = "", scope = "", list = "", signature = ""] = match;
  return { algorithm, accessKeyId, scope, signedHeaders: list.split(";"), signature };
}

/** The signature that AWS computes of a request, to compare with the one that came with it. */
export function signatureOf(request: Omit<Recorded, "names">, secretAccessKey: string): string {
  const { scope, signedHeaders } = readAuthorization(request);
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const { method, path, headers, body } = request;
  const lines = signedHeaders.map((name) => `${name}:${headers[name]?.trim()}\n`).join("");
  const canonical = [method, path, "", lines, signedHeaders.join(";"), sha256(body)].join("\n");
  const text = ["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, sha256(canonical)].join("\n");
  let key: Buffer | string = `AWS4${secretAccessKey}`;
  for (const part of [...scope.split("/"), text]) {
    key = createHmac("sha256", key).update(part).digest();
  }
  return key.toString("hex");
}
