// Figures as text, in columns.
import type { Spread } from "./spread.ts";

/** As wide as the widest cell; the first column to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
      )
      .join("  "),
  );
}

export const list = (values: object): string =>
  Object.entries(values)
    .map(([name, value]) => `${name} ${value ?? "unknown"}`)
    .join(", ");

export const number = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

export const count = (value: number): string => number(value, 0);

export const spread = ({ median, min, max }: Spread, digits: number): string =>
  `${number(median, digits)} (${number(min, digits)}–${number(max, digits)})`;

/** With no space at the end of a line, and one line break at the end of all. */
export const text = (lines: readonly string[]): string =>
  `${lines
    .map((line) => line.trimEnd())
    .join("\n")
    .trimEnd()}\n`;
