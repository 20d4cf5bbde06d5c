// An option that takes one value is given once, in every command: where two stand, the last one would win without
// a word, and half of what was meant would be erased, held or listed.
import type { CommandUnknownOpts, Option } from "@commander-js/extra-typings";

/** It takes several values, or collects those of several. */
export const mayRepeat = (option: Option): boolean =>
  option.variadic || Array.isArray(option.defaultValue);

/** For `program` and all commands below it, as they are then. */
export function requireGivenOnce(program: CommandUnknownOpts): void {
  for (const option of program.options) {
    if (!(option.required || option.optional) || mayRepeat(option)) continue;
    let isGiven = false;
    program.on(`option:${option.name()}`, () => {
      if (isGiven) program.error(`error: ${option.long} is given twice`);
      isGiven = true;
    });
  }
  for (const command of program.commands) requireGivenOnce(command);
}
