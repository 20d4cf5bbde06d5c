#!/usr/bin/env bun
// argv → command. The one place that prints errors and exits: `error:` and `hint:` on stderr, 0 for
// done, 1 for failed or refused, 2 for wrong usage or configuration.
import { Command, CommanderError } from "@commander-js/extra-typings";
import { addCommands } from "./cli/commands.ts";
import type { Context } from "./commands/servers.ts";
import { Failure, Interrupted } from "./failure.ts";
import { flushed, printable, terminal } from "./terminal/terminal.ts";
import { describeVersion } from "./version.ts";
import { WORKER_COMMAND } from "./workers/command.ts";

const interrupt = new AbortController();

/** Each command is imported where it runs, and so is this: a start pays for what it needs, and no more. */
async function context(): Promise<Context> {
  const { environment } = await import("./config/environment.ts");
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

  addCommands(program, context);
  return program;
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
