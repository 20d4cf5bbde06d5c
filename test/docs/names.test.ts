// Pages name things that there are: commands, options, scripts, variables, roles, files, and messages. And
// what a reader needs to know of, they name.
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { Command } from "@commander-js/extra-typings";
import packageJson from "../../package.json" with { type: "json" };
import { addCommands } from "../../src/cli/commands.ts";
import { ROLES } from "../support/database.ts";
import {
  blocksOf,
  checkout,
  codeSpansOf,
  DOCS,
  filesBelow,
  OTHER_PAGES,
  PAGES,
  type Page,
  README,
  read,
  withoutBlocks,
} from "./pages.ts";

const ALL = [...PAGES, ...OTHER_PAGES];

/** Of the command line: what is needed of its commands here. */
type Described = {
  readonly commands: readonly Described[];
  readonly options: readonly { readonly long?: string | undefined }[];
  name(): string;
};

const program = new Command("veil");
addCommands(program, () => {
  throw new Error("no command is run here");
});

/** `quarantine show`, for one. The worker's is left out: its parent starts it. */
const commandNames = ({ commands }: Described): readonly string[] =>
  commands
    .filter((command) => !command.name().includes("worker"))
    .flatMap((command) => [
      command.name(),
      ...commandNames(command).map((name) => `${command.name()} ${name}`),
    ]);

describe("the pages name", () => {
  test("every command, on a line of the front page with its family", () => {
    const names = commandNames(program);
    expect(names.length).toBeGreaterThan(30);
    const isNamed = (name: string) => {
      const words = name.split(" ").map((word) => new RegExp(`\\b${word}\\b`));
      return README.text
        .split("\n")
        .some((line) => line.includes("veil ") && words.every((word) => word.test(line)));
    };
    expect(names.filter((name) => !isNamed(name))).toEqual([]);
  });

  test("every variable", () => {
    const sources = filesBelow("src/config", ".ts").map(read).join("\n");
    const variables = [...new Set(sources.match(/\bVEIL_[A-Z_]*[A-Z]\b/g))];
    expect(variables.length).toBeGreaterThan(4);
    const { text } = DOCS.find(({ path }) => path === "docs/configuration.md")!;
    const isNamed = (name: string) => text.includes(name.replace(/_FILE$/, ""));
    expect(variables.filter((name) => !isNamed(name))).toEqual([]);
  });

  test("every role, on its own page and on the front page", () => {
    const { text } = DOCS.find(({ path }) => path === "docs/roles.md")!;
    const roles = ROLES.map((role) => `veil_${role}`);
    expect(roles.filter((role) => !text.includes(`\`${role}\``))).toEqual([]);
    expect(roles.filter((role) => !README.text.includes(`\`${role}\``))).toEqual([]);
  });
});

/** A heading as the anchor that GitHub makes of it. */
const anchor = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");

const anchorsOf = (text: string): readonly string[] =>
  [...withoutBlocks(text).matchAll(/^#+ (.+)$/gm)].map((match) => anchor(match[1]!));

describe("there is", () => {
  test("each file and heading that a page links to", () => {
    const broken = ALL.flatMap(({ path, text }) =>
      [...withoutBlocks(text).matchAll(/\]\(([^)]+)\)/g)]
        .map((match) => match[1]!)
        .filter((target) => !/^https?:/.test(target))
        .filter((target) => {
          const [file = "", heading] = target.split("#");
          const to = file === "" ? path : join(dirname(path), file);
          if (!existsSync(join(checkout, to))) return true;
          return heading !== undefined && !anchorsOf(read(to)).includes(heading);
        })
        .map((target) => `${path}: ${target}`),
    );
    expect(broken).toEqual([]);
  });

  test("each path that a page, a message or a comment names", () => {
    const PATH = /^(?:src|vault|sql|test|bench|deploy|docs|scripts|\.ci)\/[\w./-]*$/;
    const inPages = ALL.flatMap((page) => [
      ...codeSpansOf(page).map(({ text, line }) => ({ path: text, at: `${page.path}:${line}` })),
      // The picture of the folders: a path a line.
      ...[...page.text.matchAll(/^ {4}([\w./-]+\/[\w./-]*) {2}/gm)].map((match) => ({
        path: match[1]!,
        at: page.path,
      })),
    ]).filter(({ path }) => PATH.test(path));
    const inSources = ["src", "sql", "vault", "test", "deploy"].flatMap((folder) =>
      [".ts", ".sql", ".service"].flatMap((ending) =>
        filesBelow(folder, ending).flatMap((file) =>
          [...read(file).matchAll(/\b(?:docs|deploy|bench)\/[\w-]+\.md\b/g)].map(([path]) => ({
            path,
            at: file,
          })),
        ),
      ),
    );
    expect(inPages.length).toBeGreaterThan(20);
    expect(inSources.length).toBeGreaterThan(5);
    const missing = [...inPages, ...inSources].filter(
      ({ path }) => !existsSync(join(checkout, path)),
    );
    expect(missing.map(({ path, at }) => `${at}: ${path}`)).toEqual([]);
  });

  test("each command, option and script that a page shows", () => {
    const shown = ALL.flatMap((page) => commandLinesOf(page));
    expect(shown.length).toBeGreaterThan(100);
    expect(
      shown.flatMap(({ at, line }) => whatIsWrong(line).map((what) => `${at}: ${what}`)),
    ).toEqual([]);
  });
});

