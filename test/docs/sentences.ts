// Text → its sentences that are too long to be read once.
import { withoutBlocks } from "./pages.ts";

/** Text that belongs together, by the line on which each part of it stands. */
type Run = readonly { readonly line: number; readonly text: string }[];

export type LongSentence = {
  readonly line: number;
  readonly words: number;
  readonly beginning: string;
};

const MOST_WORDS = 30;

/** A sentence ends with one of these before white space. */
const END = /[.!?:]$/;

export function longSentences(run: Run): readonly LongSentence[] {
  const long: LongSentence[] = [];
  let words: string[] = [];
  let begins = 0;
  const end = () => {
    if (words.length > MOST_WORDS) {
      const beginning = words.slice(0, 8).join(" ");
      long.push({ line: begins, words: words.length, beginning });
    }
    words = [];
  };
  for (const { line, text } of run) {
    for (const word of text.split(/\s+/).filter((part) => part !== "")) {
      if (words.length === 0) begins = line;
      words.push(word);
      if (END.test(word)) end();
    }
  }
  end();
  return long;
}

/**
 * A page's prose as one run, without blocks, tables, headings and quotations; and each cell of a table as one
 * of its own.
 */
export function proseOf(page: string): readonly Run[] {
  const lines = withoutBlocks(page)
    .split("\n")
    .map((text, i) => ({ line: i + 1, text }));
  const cells = lines
    .filter(({ text }) => text.startsWith("|"))
    .flatMap(({ line, text }) => text.split("|").map((cell) => [{ line, text: cell }]));
  return [lines.filter(({ text }) => !/^( {4}|\||#|>)/.test(text)), ...cells];
}

/** Each comment of a source as one run; a blank line in it begins another. */
export function commentsOf(source: string, language: "ts" | "sql"): readonly Run[] {
  const runs: { line: number; text: string }[][] = [];
  let isOpen = false;
  let isBlock = false;
  const add = (line: number, text: string) => {
    // Four spaces in a comment are an example, as in a page.
    if (text.trim() === "" || /^ {4}/.test(text)) isOpen = false;
    else if (isOpen) runs.at(-1)!.push({ line, text });
    else {
      runs.push([{ line, text }]);
      isOpen = true;
    }
  };
  for (const [i, text] of source.split("\n").entries()) {
    const line = i + 1;
    if (language === "ts" && (isBlock || /^\s*\/\*/.test(text))) {
      isBlock = !text.includes("*/");
      add(line, text.replace(/^\s*(\/\*\*?|\*(?!\/)) ?/, "").replace(/\s*\*\/.*$/, ""));
      if (!isBlock) isOpen = false;
      continue;
    }
    const mark = language === "ts" ? "//" : "--";
    const own = new RegExp(`^\\s*${mark} ?(.*)$`).exec(text)?.[1];
    if (own !== undefined) {
      add(line, own);
      continue;
    }
    isOpen = false;
    const code = text.replaceAll(/(["'`])(?:\\.|(?!\1).)*\1/g, "");
    const trailing = new RegExp(`\\s${mark} (.*)$`).exec(code)?.[1];
    if (trailing !== undefined) {
      add(line, trailing);
      isOpen = false;
    }
  }
  return runs;
}
