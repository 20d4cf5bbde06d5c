// What is said of requests that wait for approval: the commands that approve them and come back to them, to be
// copied as they stand.
import { printable } from "../terminal/terminal.ts";

export type WayBack = {
  /** `request … waits`, or the same for several. */
  readonly waits: string;
  readonly approve: string;
  readonly reveal: string;
};

/** `again`: the options with which the command is given again, besides the requests. */
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
