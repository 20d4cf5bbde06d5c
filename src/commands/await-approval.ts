// Requests that wait for approval. The commands that approve them and come back to them are
// printed, ready to be copied. With --wait, this waits for the approval.
import { Failure } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import { APPROVAL_PENDING } from "../postgres/sqlstates.ts";
import { awaitDecision } from "../recovery/approvals.ts";
import { printable, type Terminal } from "../terminal/terminal.ts";

/** State: the requests that this command is waiting for. */
export class PendingApproval {
  readonly #terminal: Terminal;
  readonly #wait: boolean;
  readonly #again: readonly string[];
  #left: WayBack | null = null;

  /** `again`: the options with which the command is given again, besides the requests. */
  constructor(terminal: Terminal, wait: boolean, again: readonly string[]) {
    this.#terminal = terminal;
    this.#wait = wait;
    this.#again = again;
  }

  /** Answers when the first of these requests does not wait any more. Without --wait it throws. */
  async await(database: Database, program: string, requests: readonly string[]): Promise<void> {
    const way = wayBack(program, requests, this.#again);
    const approver = `another login with the role veil_approver runs ${way.approve}`;
    if (!this.#wait) {
      throw new Failure(
        1,
        `${way.waits} for approval; nothing of it was fetched`,
        `${approver}; then ${way.reveal} reveals it; --wait waits for it`,
        APPROVAL_PENDING,
      );
    }
    if (this.#left === null) {
      this.#terminal.err(`${way.waits} for approval: ${approver}\n`);
      this.#terminal.err(`waiting; Ctrl-C leaves it open, and ${way.reveal} comes back to it\n`);
    }
    this.#left = way;
    await awaitDecision(database, requests[0]!);
  }

  /** Nothing waits any more. */
  end(): void {
    this.#left = null;
  }

  /** After Ctrl-C: what was left open, and how to come back to it. */
  sayLeft(): void {
    if (this.#left === null) return;
    const { waits, approve, reveal } = this.#left;
    this.#terminal.err(`${waits} on: after ${approve}, ${reveal} reveals it\n`);
  }
}

export type WayBack = {
  /** `request … waits`, or the same for several. */
  readonly waits: string;
  readonly approve: string;
  readonly reveal: string;
};

export function wayBack(
  program: string,
  requests: readonly string[],
  again: readonly string[],
): WayBack {
  const asked = requests.flatMap((request) => ["--request", request]);
  const fromStdin = readsStdin(again);
  return {
    waits:
      requests.length === 1
        ? `request ${requests[0]} waits`
        : `requests ${requests.join(", ")} wait`,
    approve: requests.map((request) => `\`${program} approve ${request}\``).join(", "),
    reveal:
      `\`${[program, "reveal", ...[...again, ...asked].map(quoted)].join(" ")}\`` +
      (fromStdin === null ? "" : ` with the same ${fromStdin} on stdin`),
  };
}

function readsStdin(again: readonly string[]): string | null {
  if (again.includes("--values")) return "values";
  const tokens = again.indexOf("--tokens");
  return tokens >= 0 && again[tokens + 1] === "-" ? "tokens" : null;
}

/** For a shell. */
const quoted = (word: string): string =>
  /^[\w.:/@%+=,-]+$/.test(word) ? word : `'${printable(word).replaceAll("'", "'\\''")}'`;
