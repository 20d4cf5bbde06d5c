// Comma-separated values, quoted as RFC 4180 says, with nothing in them that a spreadsheet would
// run. Whoever logs in chooses the device id, and an investigator opens it in Excel.

/**
 * Characters that spreadsheets take for the beginning of a formula, in any of their widths. Before
 * them, spreadsheets skip white space and characters that do not show, and some strip quotes of all
 * kinds on import.
 */
const DANGEROUS = /^[\s\p{Z}\p{C}"'`´‘-‟＂＇]*[=+\-@\t\r\n＝＋－＠﹢﹣﹦﹫−]/u;

/** A leading apostrophe tells a spreadsheet that text follows; `restored` takes it off again. */
const neutral = (cell: string): string => (DANGEROUS.test(cell) ? `'${cell}` : cell);

/** The text of a cell as it was before it was made harmless. */
export const restored = (cell: string): string =>
  cell.startsWith("'") && DANGEROUS.test(cell.slice(1)) ? cell.slice(1) : cell;

function quoted(cell: string): string {
  const harmless = neutral(cell);
  return /[",;\t\r\n]|^\s|\s$/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

/** One record with its end; null is an empty cell. */
export const csvLine = (cells: readonly (string | null)[]): string =>
  `${cells.map((cell) => (cell === null ? "" : quoted(cell))).join(",")}\n`;
