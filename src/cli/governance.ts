// `veil policy`, `approvals`, `approve`, `deny`, `review` and `canary`: who may recover what, and
// who looks on.
import { Argument, type Command, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import type { SetPolicyOptions } from "../commands/policy.ts";
import { examples, type MakeContext, REASON } from "./options.ts";

export function addGovernance(program: Command, context: MakeContext): void {
  addPolicy(program, context);
  addApprovals(program, context);
  addCanaries(program, context);
}

function addPolicy(program: Command, context: MakeContext): void {
  const policy = program
    .command("policy")
    .description("the rules of recovery: reasons, budgets, approvals");
  policy
    .command("show")
    .description("print what a request for each field has to meet")
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("policy show", "policy show --json"))
    .action(async (options) => {
      const { runShowPolicy } = await import("../commands/policy.ts");
      await runShowPolicy(await context(), options.json);
    });
  addSetPolicy(policy, context);
  policy
    .command("lift")
    .description("let erased values be stored again, if they come")
    .argument("<token...>", "their tokens")
    .option(...REASON)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("policy lift dev1_… --reason 'the user is back'"))
    .action(async (tokens, options) => {
      const { runLift } = await import("../commands/policy.ts");
      await runLift(await context(), tokens, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });
}

function addSetPolicy(policy: Command, context: MakeContext): void {
  policy
    .command("set")
    .description("change the rules; each change is on record")
    .addOption(
      new Option("--preset <name>", "all settings at once").choices([
        "permissive",
        "production",
      ] as const),
    )
    .addOption(
      new Option("--field <field...>", "of which field; of all if none is named").choices([
        "ip",
        "device_id",
        "body",
      ] as const),
    )
    .option("--reason-required <yes|no>", "whether a request says why", yesOrNo)
    .option("--purposes <a,b|any>", "the words of which a request names one", purposes)
    .option("--hourly <n|none>", "tokens that a login may ask for in an hour", limit)
    .option("--daily <n|none>", "tokens that a login may ask for in a day", limit)
    .option("--approval <yes|no>", "whether a second person approves", yesOrNo)
    .option("--request-valid <time>", "how long a request is good for: 15m, 8h, 3d", duration)
    .option("--approval-valid <time>", "how long an approval is good for", duration)
    .option("--erased-may-return <yes|no>", "whether erased values may be stored again", yesOrNo)
    .option(...REASON)
    .option("--json", "print an array of objects", false)
    .addHelpText(
      "after",
      examples(
        "policy set --preset production --reason 'go-live'",
        "policy set --field ip --hourly 20 --daily none --purposes fraud,security",
      ),
    )
    .action(async (options) => {
      const { runSetPolicy } = await import("../commands/policy.ts");
      await runSetPolicy(await context(), {
        preset: options.preset ?? null,
        fields: options.field ?? null,
        settings: settingsOf(options),
        reason: options.reason ?? null,
        json: options.json,
      });
    });
}

type PolicyFlags = {
  readonly reasonRequired?: boolean | undefined;
  readonly purposes?: readonly string[] | undefined;
  readonly hourly?: number | "none" | undefined;
  readonly daily?: number | "none" | undefined;
  readonly approval?: boolean | undefined;
  readonly requestValid?: number | undefined;
  readonly approvalValid?: number | undefined;
  readonly erasedMayReturn?: boolean | undefined;
};

/** Only the settings that were given. */
function settingsOf(flags: PolicyFlags): SetPolicyOptions["settings"] {
  const settings = {
    reasonRequired: flags.reasonRequired,
    purposes: flags.purposes,
    hourly: flags.hourly === "none" ? null : flags.hourly,
    daily: flags.daily === "none" ? null : flags.daily,
    approval: flags.approval,
    requestSeconds: flags.requestValid,
    approvalSeconds: flags.approvalValid,
    erasedMayReturn: flags.erasedMayReturn,
  };
  const given = Object.entries(settings).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given);
}

function addApprovals(program: Command, context: MakeContext): void {
  program
    .command("approvals")
    .description("print the requests that wait for approval or review")
    .option(
      "--follow",
      "keep running and print each one, and each canary alarm, when it comes",
      false,
    )
    .option("--json", "print an array of objects; with --follow, one object a line", false)
    .addHelpText("after", examples("approvals", "approvals --follow"))
    .action(async (options) => {
      const { runApprovals } = await import("../commands/approvals.ts");
      await runApprovals(await context(), options);
    });
  const decisions = [
    ["approve", "let somebody else's request be served"],
    ["deny", "refuse somebody else's request"],
    ["review", "take a break-glass request off the open list; needs a reason"],
  ] as const;
  for (const [decision, description] of decisions) {
    program
      .command(decision)
      .description(description)
      .argument("<request>", "its id, as `veil approvals` prints it")
      .option(...REASON)
      .option("--json", "print an object", false)
      .addHelpText("after", examples(`${decision} 0197c5f2-… --reason 'case 4711'`))
      .action(async (request, options) => {
        const { runDecide } = await import("../commands/approvals.ts");
        await runDecide(await context(), decision, request, {
          reason: options.reason ?? null,
          json: options.json,
        });
      });
  }
}

function addCanaries(program: Command, context: MakeContext): void {
  const canary = program
    .command("canary")
    .description("decoy originals: whoever asks for one sets off an alarm");
  canary
    .command("add")
    .description("plant one; its value is read from a prompt or stdin")
    .addArgument(new Argument("<field>", "which field's").choices(["ip", "device_id"] as const))
    .option(...REASON)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("canary add ip --reason 'first decoy'"))
    .action(async (field, options) => {
      const { runAddCanary } = await import("../commands/canaries.ts");
      await runAddCanary(await context(), field, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });
  canary
    .command("list")
    .description("print them")
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("canary list"))
    .action(async (options) => {
      const { runListCanaries } = await import("../commands/canaries.ts");
      await runListCanaries(await context(), options.json);
    });
  canary
    .command("remove")
    .description("take one away, original and all")
    .argument("<token>")
    .option(...REASON)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("canary remove ip1_…"))
    .action(async (token, options) => {
      const { runRemoveCanary } = await import("../commands/canaries.ts");
      await runRemoveCanary(await context(), token, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });
}

function yesOrNo(text: string): boolean {
  if (text === "yes" || text === "no") return text === "yes";
  throw new InvalidArgumentError("expected yes or no");
}

/** The answer for none is a word: commander takes null for a missing argument. */
function limit(text: string): number | "none" {
  if (text === "none") return text;
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("expected a whole number, or none");
}

function purposes(text: string): readonly string[] {
  if (text === "any") return [];
  const words = text.split(",").map((word) => word.trim());
  if (words.every((word) => /^[a-z][a-z0-9-]{0,31}$/.test(word))) return words;
  throw new InvalidArgumentError("expected words of a-z, 0-9 and -, with commas between; or any");
}

const UNITS = { m: 60, h: 3600, d: 86_400 } as const;

function duration(text: string): number {
  const [, amount, unit] = /^([1-9][0-9]{0,5})([mhd])$/.exec(text) ?? [];
  const seconds = unit === undefined ? 0 : Number(amount) * UNITS[unit as keyof typeof UNITS];
  if (seconds > 0 && seconds <= 30 * UNITS.d) return seconds;
  throw new InvalidArgumentError("expected minutes, hours or days, 30d at most: 15m, 8h, 3d");
}
