// An answer is whole in its form wherever it ends.
import { expect, test } from "bun:test";
import { type Format, Output, type Sheet } from "../../src/terminal/output.ts";
import type { Terminal } from "../../src/terminal/terminal.ts";

type Row = { readonly a: string; readonly b: string | null };

const sheet = (json: Sheet<Row>["json"]): Sheet<Row> => ({
  columns: ["a", "b_c"],
  cells: ({ a, b }) => [a, b],
  json,
  object: (row) => row,
});

function writing(format: Format, json: Sheet<Row>["json"] = "array", isStdoutTerminal = false) {
  let text = "";
  const out = (more: string) => {
    text += more;
  };
  const terminal = { out, err: () => {}, isStdoutTerminal } as unknown as Terminal;
  return { output: new Output(terminal, sheet(json), format), text: () => text };
}

const rows = [
  { a: "1", b: null },
  { a: "222", b: "\u001b[31mred" },
];

test("an array is closed once, after any number of pages, and nothing follows it", async () => {
  for (const pages of [[], [[]], [rows], [[rows[0]!], [], [rows[1]!]]] as Row[][][]) {
    const { output, text } = writing("json");
    for (const page of pages) await output.write(page);
    output.end();
    output.end();
    await output.write(rows);
    // Nothing was asked for, nothing is printed: not even an empty array.
    if (pages.length === 0) expect(text()).toBe("");
    else expect(JSON.parse(text())).toEqual(pages.flat());
    expect(text().split("\n")).toHaveLength(pages.length === 0 ? 1 : 2);
  }
});

test("lines of JSON are whole after each page", async () => {
  const { output, text } = writing("json", "lines");
  await output.write([rows[0]!]);
  expect(text()).toBe('{"a":"1","b":null}\n');
  await output.write([rows[1]!]);
  output.end();
  expect(
    text()
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line)),
  ).toEqual(rows);
});

test("CSV and a table on a terminal have their header once, and no control characters there", async () => {
  for (const [format, header] of [
    ["csv", "a,b_c\n"],
    ["table", /^A +B C\n/],
  ] as const) {
    const { output, text } = writing(format, "array", true);
    await output.write([rows[0]!]);
    await output.write([rows[1]!]);
    if (typeof header === "string") expect(text()).toStartWith(header);
    else expect(text()).toMatch(header);
    expect(text().trimEnd().split("\n")).toHaveLength(3);
    expect(text()).toContain("\\u001b[31mred");
  }
  const { output, text } = writing("csv");
  await output.write(rows);
  expect(text()).toContain("222,\u001b[31mred\n");
});
