// The pages that people read, and what the tests of this folder need of them: blocks, prose, code spans.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export const read = (path: string): string => readFileSync(join(checkout, path), "utf8");

/** Files below a folder that end in this, as paths from the checkout. */
export const filesBelow = (folder: string, ending: string): readonly string[] =>
  readdirSync(join(checkout, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ending) && !file.includes("node_modules"))
    .map((file) => join(folder, file))
    .sort();

export type Page = { readonly path: string; readonly text: string };

const page = (path: string): Page => ({ path, text: read(path) });

export const README = page("README.md");

export const DOCS: readonly Page[] = filesBelow("docs", ".md").map(page);

/** All that is held to the rules of prose. */
export const PAGES: readonly Page[] = [
  README,
  ...DOCS,
  ...["SECURITY.md", "CHANGELOG.md", "deploy/README.md"].map(page),
];

/** Of tests and measurements: links and paths hold here too. */
export const OTHER_PAGES: readonly Page[] = [
  "bench/README.md",
  "test/faults/README.md",
  "test/sql/dumps/README.md",
  "test/vectors/README.md",
].map(page);

export type Block = {
  readonly language: string;
  /** Behind the language: why the block is not run; empty where it is. */
  readonly note: string;
  readonly text: string;
  readonly line: number;
};

export const blocksOf = ({ text }: Page): readonly Block[] =>
  [...text.matchAll(/^```(\w*) ?(.*)\n([\s\S]*?)^```$/gm)].map((match) => ({
    language: match[1]!,
    note: match[2]!,
    text: match[3]!,
    line: text.slice(0, match.index).split("\n").length,
  }));

/** The text without its fenced blocks, line by line as it was. */
export const withoutBlocks = (text: string): string =>
  text.replaceAll(/^```[\s\S]*?^```$/gm, (block) => block.replaceAll(/[^\n]/g, ""));

export type CodeSpan = { readonly text: string; readonly line: number };

export const codeSpansOf = ({ text }: Page): readonly CodeSpan[] =>
  withoutBlocks(text)
    .split("\n")
    .flatMap((line, i) =>
      line.startsWith("    ")
        ? []
        : [...line.matchAll(/`([^`]+)`/g)].map((match) => ({ text: match[1]!, line: i + 1 })),
    );
