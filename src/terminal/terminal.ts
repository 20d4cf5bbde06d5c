// What a person sees: tables, a progress bar, a question. Data goes to stdout. Messages and
// questions go to stderr, and progress too where that is a terminal.
import { createInterface } from "node:readline";
import { Interrupted, misuse } from "../failure.ts";

export type Terminal = {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly isStdinTerminal: boolean;
  readonly isStdoutTerminal: boolean;
  readonly isStderrTerminal: boolean;
  /** All of stdin, as lines without their ends. */
  readonly lines: () => AsyncIterable<string>;
  /** One line from the terminal, the question on stderr. */
  readonly ask: (question: string) => Promise<string>;
};

const writes = new Set<Promise<void>>();
let lost: unknown = null;

function write(stream: NodeJS.WriteStream, text: string): void {
  const written = new Promise<void>((resolve) =>
    stream.write(text, (error) => {
      if (error && stream === process.stdout) lost ??= error;
      resolve();
    }),
  );
  writes.add(written);
  written.then(() => writes.delete(written));
}

/**
 * Answers when everything that was written has left this process: a pipe's reader may be slow. The
 * answer is the error where some of stdout could not be written, as on a full disk, and null
 * otherwise.
 */
export async function flushed(): Promise<unknown> {
  await Promise.all(writes);
  return lost;
}

export const terminal: Terminal = {
  out: (text) => write(process.stdout, text),
  err: (text) => write(process.stderr, text),
  isStdinTerminal: process.stdin.isTTY === true,
  isStdoutTerminal: process.stdout.isTTY === true,
  isStderrTerminal: process.stderr.isTTY === true,
  lines: () => splitLines(process.stdin),
  ask: (question) => {
    const prompt = createInterface({ input: process.stdin, output: process.stderr });
    return new Promise((resolve, reject) => {
      prompt.question(question, (answer) => {
        resolve(answer); // before closing, which rejects
        prompt.close();
      });
      // Ctrl-D is no answer, Enter is one.
      prompt.once("close", () => reject(new Interrupted()));
      prompt.once("SIGINT", () => {
        // First: closing resolves, as if nothing had been typed.
        reject(new Interrupted());
        prompt.close();
      });
    });
  },
};

/**
 * Lines end in \n or \r\n only. readline takes U+2028 for an end too, which may stand in a device
 * id.
 */
async function* splitLines(chunks: AsyncIterable<Uint8Array | string>): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let rest = "";
  const decode = (chunk?: Uint8Array): string => {
    try {
      return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
    } catch {
      throw misuse("stdin is not UTF-8", "convert it: values are tokenized as their UTF-8 bytes");
    }
  };
  for await (const chunk of chunks) {
    rest += typeof chunk === "string" ? chunk : decode(chunk);
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield line.replace(/\r$/, "");
  }
  rest += decode();
  if (rest !== "") yield rest.replace(/\r$/, "");
}

/**
 * Text that others wrote, made safe to print. Control characters could move the cursor, recolour
 * the terminal, or type into it. `--json` prints every byte as it is.
 */
export const printable = (text: string): string =>
  text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to replace
    /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/** A number with its noun. */
export const plural = (count: number, one: string, many = `${one}s`): string =>
  `${count} ${count === 1 ? one : many}`;

/** Columns aligned with spaces. Callers ask for the header where a person reads. */
export function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  withHeader: boolean,
): string {
  const cells = (withHeader ? [header, ...rows] : rows).map((row) => row.map(printable));
  const widths = header.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd();
  return cells.map((row) => `${line(row)}\n`).join("");
}

const BAR_CELLS = 30;
const REDRAW_MS = 100;

/** One line on stderr that redraws itself; nothing at all where stderr is no terminal. */
export class Progress {
  readonly #terminal: Terminal;
  readonly #total: number;
  #drawnAt = 0;
  #drawn = false;

  constructor(terminal: Terminal, total: number) {
    this.#terminal = terminal;
    this.#total = total;
  }

  show(done: number, note: string): void {
    const now = Date.now();
    if (!this.#terminal.isStderrTerminal || now - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = now;
    this.#drawn = true;
    // The queue's count is approximate: more messages may come.
    const total = Math.max(this.#total, done);
    const filled = total === 0 ? 0 : Math.floor((done / total) * BAR_CELLS);
    const bar = "█".repeat(filled).padEnd(BAR_CELLS, "░");
    this.#terminal.err(`\r${bar} ${done} of ${total}  ${note}\u001b[K`);
  }

  clear(): void {
    if (this.#drawn) this.#terminal.err("\r\u001b[K");
    this.#drawn = false;
  }
}
