// All of the command line's families, in the order in which --help lists them, and what holds for each.
import type { Command } from "@commander-js/extra-typings";
import { addAudit } from "./audit.ts";
import { addErasure } from "./erasure.ts";
import { addEtl } from "./etl.ts";
import { requireGivenOnce } from "./given-once.ts";
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
