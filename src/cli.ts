#!/usr/bin/env bun
// The front door: argv → command. Only here errors are printed (`error:` and `hint:` on stderr),
// and only here the program exits: 0 done, 1 failed or refused, 2 wrong usage or configuration, 130
// interrupted.
import { Command, CommanderError } from "@commander-js/extra-typings";
import { addCommands } from "./cli/commands.ts";
import type { Context, Waits } from "./commands/servers.ts";
import { Failure, Interrupted } from "./failure.ts";
import { flushed, printable, terminal } from "./terminal/terminal.ts";
import { describeVersion } from "./version.ts";
import { WORKER_COMMAND } from "./workers/command.ts";

const interrupt = new AbortController();

/**
 * Imported where a command runs, like the commands themselves: a start pays only for what it needs.
 */
const contextWith = (waits: Partial<Waits>) => async (): Promise<Context> => {
  const { environment } = await import("./config/environment.ts");
  return { env: environment(), terminal, interrupt: interrupt.signal, waits };
};

function buildProgram(context: () => Promise<Context>) {
  const program = new Command("veil")
    .description(
      "Login events from SQS to Postgres: personal data tokenized, sealed, recoverable only on record.",
    )
    .version(describeVersion())
    // Commander's own messages may repeat a value. `report` prints them without.
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
 * The message of wrong usage, without what was typed: `veil token ip 192.0.2.1` is a mistake, but
 * the address must not get into a log. Null where the help was printed instead.
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

/** Prints what was thrown on stderr, and answers with the exit code. */
function report(error: unknown): number {
  if (error instanceof Interrupted) return 130;
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    const { message, hint } = withoutValues(error.message);
    if (message !== null) terminal.err(`error: ${message}\nhint: ${hint}\n`);
    return 2;
  }
  if (error instanceof Failure) {
    // Made printable: a database that is not ours may have worded it.
    terminal.err(`error: ${printable(error.message)}\n`);
    if (error.hint !== null) terminal.err(`hint: ${printable(error.hint)}\n`);
    return error.exitCode;
  }
  // A defect of this program. Its message may quote data, but where it happened may be printed.
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

/**
 * Output is written before the process ends, to a pipe too. Where it could not be written, that is
 * no success.
 */
async function exit(code: number): Promise<never> {
  const lost = await flushed();
  if (lost === null || codeOf(lost) === "EPIPE" || code !== 0) process.exit(code);
  terminal.err(`error: cannot write to stdout (${codeOf(lost)})\nhint: is the disk full?\n`);
  await flushed();
  process.exit(1);
}

function listen(): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      // Ctrl-C and a service's stop reach parent and workers alike, and a worker ends when its
      // parent says so.
      if (process.argv[2] === WORKER_COMMAND) return;
      if (interrupt.signal.aborted) process.exit(130);
      interrupt.abort();
    });
  }
  // The reader of a pipe may leave early (`| head`). That is no failure. Other errors: see `exit`.
  process.stdout.on("error", (error) => {
    if (codeOf(error) === "EPIPE") process.exit(0);
  });
  process.on("uncaughtException", (error) => void exit(report(error)));
  process.on("unhandledRejection", (error) => void exit(report(error)));
}

/** Runs what the arguments say, and exits. `waits`: for tests, see `Context`. */
export async function main(waits: Partial<Waits> = {}): Promise<never> {
  listen();
  try {
    await buildProgram(contextWith(waits)).parseAsync();
  } catch (error) {
    return await exit(report(error));
  }
  return await exit(0);
}

if (import.meta.main) await main();
