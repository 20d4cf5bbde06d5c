// `veil check`, `migrate` and `keys`.
import { type Command, Option } from "@commander-js/extra-typings";
import { examples, type MakeContext } from "./options.ts";

export function addSetup(program: Command, context: MakeContext): void {
  program
    .command("check")
    .description("verify what must always hold; loads may go on meanwhile")
    .option("--json", "print one object", false)
    .addHelpText("after", examples("check", "check --json"))
    .action(async (options) => {
      const { runCheck } = await import("../commands/check.ts");
      await runCheck(await context(), options.json);
    });

  program
    .command("migrate")
    .description("bring the database to this version's schema; safe to run again")
    .addOption(
      new Option(
        "--period <length>",
        "how much time a partition takes, from the next one that is made (at first: a month)",
      ).choices(["month", "week", "day"] as const),
    )
    .option("--json", "print what was done as JSON", false)
    .addHelpText("after", examples("migrate", "migrate --period week"))
    .action(async ({ period = null, json }) => {
      const { runMigrate } = await import("../commands/setup.ts");
      await runMigrate(await context(), { period, json });
    });

  const keys = program.command("keys").description("make keys");
  keys
    .command("generate")
    .description(
      "write token.key, verify.key, identity.txt and recipients.txt; or an auditor's pair, with --audit",
    )
    .requiredOption("--out <folder>", "where; made with mode 0700 if missing")
    .option("--pq", "a post-quantum identity (ML-KEM-768 with X25519)", false)
    .addOption(
      new Option("--audit", "instead audit.key and audit.pub, which sign and verify checkpoints")
        .default(false)
        .conflicts("pq"),
    )
    .option("--json", "print the files' paths as JSON", false)
    .addHelpText(
      "after",
      examples("keys generate --out keys", "keys generate --audit --out audit-keys"),
    )
    .action(async (options) => {
      const { runGenerateKeys } = await import("../commands/setup.ts");
      await runGenerateKeys(await context(), options.out, {
        kind: options.audit ? "audit" : options.pq ? "post-quantum" : "classic",
        json: options.json,
      });
    });
}
