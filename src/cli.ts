#!/usr/bin/env bun
// argv → command. The one place that prints errors and exits: `error:` and `hint:` on stderr, 0 for
// done, 1 for failed or refused, 2 for wrong usage or configuration.
import {
  Argument,
  Command,
  CommanderError,
  InvalidArgumentError,
  Option,
} from "@commander-js/extra-typings";
import { Failure } from "./failure.ts";
import { Interrupted } from "./interrupted.ts";
import type { Context } from "./session.ts";
import { flushed, printable, terminal } from "./terminal.ts";
import { describeVersion } from "./version.ts";
import { MOST_WORKERS, WORKER_COMMAND } from "./worker-command.ts";

const interrupt = new AbortController();

/** Each command is imported where it runs, and so is this: a start pays for what it needs, and no more. */
async function context(): Promise<Context> {
  const { environment } = await import("./config.ts");
  return { env: environment(), terminal, interrupt: interrupt.signal };
}

function buildProgram() {
  const program = new Command("veil")
    .description(
      "Login events from SQS to Postgres: personal data tokenized, sealed, recoverable only on record.",
    )
    .version(describeVersion())
    // Commander's own words may repeat a value: `report` says them without.
    .configureOutput({
      outputError: () => {},
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
    })
    .exitOverride();

  program
    .command("etl")
    .description("drain the queue into the database, then print a summary")
    .option("--follow", "keep running and wait for messages", false)
    .option("--max-messages <n>", "receive exactly so many at most", wholeNumber)
    .option("--json", "print the summary as one line of JSON", false)
    .addOption(
      new Option("--log <format>", "how --follow reports without a terminal")
        .choices(["text", "json"] as const)
        .default("text" as const),
    )
    .option("--grace <seconds>", "how long a stop may take", wholeNumber, 25)
    .option("--workers <n>", "processes that share the work, or auto", workerCount, 1)
    .option("--reset-local", "first remove the embedded default's database, queue and keys", false)
    .addHelpText(
      "after",
      examples(
        "etl",
        "etl --follow --log json",
        "etl --max-messages 1000 --json",
        "etl --workers auto",
      ) +
        "\nWith neither QUEUE_URL nor DATABASE_URL set, a checkout runs on its own servers, with samples.",
    )
    .action(async (options) => {
      const { runEtl } = await import("./commands/etl.ts");
      await runEtl(await context(), {
        follow: options.follow,
        maxMessages: options.maxMessages ?? null,
        json: options.json,
        log: options.log,
        resetLocal: options.resetLocal,
        graceSeconds: options.grace,
        workers: options.workers,
      });
    });
  program.command(WORKER_COMMAND, { hidden: true }).action(async () => {
    const { runWorker } = await import("./commands/worker.ts");
    await runWorker(await context());
  });

  program
    .command("reveal")
    .description("print the originals of tokens, each request on record")
    .argument("<token...>", "tokens, or - to read them from stdin, one a line")
    .option("--reason <text>", "why, for the record", reasonText)
    .option("--json", "print an array of objects", false)
    .addHelpText(
      "after",
      examples("reveal ip1_… --reason 'case 4711'", "reveal - --json < tokens.txt"),
    )
    .action(async (tokens, options) => {
      const { runReveal } = await import("./commands/reveal.ts");
      await runReveal(await context(), tokens, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });

  program
    .command("token")
    .description("print the tokens of known values, read from a prompt or stdin, one a line")
    .addArgument(
      new Argument("<field>", "which field's values").choices(["ip", "device_id"] as const),
    )
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("token ip", "token device_id < device-ids.txt"))
    .action(async (field, options) => {
      const { runToken } = await import("./commands/reveal.ts");
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
      const { runDuplicates } = await import("./commands/duplicates.ts");
      await runDuplicates(await context(), {
        top: options.top,
        field: options.field ?? null,
        format: options.json ? "json" : options.csv ? "csv" : "table",
      });
    });

  program
    .command("check")
    .description("verify what must always hold; loads may go on meanwhile")
    .option("--json", "print one object", false)
    .addHelpText("after", examples("check", "check --json"))
    .action(async (options) => {
      const { runCheck } = await import("./commands/check.ts");
      await runCheck(await context(), options.json);
    });

  program
    .command("migrate")
    .description("bring the database to this version's schema; safe to run again")
    .option("--json", "print what was done as JSON", false)
    .addHelpText("after", examples("migrate"))
    .action(async (options) => {
      const { runMigrate } = await import("./commands/setup.ts");
      await runMigrate(await context(), options.json);
    });

  const keys = program.command("keys").description("make keys");
  keys
    .command("generate")
    .description("write token.key, verify.key, identity.txt and recipients.txt")
    .requiredOption("--out <folder>", "where; made with mode 0700 if missing")
    .option("--pq", "a post-quantum identity (ML-KEM-768 with X25519)", false)
    .option("--json", "print the files' paths as JSON", false)
    .addHelpText("after", examples("keys generate --out keys"))
    .action(async (options) => {
      const { runGenerateKeys } = await import("./commands/setup.ts");
      await runGenerateKeys(await context(), options.out, {
        postQuantum: options.pq,
        json: options.json,
      });
    });

  addQuarantine(program.command("quarantine"));
  return program;
}

