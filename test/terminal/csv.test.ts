// What others wrote stays a cell, and stays text: for a parser of RFC 4180, and for a spreadsheet.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { csvLine, restored } from "../../src/terminal/csv.ts";

/** RFC 4180, section 2, with \n for the end of a record. */
function parse(text: string): string[][] {
  const records: string[][] = [];
  let record: string[] = [];
  let at = 0;
  while (at < text.length) {
    let cell = "";
    if (text[at] === '"') {
      for (at++; text[at] !== '"' || text[at + 1] === '"'; at++) {
        if (at >= text.length) throw new Error("a quote is not closed");
        if (text[at] === '"') at++;
        cell += text[at];
      }
      at++;
    } else {
      while (at < text.length && text[at] !== "," && text[at] !== "\n") {
        if (text[at] === '"') throw new Error("a quote in a cell without quotes");
        cell += text[at++];
      }
    }
    record.push(cell);
    if (text[at] !== "," && text[at] !== "\n") throw new Error("text after a closing quote");
    if (text[at++] === "\n") {
      records.push(record);
      record = [];
    }
  }
  return records;
}

const STARTS = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"];
const BEFORE = [
  "",
  " ",
  "  ",
  "\u00a0",
  "\u3000",
  "\ufeff",
  "\u200b",
  "\u0000",
  '"',
  "'",
  "'\"",
  " '",
];

/** What a spreadsheet would see first: without what it skips or strips. */
const isDangerous = (cell: string): boolean => {
  const skipped = BEFORE.join("").replaceAll("'", "");
  const shown = [...cell].slice([...cell].findIndex((unit) => !skipped.includes(unit)));
  return STARTS.includes(shown[0] ?? "") || ["\t", "\r", "\n"].includes(cell[0] ?? "");
};

const cell = fc.oneof(
  fc.string({ unit: "binary" }),
  fc
    .tuple(fc.constantFrom(...BEFORE), fc.constantFrom(...STARTS), fc.string({ unit: "grapheme" }))
    .map((parts) => parts.join("")),
  fc.string({ unit: fc.constantFrom(...STARTS, ...BEFORE.filter(Boolean), ",", ";", "a", "1") }),
);

describe("a line of CSV", () => {
  test("parses back to its cells, whatever is in them, and each can be restored", () => {
    fc.assert(
      fc.property(fc.array(fc.array(cell, { minLength: 1 }), { minLength: 1 }), (records) => {
        // A record of one empty cell is an empty line: no command prints one.
        fc.pre(records.every((record) => record.length > 1 || record[0] !== ""));
        const parsed = parse(records.map(csvLine).join(""));
        expect(parsed.map((record) => record.map(restored))).toEqual(records);
      }),
      { numRuns: 2000 },
    );
  });

  test("has no cell that a spreadsheet takes for a formula", () => {
    fc.assert(
      fc.property(cell, (text) => {
        const [[parsed = ""] = []] = parse(csvLine([text, "x"]));
        expect(isDangerous(parsed)).toBe(false);
      }),
      { numRuns: 5000 },
    );
    for (const before of BEFORE) {
      for (const start of STARTS) {
        const text = `${before}${start}HYPERLINK("http://x")`;
        const [[parsed] = []] = parse(csvLine([text, "x"]));
        expect(parsed).toBe(`'${text}`);
      }
    }
  });

  test("leaves our own words, numbers, days, addresses and tokens as they are", () => {
    const cells = [
      "2.3.0",
      "2026-11-21",
      "192.0.2.7",
      "::1",
      "ip1_aaaa",
      "verified",
      "Ωmega 📱",
      "it's",
    ];
    expect(csvLine(cells)).toBe(`${cells.join(",")}\n`);
    expect(csvLine(["a", null, "", "b"])).toBe("a,,,b\n");
  });

  test("quotes what would end a cell, and doubles quotes", () => {
    expect(csvLine(["a,b", 'say "hi"', "two\nlines", " x "])).toBe(
      '"a,b","say ""hi""","two\nlines"," x "\n',
    );
  });
});
