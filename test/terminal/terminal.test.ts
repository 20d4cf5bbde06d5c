import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Progress, plural, printable, type Terminal, table } from "../../src/terminal/terminal.ts";

describe("printable text", () => {
  test("leaves alone what every script of the world needs", () => {
    const texts = [
      "",
      "no CONTROL characters ~!@#$%^&*()\\\"'`",
      "ÄÖÜ ß é e\u0301",
      "логин 登录 ログイン",
      "תשלום دفع",
      "👩‍👩‍👧‍👦 🤖 \u{10ffff}",
      "a\u00a0b\u2003c\u200bd",
    ];
    for (const text of texts) expect(printable(text)).toBe(text);
  });

  test("spells out every control character, C0 and C1", () => {
    const controls = [...Array(0x20).keys(), ...Array.from({ length: 0x21 }, (_, i) => 0x7f + i)];
    for (const code of controls) {
      const escaped = `\\u${code.toString(16).padStart(4, "0")}`;
      expect(printable(`a${String.fromCharCode(code)}b`)).toBe(`a${escaped}b`);
    }
  });

  test("disarms escape sequences", () => {
    expect(printable("\u001b[2J\u001b]0;title\u0007")).toBe("\\u001b[2J\\u001b]0;title\\u0007");
    expect(printable("\u009b31mred")).toBe("\\u009b31mred");
    expect(printable("one\r\ntwo\tthree\u0008\u007f")).toBe(
      "one\\u000d\\u000atwo\\u0009three\\u0008\\u007f",
    );
  });

  test("spells out what would turn the direction of text, or break a line", () => {
    for (const character of "\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e") {
      expect(printable(character)).toMatch(/^\\u20[02][0-9a-f]$/);
    }
    for (const character of "\u2066\u2067\u2068\u2069") {
      expect(printable(character)).toMatch(/^\\u206[6-9]$/);
    }
    expect(printable("user\u202egnp.exe")).toBe("user\\u202egnp.exe");
  });

  // The one bidirectional control outside the block of the others.
  test("spells out the Arabic letter mark", () => {
    expect(printable("\u061c")).toBe("\\u061c");
  });

  test("holds no control character, whatever it is made of, and is safe to print again", () => {
    const text = fc.string({ unit: fc.oneof(fc.constantFrom("\u001b", "\u202e"), unit()) });
    fc.assert(
      fc.property(text, (sent) => {
        const printed = printable(sent);
        expect(printed).not.toMatch(/\p{Cc}|[\u202a-\u202e\u2066-\u2069]/u);
        expect(printable(printed)).toBe(printed);
      }),
      { numRuns: 500 },
    );
  });
});

const unit = () => fc.string({ unit: "binary", minLength: 1, maxLength: 1 });

describe("a table", () => {
  const header = ["id", "name", "state"];
  const rows = [
    ["1", "a", "open"],
    ["2", "a longer name", ""],
    ["100", "", "x"],
  ];

  test("aligns its columns", () => {
    expect(table(header, rows, true)).toBe(
      [
        "id   name           state",
        "1    a              open",
        "2    a longer name",
        "100                 x",
        "",
      ].join("\n"),
    );
  });

  test("has no header where a program reads, and no room for one", () => {
    expect(table(header, [["1", "a", "open"]], false)).toBe("1  a  open\n");
    expect(table(header, [["1", "a", "open"]], true)).toBe("id  name  state\n1   a     open\n");
  });

  test("may be empty", () => {
    expect(table(header, [], false)).toBe("");
    expect(table(header, [], true)).toBe("id  name  state\n");
  });

  test("ends no line in spaces", () => {
    expect(table(["a", "b"], [["x", ""]], true)).toBe("a  b\nx\n");
    expect(table(["a"], [["x"], ["longer"]], true)).toBe("a\nx\nlonger\n");
  });

  test("keeps a row on its line, whatever a cell holds", () => {
    const cell = fc.string({ unit: unit(), maxLength: 10 });
    const row = fc.tuple(cell, cell, cell);
    fc.assert(
      fc.property(fc.array(row, { maxLength: 6 }), (rows) => {
        const printed = table(header, rows, true);
        expect(printed.split("\n")).toHaveLength(rows.length + 2);
        expect(printed.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
      }),
    );
    expect(table(["a", "b"], [["x\ny", "\u001b[31m"]], false)).toBe("x\\u000ay  \\u001b[31m\n");
  });

  test("aligns by what is printed, not by what was sent", () => {
    const lines = table(
      ["a", "b"],
      [
        ["\u001b", "@"],
        ["xxxxxxxx", "@"],
      ],
      false,
    ).split("\n");
    expect(lines[0]?.indexOf("@")).toBe(lines[1]?.indexOf("@"));
  });
});

/** A terminal that keeps what is written to it. */
function recorder(isStderrTerminal: boolean) {
  const written = { out: "", err: "" };
  const terminal: Terminal = {
    out: (text) => {
      written.out += text;
    },
    err: (text) => {
      written.err += text;
    },
    isStdinTerminal: true,
    isStdoutTerminal: true,
    isStderrTerminal,
    lines: async function* () {},
    ask: () => Promise.reject(new Error("nothing may be asked")),
  };
  return { terminal, written };
}

describe("progress", () => {
  test("draws nothing where stderr is no terminal", () => {
    const { terminal, written } = recorder(false);
    const progress = new Progress(terminal, 100);
    for (let done = 0; done <= 100; done++) progress.show(done, "messages");
    progress.clear();
    expect(written).toEqual({ out: "", err: "" });
  });

  test("draws one line on stderr, and takes it away", () => {
    const { terminal, written } = recorder(true);
    const progress = new Progress(terminal, 100);
    progress.show(50, "3 in quarantine");
    expect(written.err).toBe(
      `\r${"█".repeat(15)}${"░".repeat(15)} 50 of 100  3 in quarantine\u001b[K`,
    );
    written.err = "";
    progress.clear();
    expect(written).toEqual({ out: "", err: "\r\u001b[K" });
    written.err = "";
    progress.clear();
    expect(written.err).toBe("");
  });

  test("has nothing to take away where it drew nothing", () => {
    const { terminal, written } = recorder(true);
    new Progress(terminal, 100).clear();
    expect(written.err).toBe("");
  });

  test.each([
    [0, 0, 0],
    [0, 100, 0],
    [1, 100, 0],
    [99, 100, 29],
    [100, 100, 30],
    [7, 0, 30],
    [150, 100, 30],
  ])("fills its bar in proportion: %d of %d", (done, total, filled) => {
    const { terminal, written } = recorder(true);
    new Progress(terminal, total).show(done, "");
    expect(written.err.split("█").length - 1).toBe(filled);
    expect(written.err.split("░").length - 1).toBe(30 - filled);
    expect(written.err).toContain(` ${done} of ${Math.max(done, total)} `);
  });
});

test("one is one, and all else is many", () => {
  const said = [0, 1, 2].map((n) => plural(n, "body", "bodies"));
  expect([...said, plural(1, "day")]).toEqual(["0 bodies", "1 body", "2 bodies", "1 day"]);
});