function addQuarantine(quarantine: Command): void {
  quarantine.description("handle the messages that could not become rows");
  quarantine
    .command("list")
    .description("list them, with reasons; opens nothing")
    .addOption(
      new Option("--state <state>", "which ones")
        .choices(["open", "replayed", "discarded", "all"] as const)
        .default("open" as const),
    )
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("quarantine list", "quarantine list --state all --json"))
    .action(async (options) => {
      const { runList } = await import("./commands/quarantine.ts");
      await runList(await context(), options.state, options.json);
    });
  quarantine
    .command("show")
    .description("print a message's body, on record like a reveal")
    .argument("<message-id>")
    .option("--reason <text>", "why, for the record", reasonText)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("quarantine show 3f1c… --reason 'what does the app send?'"))
    .action(async (id, options) => {
      const { runShow } = await import("./commands/quarantine.ts");
      await runShow(await context(), id, { reason: options.reason ?? null, json: options.json });
    });
  quarantine
    .command("replay")
    .description("read bodies again with today's rules; what is a login now becomes a row")
    .argument("[message-id...]", "which ones; all open ones if none is named")
    .option("--reason <text>", "why, for the record", reasonText)
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("quarantine replay", "quarantine replay 3f1c…"))
    .action(async (ids, options) => {
      const { runReplay } = await import("./commands/quarantine.ts");
      await runReplay(await context(), ids, { reason: options.reason ?? null, json: options.json });
    });
  quarantine
    .command("discard")
    .description("give up messages: their bodies are gone for good")
    .argument("[message-id...]")
    .option("--all", "all open ones", false)
    .option("--reason <text>", "why, for the record", reasonText)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("quarantine discard 3f1c… --reason 'a test message'"))
    .action(async (ids, options) => {
      const { runDiscard } = await import("./commands/quarantine.ts");
      await runDiscard(await context(), ids, options.all, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });
}

const examples = (...commands: string[]): string =>
  `\nExamples:\n${commands.map((command) => `  $ veil ${command}\n`).join("")}`;

function reasonText(text: string): string {
  if ([...text].length > 1000) throw new InvalidArgumentError("expected up to 1000 characters");
  return text;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^[1-9][0-9]*$/.test(text) || !Number.isSafeInteger(value)) {
    throw new InvalidArgumentError("expected a whole number of 1 or more");
  }
  return value;
}

function workerCount(text: string): number | "auto" {
  if (text === "auto" || (/^[1-9][0-9]?$/.test(text) && Number(text) <= MOST_WORKERS)) {
    return text === "auto" ? text : Number(text);
  }
  throw new InvalidArgumentError(`expected a whole number from 1 to ${MOST_WORKERS}, or auto`);
}

/**
 * Wrong usage without what was typed: `veil token ip 192.0.2.1` is a mistake, but no reason to write the
 * address to a log. Message null: the help was shown instead.
 */
function withoutValues(text: string): { message: string | null; hint: string } {
  if (text === "(outputHelp)") return { message: null, hint: "" };
  const suggestion = /\(Did you mean ([^?]+)\?\)/.exec(text)?.[1];
  const message = text
    .replace(/^error: /, "")
    .replace(/\s*\(Did you mean [\s\S]*$/, "")
    .replace(/^unknown command '[\s\S]*'$/, "unknown command")
    .replace(/^(unknown option '--?[\w-]*)[\s\S]*'$/, "$1'")
    .replace(/^(too many arguments)[\s\S]*$/, "$1; values are read from stdin, never from here")
    .replace(/ (argument|value) '[\s\S]*' is invalid/, " $1 is invalid");
  const help = "--help shows how it is used";
  const hint = suggestion === undefined ? help : `did you mean ${suggestion}? ${help}`;
  return { message, hint };
}

/** The exit code of what was thrown, said on stderr. */
function report(error: unknown): number {
  if (error instanceof Interrupted) return 130;
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    const { message, hint } = withoutValues(error.message);
    if (message !== null) terminal.err(`error: ${message}\nhint: ${hint}\n`);
    return 2;
  }
  if (error instanceof Failure) {
    // Printable: a database that is not ours may have worded it.
    terminal.err(`error: ${printable(error.message)}\n`);
    if (error.hint !== null) terminal.err(`hint: ${printable(error.hint)}\n`);
    return error.exitCode;
  }
  // A defect of ours. Its message may quote data; where it happened may be said.
  const { name, message, stack } =
    error instanceof Error ? error : { name: typeof error, message: "", stack: "" };
  const frames = (stack ?? "")
    .replace(message, "")
    .split("\n")
    .filter((line) => /^\s+at /.test(line));
  terminal.err(`error: unexpected ${name}; its message is withheld, it may quote data\n`);
  for (const frame of frames.slice(0, 6)) terminal.err(`${frame}\n`);
  terminal.err("hint: please report this, with the lines above and the version of veil\n");
  return 1;
}

const codeOf = (error: unknown): string =>
  String((error as { code?: unknown } | null)?.code ?? "unknown");

/** What was written is out before the process ends, a pipe included; what could not be is no success. */
async function exit(code: number): Promise<never> {
  const lost = await flushed();
  if (lost === null || codeOf(lost) === "EPIPE" || code !== 0) process.exit(code);
  terminal.err(`error: cannot write to stdout (${codeOf(lost)})\nhint: is the disk full?\n`);
  await flushed();
  process.exit(1);
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // A worker ends when its parent says so: Ctrl-C and a service's stop reach both of them.
    if (process.argv[2] === WORKER_COMMAND) return;
    if (interrupt.signal.aborted) process.exit(130);
    interrupt.abort();
  });
}
// The reader of a pipe may leave early (`| head`): that is no failure of ours. Other errors: see `exit`.
process.stdout.on("error", (error) => {
  if (codeOf(error) === "EPIPE") process.exit(0);
});
process.on("uncaughtException", (error) => void exit(report(error)));
process.on("unhandledRejection", (error) => void exit(report(error)));

try {
  await buildProgram().parseAsync();
  await exit(0);
} catch (error) {
  await exit(report(error));
}
