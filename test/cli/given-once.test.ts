// Wrong usage that commander lets pass: the same option twice, in whichever command.
import { expect, test } from "bun:test";
import { Command, CommanderError, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { addCommands, mayRepeat } from "../../src/cli/commands.ts";

const token = `ip1_${"a".repeat(26)}`;
/** Whatever an option reads, it takes one of these. */
const VALUES = ["1", "15d", "yes", "2026-01-01", "word", token, crypto.randomUUID()];

/** A program of its own each time, as in each start. */
function build(): CommandUnknownOpts {
  const program = new Command("veil").configureOutput({ outputError: () => {} }).exitOverride();
  addCommands(program, () => Promise.reject(new Error("it was run")));
  return program;
}

type Given = { readonly path: readonly string[]; readonly flag: string; readonly value: string };

function optionsBelow(command: CommandUnknownOpts, path: readonly string[], repeat: boolean) {
  const found: Given[] = [];
  for (const option of command.options) {
    if (!(option.required || option.optional) || mayRepeat(option) !== repeat) continue;
    const value = [...(option.argChoices ?? []), ...VALUES].find((candidate) => {
      try {
        option.parseArg?.(candidate, undefined as never);
        return true;
      } catch {
        return false;
      }
    });
    found.push({ path, flag: option.long!, value: value ?? "" });
  }
  for (const below of command.commands) {
    found.push(...optionsBelow(below, [...path, below.name()], repeat));
  }
  return found;
}

async function outcome(args: readonly string[]): Promise<string> {
  try {
    await build().parseAsync([...args], { from: "user" });
    return "done";
  } catch (error) {
    return error instanceof CommanderError ? error.message : "run";
  }
}

test("an option that takes one value and is given twice is wrong usage, in every command", async () => {
  const options = optionsBelow(build(), [], false);
  const named = options.map(({ path, flag }) => `${path.join(" ")} ${flag}`);
  expect(named).toContain("forget --user");
  expect(named).toContain("hold add --user");
  expect(named).toContain("audit list --actor");
  expect(named).toContain("policy set --hourly");
  for (const { path, flag, value } of options) {
    for (const twice of [
      [flag, value, flag, value],
      [`${flag}=${value}`, `${flag}=${value}`],
    ]) {
      const args = [...path, ...twice];
      expect([args, await outcome(args)]).toEqual([args, `error: ${flag} is given twice`]);
    }
  }
});

test("what may be given several times is listed here, and nothing is refused that is given once", async () => {
  expect(optionsBelow(build(), [], true).map(({ path, flag }) => [...path, flag])).toEqual([
    ["reveal", "--request"],
    ["policy", "set", "--field"],
  ]);
  expect(await outcome(["policy", "set", "--field", "ip", "--field", "body"])).toBe("run");
  expect(await outcome(["forget", "--user", "a", "--reason", "a"])).toBe("run");
});
