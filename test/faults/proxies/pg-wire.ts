// PostgreSQL's wire protocol as far as a proxy needs it: where a message ends, what kind it is, and a few
// messages of its own making. Knows bytes only: no sockets, no faults.

/** SSLRequest, GSSENCRequest and CancelRequest come in a StartupMessage's place. */
export const SSL_REQUEST = 80_877_103;
export const GSS_REQUEST = 80_877_104;
export const CANCEL_REQUEST = 80_877_102;

/** Cuts a stream into whole messages, header included. State: what has come of the next one. */
export class Frames {
  #chunks: Buffer[] = [];
  #length = 0;
  /** A client's first messages carry no kind, only their length. */
  #hasKind: boolean;

  constructor(from: "client" | "server") {
    this.#hasKind = from === "server";
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The next message, or null where it has not come as a whole. */
  next(): Buffer | null {
    const prefix = this.#hasKind ? 1 : 0;
    if (this.#length < prefix + 4) return null;
    if (this.#chunks[0]!.length < prefix + 4) this.#join();
    const size = prefix + this.#chunks[0]!.readUInt32BE(prefix);
    if (this.#length < size) return null;
    if (this.#chunks[0]!.length < size) this.#join();
    const first = this.#chunks[0]!;
    const message = first.subarray(0, size);
    if (first.length === size) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(size);
    this.#length -= size;
    if (
      !this.#hasKind &&
      startupCode(message) > 0xffff &&
      startupCode(message) < SSL_REQUEST - 10
    ) {
      this.#hasKind = true;
    }
    return message;
  }

  /** What has come of a message that is not whole, where a connection ends in the middle of one. */
  rest(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  #join(): void {
    this.#chunks = [Buffer.concat(this.#chunks)];
  }
}

/** Of a message without a kind: the protocol's version (196608 is 3.0), or one of the requests above. */
export const startupCode = (message: Buffer): number => message.readUInt32BE(4);

export const kindOf = (message: Buffer): string => String.fromCharCode(message[0]!);

const text = (message: Buffer, at: number): readonly [string, number] => {
  const end = message.indexOf(0, at);
  return [message.toString("utf8", at, end), end + 1];
};

/** Parse → the statement's name and words. */
export function readParse(message: Buffer): { readonly name: string; readonly query: string } {
  const [name, at] = text(message, 5);
  return { name, query: text(message, at)[0] };
}

/** Bind → the name of the statement that it binds. */
export const readBind = (message: Buffer): string => text(message, text(message, 5)[1])[0];

export const readQuery = (message: Buffer): string => text(message, 5)[0];

/** ErrorResponse → its SQLSTATE. */
export function readError(message: Buffer): string {
  for (let at = 5; message[at] !== 0; ) {
    const field = String.fromCharCode(message[at]!);
    const [value, next] = text(message, at + 1);
    if (field === "C") return value;
    at = next;
  }
  return "";
}

export type PgError = {
  readonly sqlstate: string;
  readonly message: string;
  /** After FATAL the server closes the connection. */
  readonly severity: "ERROR" | "FATAL";
};

function message(kind: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(kind, "latin1");
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

export function errorResponse({ severity, sqlstate, message: words }: PgError): Buffer {
  const fields = [`S${severity}`, `V${severity}`, `C${sqlstate}`, `M${words}`];
  return message("E", Buffer.from(`${fields.join("\0")}\0\0`, "utf8"));
}

/** `I` outside of a transaction, `T` in one, `E` in one that has failed. */
export const readyForQuery = (status: "I" | "T" | "E"): Buffer => message("Z", Buffer.from(status));

export const simpleQuery = (query: string): Buffer =>
  message("Q", Buffer.from(`${query}\0`, "utf8"));
