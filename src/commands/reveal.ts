// `veil reveal TOKEN…`: from tokens to their originals.
import { failed, hasCode } from "../failure.ts";
import { APPROVAL_PENDING } from "../postgres/sqlstates.ts";
import { TOKENS_PER_REQUEST } from "../recovery/request.ts";
import { type Revealed, revealRequests, revealTokens } from "../recovery/reveal.ts";
import { Output, type Sheet } from "../terminal/output.ts";
import { Progress, plural, type Terminal } from "../terminal/terminal.ts";
import { readTokens } from "./read-tokens.ts";
import type { Context } from "./servers.ts";
import { CHECK_IDENTITY, nameLost, type RevealOptions, withRecovery } from "./with-recovery.ts";

const SHEET: Sheet<Revealed> = {
  columns: ["token", "field", "verified", "sealed_at", "original"],
  cells: (row) => [
    row.token,
    row.field,
    row.verified ? "verified" : "unverified",
    row.sealedAt,
    row.original,
  ],
  json: "array",
  object: (row) => row,
};

export async function runReveal(
  context: Context,
  args: readonly string[],
  options: RevealOptions,
): Promise<void> {
  const { terminal } = context;
  const isNew = options.requests.length === 0;
  const tokens = isNew ? await readTokens(terminal, args) : new Set<string>();
  const output = new Output(terminal, SHEET, options.format);
  const progress = progressOf(terminal, tokens.size);
  const counts = { revealed: 0, unknown: 0, unopened: 0 };
  const needs = {
    roles: [options.breakGlass ? ("veil_breakglass" as const) : ("veil_revealer" as const)],
    mayAsk: !args.includes("-"),
  };
  try {
    await withRecovery(context, options, needs, async (recovery) => {
      const pages = isNew
        ? revealTokens({ ...recovery, onProgress: progress.step }, tokens)
        : revealRequests(recovery, options.requests);
      for await (const page of pages) {
        progress.clear();
        await output.write(page.revealed);
        nameLost(terminal, page);
        counts.revealed += page.revealed.length;
        counts.unknown += page.unknown.length;
        counts.unopened += page.unopened.length;
      }
    });
  } catch (error) {
    // To a program that reads an array, a request that waits is no error: there are no originals
    // yet.
    if (hasCode(error, APPROVAL_PENDING) && options.format === "json") await output.write([]);
    throw error;
  } finally {
    progress.clear();
    output.end();
  }
  const lost = counts.unknown + counts.unopened;
  if (lost > 0) {
    throw failed(
      `${lost} of ${plural(counts.revealed + lost, "token")} could not be revealed`,
      counts.unopened > 0
        ? CHECK_IDENTITY
        : "was the token copied in full, and is this the database that it came from?",
    );
  }
  if (counts.revealed === 0) {
    throw failed("the vault holds nothing of what was requested", "was it erased meanwhile?");
  }
}

/** A line that redraws itself, where there is more to do than one request. */
function progressOf(terminal: Terminal, tokens: number) {
  const bars = {
    recorded: new Progress(terminal, tokens),
    revealed: new Progress(terminal, tokens),
  };
  return {
    step: (step: keyof typeof bars, done: number) => {
      const words = { recorded: "on record", revealed: "revealed" };
      if (tokens > TOKENS_PER_REQUEST) bars[step].show(done, words[step]);
    },
    clear: () => {
      for (const bar of Object.values(bars)) bar.clear();
    },
  };
}
