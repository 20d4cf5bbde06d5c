// `veil reveal`, `token` and `duplicates`: from tokens to logins and originals.
import { Argument, type Command, Option } from "@commander-js/extra-typings";
import { examples, type MakeContext, reasonText, wholeNumber } from "./options.ts";

export function addRecovery(program: Command, context: MakeContext): void {
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
      const { runReveal } = await import("../commands/reveal.ts");
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
      const { runToken } = await import("../commands/reveal.ts");
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
        format: options.json ? "json" : options.csv ? "csv" : "table",
      });
    });
}
