// `veil forget`, `expire` and `hold`: erasing originals, and keeping them from being erased.
import { type Command, InvalidArgumentError } from "@commander-js/extra-typings";
import { examples, holdId, type MakeContext, REASON } from "./options.ts";

export function addErasure(program: Command, context: MakeContext): void {
  program
    .command("forget")
    .description("erase originals for good, on record; what others share is kept")
    .argument("[token...]", "tokens, or - to read them from stdin, one a line")
    .option("--user <id>", "all that this user's rows stand for", userId)
    .option(...REASON)
    .option("--dry-run", "print what would become of each token, and erase nothing", false)
    .option("--yes", "ask nothing", false)
    .option("--receipt <file>", "write the receipt to a new file, too")
    .option("--json", "print the receipt (the plan, with --dry-run)", false)
    .addHelpText(
      "after",
      examples(
        "forget --user user-14 --reason 'request 2026-118' --dry-run",
        "forget --user user-14 --reason 'request 2026-118' --receipt 2026-118.json",
        "forget dev1_… --reason 'request 2026-119' --json",
      ) +
        "\nThe next message with a value that was forgotten gets a token that stands for nothing.",
    )
    .action(async (tokens, options) => {
      const { runForget } = await import("../commands/forget.ts");
      await runForget(await context(), tokens, {
        user: options.user ?? null,
        reason: options.reason ?? null,
        dryRun: options.dryRun,
        yes: options.yes,
        json: options.json,
        receipt: options.receipt ?? null,
      });
    });

  program
    .command("expire")
    .description("drop the originals of whole old periods; with --rows, their rows as well")
    .requiredOption("--older-than <days>", "drop periods that ended so many days ago: 400d", days)
    .option(...REASON)
    .option("--rows", "also the periods' rows of user_logins", false)
    .option("--dry-run", "print how much would go, and erase nothing", false)
    .option("--yes", "ask nothing", false)
    .option("--json", "print an object", false)
    .addHelpText(
      "after",
      `${examples(
        "expire --older-than 400d --dry-run",
        "expire --older-than 400d --reason 'policy 7'",
        "expire --older-than 800d --rows --reason 'policy 8'",
      )}\nPeriods that ended less than 15 days ago do not expire, nor do rows without a date.`,
    )
    .action(async (options) => {
      const { runExpire } = await import("../commands/expire.ts");
      await runExpire(await context(), {
        olderThanDays: options.olderThan,
        withRows: options.rows,
        reason: options.reason ?? null,
        dryRun: options.dryRun,
        yes: options.yes,
        json: options.json,
      });
    });

  addHolds(program, context);
}

function addHolds(program: Command, context: MakeContext): void {
  const hold = program.command("hold").description("legal holds: what nothing erases meanwhile");
  hold
    .command("add")
    .description("keep a token, or all that a user's rows stand for, from being erased")
    .argument("[token]")
    .option("--user <id>", "every token of this user's rows, also of those to come", userId)
    .option(...REASON)
    .option("--json", "print an object", false)
    .addHelpText(
      "after",
      examples(
        "hold add --user user-14 --reason 'case 4711'",
        "hold add ip1_… --reason 'case 4711'",
      ),
    )
    .action(async (token, options) => {
      const { runAddHold } = await import("../commands/holds.ts");
      await runAddHold(await context(), token ?? null, options.user ?? null, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });
  hold
    .command("release")
    .description("end a hold")
    .argument("<hold-id>", "as `hold list` shows it", holdId)
    .option(...REASON)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("hold release 3f1c… --reason 'case 4711 is closed'"))
    .action(async (id, options) => {
      const { runReleaseHold } = await import("../commands/holds.ts");
      await runReleaseHold(await context(), id, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });
  hold
    .command("list")
    .description("print the holds")
    .option("--all", "also the released ones", false)
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("hold list", "hold list --all --json"))
    .action(async (options) => {
      const { runListHolds } = await import("../commands/holds.ts");
      await runListHolds(await context(), options.all, options.json);
    });
}

function days(text: string): number {
  const found = /^([1-9][0-9]{0,4})d$/.exec(text)?.[1];
  if (found === undefined || Number(found) < 15 || Number(found) > 36500) {
    throw new InvalidArgumentError("expected a number of days from 15d to 36500d");
  }
  return Number(found);
}

function userId(text: string): string {
  if (text !== "" && [...text].length <= 128) return text;
  throw new InvalidArgumentError("expected a user id of 1 to 128 characters");
}
