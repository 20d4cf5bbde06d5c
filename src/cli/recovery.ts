// `veil reveal`, `token` and `duplicates`: from tokens to logins and originals.
import { Argument, type Command, Option } from "@commander-js/extra-typings";
import { misuse } from "../failure.ts";
import {
  day,
  examples,
  type MakeContext,
  purposeWord,
  REASON,
  requestIds,
  userId,
  wholeNumber,
} from "./options.ts";

export function addRecovery(program: Command, context: MakeContext): void {
  addReveal(program, context);

  program
    .command("token")
    .description("print the tokens of known values, read from a prompt or stdin, one a line")
    .addArgument(
      new Argument("<field>", "which field's values").choices(["ip", "device_id"] as const),
    )
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("token ip", "token device_id < device-ids.txt"))
    .action(async (field, options) => {
      const { runToken } = await import("../commands/token.ts");
      await runToken(await context(), field, options.json);
    });

  program
    .command("duplicates")
    .description("print the tokens that several users share; needs the analyst's role")
    .option("--top <n>", "how many", wholeNumber, 20)
    .addOption(new Option("--field <field>", "of one field").choices(["ip", "device_id"] as const))
    .option("--json", "print an array of objects", false)
    .addOption(new Option("--csv", "print comma-separated values").default(false).conflicts("json"))
    .addHelpText("after", examples("duplicates", "duplicates --field device_id --top 100 --csv"))
    .action(async (options) => {
      const { runDuplicates } = await import("../commands/duplicates.ts");
      await runDuplicates(await context(), {
        top: options.top,
        field: options.field ?? null,
        format: formatOf(options),
      });
    });
}

const DETAILS = `
With tokens, prints their originals. With --user, --since, --until, --values or --tokens, which narrow each other
down, prints logins with the originals beside their tokens; the login to the database then needs the role
veil_analyst, too. Everything that is asked for is on record before the first original appears.

A token opens to the earliest original that is left of it. A login shows the originals of its own period.

--json prints one array for tokens, and for logins an object a line. --csv leaves spreadsheets nothing to run: an
apostrophe stands before what they would take for a formula.

A token without an original is named, or among logins counted, on stderr, and the exit code is 1; a token of
generation 0 stands for nothing, and is no failure among logins.

A request that needs approval prints no original (with --json, an empty array), and the exit code is 1; stderr has
the commands that approve it and come back to it. --wait waits instead.
`;

function addReveal(program: Command, context: MakeContext): void {
  const governing = ["reason", "purpose", "breakGlass"];
  program
    .command("reveal")
    .description("print the originals of tokens, or logins with theirs, each request on record")
    .argument("[token...]", "tokens, or - to read them from stdin, one a line")
    .option("--user <id>", "the logins of this user", userId)
    .option("--since <day>", "logins of this day and later, as YYYY-MM-DD", day)
    .option("--until <day>", "logins of this day and earlier", day)
    .addOption(
      new Option("--values <field>", "logins with one of the values on stdin; needs the token key")
        .choices(["ip", "device_id"] as const)
        .conflicts("tokens"),
    )
    .option("--tokens <file>", "logins with one of this file's tokens, one a line; - is stdin")
    .option(...REASON)
    .option("--purpose <word>", "what for, where the policy lists purposes", purposeWord)
    .addOption(
      new Option("--break-glass", "without the approval that it needs; it is reviewed afterwards")
        .default(false)
        .conflicts("wait"),
    )
    .option("--wait", "wait until somebody has approved", false)
    .addOption(
      new Option("--request <id>", "a request of before, once approved; may be repeated")
        .argParser(requestIds)
        .default([] as readonly string[], "none")
        .conflicts(governing),
    )
    .option("--json", "print JSON", false)
    .addOption(new Option("--csv", "print comma-separated values").default(false).conflicts("json"))
    .addHelpText(
      "after",
      examples(
        "reveal ip1_… --reason 'case 4711'",
        "reveal - --json < tokens.txt",
        "reveal --user 424cdd21-063a-43a7-b91b-7ca1a833afae --since 2026-01-01 --csv",
        "reveal --values ip < addresses.txt",
      ) + DETAILS,
    )
    .action((tokens, options) => reveal(context, tokens, options));
}

type RevealFlags = {
  readonly user?: string | undefined;
  readonly since?: string | undefined;
  readonly until?: string | undefined;
  readonly values?: "ip" | "device_id" | undefined;
  readonly tokens?: string | undefined;
  readonly reason?: string | undefined;
  readonly purpose?: string | undefined;
  readonly breakGlass: boolean;
  readonly wait: boolean;
  readonly request: readonly string[];
  readonly json: boolean;
  readonly csv: boolean;
};

async function reveal(
  context: MakeContext,
  tokens: readonly string[],
  flags: RevealFlags,
): Promise<void> {
  const { user = null, since = null, until = null, values = null } = flags;
  const search = { user, since, until, values, tokens: flags.tokens ?? null };
  const isSearch = Object.values(search).some((value) => value !== null);
  if (tokens.length === 0 && !isSearch && flags.request.length === 0) {
    throw misuse(
      "missing required argument: tokens, or which logins to reveal",
      "--help shows how it is used",
    );
  }
  if (tokens.length > 0 && (isSearch || flags.request.length > 0)) {
    throw misuse(
      "tokens stand alone, without a request or a search for logins",
      "--tokens FILE finds the logins with certain tokens; --help shows how it is used",
    );
  }
  if (since !== null && until !== null && since > until) {
    throw misuse("--since is after --until", "both days are included");
  }
  const format = formatOf(flags);
  const searched = Object.entries(search).flatMap(([name, value]) =>
    value === null ? [] : [`--${name}`, value],
  );
  const options = {
    again: [...searched, ...(format === "table" ? [] : [`--${format}`])],
    reason: flags.reason ?? null,
    purpose: flags.purpose ?? null,
    breakGlass: flags.breakGlass,
    wait: flags.wait,
    requests: flags.request,
    format,
  };
  if (isSearch) {
    const { runJoin } = await import("../commands/join.ts");
    await runJoin(await context(), { ...options, search });
  } else {
    const { runReveal } = await import("../commands/reveal.ts");
    await runReveal(await context(), tokens, options);
  }
}

const formatOf = ({ json, csv }: { readonly json: boolean; readonly csv: boolean }) =>
  json ? ("json" as const) : csv ? ("csv" as const) : ("table" as const);
