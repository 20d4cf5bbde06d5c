// All commands, in the order in which --help lists them, and a rule that holds for each.
import type { Command, CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { addAudit } from "./audit.ts";
import { addErasure } from "./erasure.ts";
import { addEtl } from "./etl.ts";
import { addGovernance } from "./governance.ts";
import type { MakeContext } from "./options.ts";
import { addQuarantine } from "./quarantine.ts";
import { addRecovery } from "./recovery.ts";
import { addSetup } from "./setup.ts";

export function addCommands(program: Command, context: MakeContext): void {
  addEtl(program, context);
  addRecovery(program, context);
  addGovernance(program, context);
  addErasure(program, context);
  addAudit(program, context);
  addSetup(program, context);
  addQuarantine(program, context);
  requireGivenOnce(program);
}

/** The option takes several values, or may be given several times. */
export const mayRepeat = (option: Option): boolean =>
  option.variadic || Array.isArray(option.defaultValue);

/**
 * An option that takes one value is given once, in every command below `program`. Where two stand,
 * the last one would win without a word, and half of what was meant would be erased, held or
 * listed.
 */
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