type Shown = { readonly at: string; readonly line: string };

const COMMAND = /^(?:veil|(?:npx )?bun run) [a-z]/;

/** The command lines of blocks, examples and code spans; of pipes and lists, each part. */
function commandLinesOf(page: Page): readonly Shown[] {
  const inBlocks = blocksOf(page).flatMap(({ text, line }) =>
    text.split("\n").map((part, i) => ({ text: part, line: line + 1 + i })),
  );
  const examples = page.text.split("\n").map((text, i) => ({ text, line: i + 1 }));
  return [
    ...inBlocks,
    ...examples.filter(({ text }) => text.startsWith("    ")),
    ...codeSpansOf(page),
  ]
    .flatMap(({ text, line }) =>
      text
        .replace(/#.*$/, "")
        .split(/[|<>]|&&|\$ /)
        .map((part) => ({ at: `${page.path}:${line}`, line: part.trim() })),
    )
    .filter(({ line }) => COMMAND.test(line));
}

const scripts: Readonly<Record<string, string>> = packageJson.scripts;

/** Of one command line as it is shown: what veil or the checkout does not have. */
function whatIsWrong(line: string): readonly string[] {
  const words = line.trim().split(/\s+/);
  if (words[0] === "veil") return whatVeilLacks(words.slice(1));
  const script = words[words.indexOf("run") + 1]!;
  const runs = scripts[script];
  if (runs === undefined) return [`there is no script ${script}`];
  const [, command] = /^bun src\/cli\.ts ?(.*)$/.exec(runs) ?? [];
  if (command === undefined) return [];
  return whatVeilLacks([command, ...words.slice(words.indexOf(script) + 1)].filter(Boolean));
}

function whatVeilLacks(words: readonly string[]): readonly string[] {
  let at: Described = program;
  const rest = [...words];
  while (at.commands.length > 0 && rest.length > 0 && !rest[0]!.startsWith("-")) {
    const name = rest.shift()!;
    const next = at.commands.find((command) => command.name() === name);
    if (next === undefined) return [`veil has no command ${name}`];
    at = next;
  }
  const known = new Set([...at.options.map(({ long }) => long), "--help", "--version"]);
  return rest
    .filter((word) => word.startsWith("--") && word !== "--")
    .map((word) => word.replace(/[=,.;].*$/, ""))
    .filter((option) => !known.has(option))
    .map((option) => `veil ${words.join(" ")}: no option ${option}`);
}

describe("the runbook", () => {
  const page = DOCS.find(({ path }) => path === "docs/operations.md")!;
  const [, runbook = ""] = page.text.split("\n## Runbook\n");
  const messages = [...runbook.matchAll(/^#### `(.+)`$/gm)].map((match) => match[1]!);
  // A message may be put together of several strings, and hold values; those are three dots here.
  const sources = ["src", "sql"].flatMap((folder) =>
    [...filesBelow(folder, ".ts"), ...filesBelow(folder, ".sql")].map((file) =>
      read(file)
        .replaceAll(/["'`]\s*(?:\+|\|\|)\s*["'`]/g, "")
        .replaceAll(/\\(["'`])/g, "$1"),
    ),
  );

  test("quotes messages of the program, word for word", () => {
    expect(messages.length).toBeGreaterThan(30);
    expect(messages.filter((message) => !isSaid(message))).toEqual([]);
    expect(isSaid("the database is not migrated at all")).toBe(false);
  });

  /** Whether its fixed parts stand in one source in this order, with nothing but a value between. */
  function isSaid(message: string): boolean {
    const parts = message.split("…").map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const pattern = new RegExp(parts.join("[^\\n]{0,100}?"));
    return sources.some((source) => pattern.test(source));
  }

  test("says of each message what to do", () => {
    const entries = runbook.split(/^#### /m).slice(1);
    for (const entry of entries) {
      const [heading = "", ...rest] = entry.split("\n");
      const text = rest
        .filter((line) => !line.startsWith("#"))
        .join(" ")
        .trim();
      expect({ heading, words: text.split(" ").length > 3 }).toEqual({ heading, words: true });
    }
  });
});
