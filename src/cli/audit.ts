// `veil audit …`: who did what, and whether anybody has rewritten it since.
import { type Command, InvalidArgumentError } from "@commander-js/extra-typings";
import { misuse } from "../failure.ts";
import { examples, type MakeContext, moment, requestId, wholeNumber } from "./options.ts";

const tokenText = (text: string): string => {
  if (!/^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$/.test(text)) {
    throw new InvalidArgumentError("expected a token (ip1_… or dev1_…)");
  }
  return text;
};

export function addAudit(program: Command, context: MakeContext): void {
  const audit = program
    .command("audit")
    .description("who did what, and whether anybody has rewritten it since");
  audit
    .command("list")
    .description("print the entries, the newest last")
    .option("--actor <login>", "of one login")
    .option("--token <token>", "that name this token, and all of the requests that do", tokenText)
    .option("--request <id>", "of one request", requestId)
    .option("--action <action>", "of one kind, as reveal.request")
    .option("--since <date>", "from this day (UTC) or time on", moment(false))
    .option("--until <date>", "up to the end of this day (UTC), or to this time", moment(true))
    .option("--limit <n>", "the newest so many", wholeNumber)
    .option("--json", "print an array of objects", false)
    .addHelpText(
      "after",
      examples(
        "audit list --actor alice --since 2026-01-01",
        "audit list --token ip1_… --json",
        "audit list --action reveal.request --limit 20",
        "audit list --request 0197c5f2-…",
      ),
    )
    .action(async (options) => {
      const [from, to] = [options.since, options.until].map((time) => Date.parse(time ?? ""));
      if (from! >= to!) {
        throw misuse(
          "--since is after --until",
          "a day of --until is included; a time of --until is not",
        );
      }
      const { runAuditList } = await import("../commands/audit-list.ts");
      await runAuditList(await context(), {
        actor: options.actor ?? null,
        token: options.token ?? null,
        request: options.request ?? null,
        action: options.action ?? null,
        since: options.since ?? null,
        until: options.until ?? null,
        limit: options.limit ?? null,
        json: options.json,
      });
    });
  audit
    .command("verify")
    .description("recompute the chain over all entries; exit code 1 names what was changed")
    .option("--checkpoint <file>", "and hold it against what was signed; needs VEIL_AUDIT_KEY")
    .option("--json", "print an object", false)
    .addHelpText("after", examples("audit verify", "audit verify --checkpoint checkpoints.jsonl"))
    .action(async (options) => {
      const { runAuditVerify } = await import("../commands/audit-verify.ts");
      await runAuditVerify(await context(), options.checkpoint ?? null, options.json);
    });
  audit
    .command("checkpoint")
    .description("verify the chain, then sign where it ends; VEIL_AUDIT_KEY signs")
    .requiredOption("--out <file>", "where; a line is added to those before it")
    .option("--json", "print an object", false)
    .addHelpText("after", examples("audit checkpoint --out checkpoints.jsonl"))
    .action(async (options) => {
      const { runAuditCheckpoint } = await import("../commands/audit-verify.ts");
      await runAuditCheckpoint(await context(), options.out, options.json);
    });
}
