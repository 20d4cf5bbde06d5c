// Rows as they come, in the format that was asked for. They are written page by page, not faster
// than they are read, and the output is well-formed wherever it ends.

import { failed } from "../failure.ts";
import { csvLine } from "./csv.ts";
import { flushed, printable, type Terminal, table } from "./terminal.ts";

export type Format = "table" | "json" | "csv";

export type Sheet<T> = {
  readonly columns: readonly string[];
  readonly cells: (row: T) => readonly (string | null)[];
  /** With `--json`: one array of all the objects, or an object a line. */
  readonly json: "array" | "lines";
  readonly object: (row: T) => object;
};

/** State: whether it has begun and ended. */
export class Output<T> {
  readonly #terminal: Terminal;
  readonly #sheet: Sheet<T>;
  readonly #format: Format;
  #rows = 0;
  #isOpen = false;
  #isOver = false;

  constructor(terminal: Terminal, sheet: Sheet<T>, format: Format) {
    this.#terminal = terminal;
    this.#sheet = sheet;
    this.#format = format;
  }

  /** Answers when the rows have left this process. */
  async write(rows: readonly T[]): Promise<void> {
    if (this.#isOver) return;
    this.#open();
    if (rows.length === 0) return;
    this.#terminal.out(this.#text(rows));
    this.#rows += rows.length;
    const lost = await flushed();
    if (lost !== null) throw failed("cannot write to stdout", "is the disk full?");
  }

  /** Closes what was opened. Nothing is written after it, whoever is still at work. */
  end(): void {
    if (this.#isOpen && !this.#isOver && this.#isArray) this.#terminal.out("]\n");
    this.#isOver = true;
  }

  get #isArray(): boolean {
    return this.#format === "json" && this.#sheet.json === "array";
  }

  #open(): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    if (this.#isArray) this.#terminal.out("[");
    if (this.#format === "csv") this.#terminal.out(csvLine(this.#sheet.columns));
  }

  #text(rows: readonly T[]): string {
    const { columns, cells, json, object } = this.#sheet;
    const isFirst = this.#rows === 0;
    if (this.#format === "json") {
      const objects = rows.map((row) => JSON.stringify(object(row)));
      if (json === "lines") return `${objects.join("\n")}\n`;
      return `${isFirst ? "" : ","}${objects.join(",")}`;
    }
    const texts = rows.map(cells);
    const { isStdoutTerminal } = this.#terminal;
    if (this.#format === "csv") {
      const shown = (cell: string | null) => cell && (isStdoutTerminal ? printable(cell) : cell);
      return texts.map((row) => csvLine(row.map(shown))).join("");
    }
    const header = columns.map((column) => column.replaceAll("_", " ").toUpperCase());
    const filled = texts.map((row) => row.map((cell) => cell ?? ""));
    return table(header, filled, isFirst && isStdoutTerminal);
  }
}
