// `veil etl`, and the hidden command that its workers run.
import { type Command, Option } from "@commander-js/extra-typings";
import { WORKER_COMMAND } from "../workers/command.ts";
import { examples, type MakeContext, wholeNumber, workerCount } from "./options.ts";

export function addEtl(program: Command, context: MakeContext): void {
  program
    .command("etl")
    .description("drain the queue into the database, then print a summary")
    .option("--follow", "keep running and wait for messages", false)
    .option("--max-messages <n>", "receive so many and stop; never more", wholeNumber)
    .option("--json", "print the summary as one line of JSON", false)
    .addOption(
      new Option("--log <format>", "how --follow reports without a terminal")
        .choices(["text", "json"] as const)
        .default("text" as const),
    )
    .option("--grace <seconds>", "how long a stop may take", wholeNumber, 25)
    .option("--workers <n>", "processes that share the work, or auto", workerCount, 1)
    .option("--reset-local", "first remove the embedded default's database, queue and keys", false)
    .addHelpText(
      "after",
      examples(
        "etl",
        "etl --follow --log json",
        "etl --max-messages 1000 --json",
        "etl --workers auto",
      ) +
        "\nWith neither QUEUE_URL nor DATABASE_URL set, a checkout runs on its own servers, with samples.",
    )
    .action(async (options) => {
      const { runEtl } = await import("../commands/etl.ts");
      await runEtl(await context(), {
        follow: options.follow,
        maxMessages: options.maxMessages ?? null,
        json: options.json,
        log: options.log,
        resetLocal: options.resetLocal,
        graceSeconds: options.grace,
        workers: options.workers,
      });
    });
  program.command(WORKER_COMMAND, { hidden: true }).action(async () => {
    const { runWorker } = await import("../workers/worker.ts");
    await runWorker(await context());
  });
}
