// `veil quarantine`: list, show, replay and discard.
import { type Command, Option } from "@commander-js/extra-typings";
import { examples, type MakeContext, REASON } from "./options.ts";

export function addQuarantine(program: Command, context: MakeContext): void {
  const quarantine = program
    .command("quarantine")
    .description("handle the messages that could not become rows");
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
      const { runList } = await import("../commands/quarantine.ts");
      await runList(await context(), options.state, options.json);
    });
  quarantine
    .command("show")
    .description("print a message's body, on record like a reveal")
    .argument("<message-id>")
    .option(...REASON)
    .option("--wait", "where it needs approval, wait for it", false)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("quarantine show 3f1c… --reason 'what does the app send?'"))
    .action(async (id, options) => {
      const { runShow } = await import("../commands/quarantine.ts");
      const { reason = null, wait, json } = options;
      await runShow(await context(), id, { reason, wait, json });
    });
  quarantine
    .command("replay")
    .description("read bodies again with today's rules; what is a login now becomes a row")
    .argument("[message-id...]", "which ones; all open ones if none is named")
    .option(...REASON)
    .option("--wait", "where it needs approval, wait for it", false)
    .option("--json", "print an array of objects", false)
    .addHelpText("after", examples("quarantine replay", "quarantine replay 3f1c…"))
    .action(async (ids, options) => {
      const { runReplay } = await import("../commands/quarantine.ts");
      const { reason = null, wait, json } = options;
      await runReplay(await context(), ids, { reason, wait, json });
    });
  quarantine
    .command("discard")
    .description("give up messages: their bodies are gone for good")
    .argument("[message-id...]")
    .option("--all", "all open ones", false)
    .option(...REASON)
    .option("--json", "print an object", false)
    .addHelpText("after", examples("quarantine discard 3f1c… --reason 'a test message'"))
    .action(async (ids, options) => {
      const { runDiscard } = await import("../commands/quarantine.ts");
      await runDiscard(await context(), ids, options.all, {
        reason: options.reason ?? null,
        json: options.json,
      });
    });
}
