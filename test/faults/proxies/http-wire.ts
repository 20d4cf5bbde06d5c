// HTTP/1.1 on bare sockets, as far as an AWS SDK speaks it: so that a test can refuse a connection, reset
// it before an answer or in the middle of one, and know when an answer has left.
import type { Server, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { listen, portOf } from "./listen.ts";

export type HttpRequest = {
  readonly path: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
};

export type HttpReply = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

/** What becomes of a request: an answer, whole or half of it; a reset instead; nothing, for ever. */
export type Outcome =
  | { readonly kind: "answer" | "half"; readonly reply: HttpReply; readonly onSent?: () => void }
  | { readonly kind: "reset" }
  | { readonly kind: "silence" };

export type HttpMode =
  | { readonly kind: "pass" }
  | { readonly kind: "refuse"; readonly how: "closed" | "accepted" }
  | { readonly kind: "hold" }
  | { readonly kind: "slow"; readonly milliseconds: number };

export type HttpServer = {
  readonly port: number;
  readonly set: (mode: HttpMode) => Promise<void>;
  readonly dropAll: () => number;
  readonly connections: () => number;
  readonly stop: () => Promise<void>;
};

export async function startHttp(
  handle: (request: HttpRequest) => Promise<Outcome>,
): Promise<HttpServer> {
  const open = new Set<Socket>();
  let mode: HttpMode = { kind: "pass" };
  let changed = Promise.withResolvers<void>();
  const whileHeld = async () => {
    while (mode.kind === "hold") await changed.promise;
    if (mode.kind === "slow") await sleep(mode.milliseconds);
  };

  const answer = async (socket: Socket, request: HttpRequest) => {
    await whileHeld();
    const outcome = await handle(request);
    await whileHeld();
    if (outcome.kind === "silence") return;
    if (outcome.kind === "reset") {
      socket.resetAndDestroy();
      return;
    }
    const bytes = write(outcome.reply);
    if (outcome.kind === "half") {
      // Through the head and into the body, or there is nothing to be truncated.
      const head = bytes.length - Buffer.byteLength(outcome.reply.body);
      socket.write(bytes.subarray(0, head + ((bytes.length - head) >> 1)), () => {
        outcome.onSent?.();
        socket.resetAndDestroy();
      });
      return;
    }
    socket.write(bytes, () => outcome.onSent?.());
  };

  const accept = (socket: Socket) => {
    socket.on("error", () => {});
    if (mode.kind === "refuse") {
      socket.destroy();
      return;
    }
    open.add(socket);
    let pending: Buffer = Buffer.alloc(0);
    let busy = false;
    const run = async () => {
      if (busy) return;
      busy = true;
      for (let read = readRequest(pending); read !== null; read = readRequest(pending)) {
        pending = pending.subarray(read.length);
        await answer(socket, read.request);
      }
      busy = false;
    };
    socket.on("data", (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      void run();
    });
    socket.on("close", () => open.delete(socket));
  };

  let listener: Server | null = await listen(0, accept);
  const port = portOf(listener);
  const set = async (next: HttpMode) => {
    mode = next;
    changed.resolve();
    changed = Promise.withResolvers();
    if (next.kind === "refuse" && next.how === "closed") {
      listener?.close();
      listener = null;
    } else listener ??= await listen(port, accept);
  };
  const dropAll = () => {
    const sockets = [...open];
    for (const socket of sockets) socket.resetAndDestroy();
    return sockets.length;
  };
  return {
    port,
    set,
    dropAll,
    connections: () => open.size,
    stop: async () => {
      await set({ kind: "refuse", how: "closed" });
      dropAll();
    },
  };
}

/** The first request and how long it is, or null where it has not come as a whole. */
function readRequest(
  bytes: Buffer,
): { readonly request: HttpRequest; readonly length: number } | null {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0) return null;
  const [first = "", ...lines] = bytes.toString("latin1", 0, end).split("\r\n");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  const length = end + 4 + Number(headers.get("content-length") ?? 0);
  if (bytes.length < length) return null;
  const path = first.split(" ")[1] ?? "/";
  return { request: { path, headers, body: bytes.subarray(end + 4, length) }, length };
}

function write({ status, headers, body }: HttpReply): Buffer {
  const lines = Object.entries({
    date: new Date().toUTCString(),
    ...headers,
    "content-length": String(Buffer.byteLength(body)),
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`HTTP/1.1 ${status} -\r\n${lines.join("")}\r\n${body}`, "utf8");
}
