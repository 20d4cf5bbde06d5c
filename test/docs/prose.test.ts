// The words: no sentence that needs a second reading, in pages and in comments.
import { expect, test } from "bun:test";
import { DOCS, filesBelow, PAGES, README, read } from "./pages.ts";
import { commentsOf, longSentences, proseOf } from "./sentences.ts";

const tooLong = (path: string, runs: ReturnType<typeof proseOf>): readonly string[] =>
  runs
    .flatMap((run) => longSentences(run))
    .map(({ line, words, beginning }) => `${path}:${line}: ${words} words: ${beginning} …`);

test("no sentence of a page has more than 30 words", () => {
  expect(PAGES.flatMap(({ path, text }) => tooLong(path, proseOf(text)))).toEqual([]);
});

test("no sentence of a comment has more than 30 words", () => {
  const sources = ["src", "sql", "vault"].flatMap((folder) => [
    ...filesBelow(folder, ".ts"),
    ...filesBelow(folder, ".sql"),
  ]);
  expect(sources.length).toBeGreaterThan(50);
  const long = sources.flatMap((path) =>
    tooLong(path, commentsOf(read(path), path.endsWith(".sql") ? "sql" : "ts")),
  );
  expect(long).toEqual([]);
});

test("the front page has 2,000 words at most", () => {
  expect(README.text.split(/\s+/).length).toBeLessThanOrEqual(2000);
});

test("each page says first whom it is for", () => {
  for (const { path, text } of DOCS) {
    const [heading, opening] = text.split("\n\n");
    expect({ path, heading }).toEqual({ path, heading: expect.stringMatching(/^# .+$/) });
    expect({ path, opening }).toEqual({ path, opening: expect.stringMatching(/^For /) });
  }
});

test("the page of the architecture is one screen", () => {
  const { text } = DOCS.find(({ path }) => path === "docs/architecture.md")!;
  expect(text.split("\n").length).toBeLessThanOrEqual(65);
});

const sentence = (words: number) => `${"word ".repeat(words - 1)}word.`;

test("a sentence is found in whatever it stands", () => {
  const found = (runs: ReturnType<typeof proseOf>) =>
    runs.flatMap(longSentences).map(({ line }) => line);
  expect(found(proseOf(`# Title\n\n${sentence(30)}\n`))).toEqual([]);
  expect(found(proseOf(`Short.\n${sentence(31)}\n`))).toEqual([2]);
  expect(found(proseOf(`- ${sentence(20).slice(0, -1)}\n- ${sentence(20)}\n`))).toEqual([1]);
  expect(found(proseOf(`| a | ${sentence(31)} |\n`))).toEqual([1]);
  expect(found(proseOf(`\`\`\`\n${sentence(31)}\n\`\`\`\n    ${sentence(31)}\n`))).toEqual([]);
  const half = sentence(16).slice(0, -1);
  expect(found(commentsOf(`// ${half}\n// ${half}.\n`, "ts"))).toEqual([1]);
  expect(found(commentsOf(`// ${half}\n//\n// ${half}.\n`, "ts"))).toEqual([]);
  expect(found(commentsOf(`// ${half}\ncall();\n// ${half}.\n`, "ts"))).toEqual([]);
  expect(found(commentsOf(`/** ${sentence(31)} */\n`, "ts"))).toEqual([1]);
  expect(found(commentsOf(`/**\n * ${half}\n * ${half}.\n */\n`, "ts"))).toEqual([2]);
  expect(found(commentsOf(`call(); // ${sentence(31)}\n`, "ts"))).toEqual([1]);
  expect(found(commentsOf(`call("// ${sentence(31)}");\n`, "ts"))).toEqual([]);
  expect(found(commentsOf(`select 1; -- ${half}\n  -- ${sentence(31)}\n`, "sql"))).toEqual([2]);
});
