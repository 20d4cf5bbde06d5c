// What `veil etl` says while it runs: a bar at a terminal, notices, and a report now and then.
import type { Notice } from "../line/availability.ts";
import type { Counts } from "../line/counts.ts";
import { Progress, printable, type Terminal } from "../terminal/terminal.ts";
import { totals } from "./etl-summary.ts";

export type LogFormat = "text" | "json";

/** State: the bar, once it is known how much there is to do. */
export class EtlScreen {
  readonly #terminal: Terminal;
  readonly #format: LogFormat;
  readonly #counts: Counts;
  #bar: Progress | null = null;

  constructor(terminal: Terminal, format: LogFormat, counts: Counts) {
    this.#terminal = terminal;
    this.#format = format;
    this.#counts = counts;
  }

  /** From now on there is a bar. */
  expect(messages: number): void {
    this.#bar = new Progress(this.#terminal, messages);
  }

  /** To be passed on as it is. */
  readonly showProgress = (): void => {
    const { acknowledged, quarantined } = this.#counts;
    this.#bar?.show(acknowledged, `${quarantined} quarantined`);
  };

  /** To be passed on as it is. */
  readonly notify = (notice: Notice): void => {
    this.clear();
    this.#terminal.err(formatNotice(notice, this.#format));
  };

  /** To be passed on as it is. */
  readonly report = (): void => this.#terminal.err(formatReport(this.#counts, this.#format));

  clear(): void {
    this.#bar?.clear();
  }
}

/** One line for a log: the counts so far. */
function formatReport(counts: Counts, format: LogFormat): string {
  const time = new Date().toISOString();
  const values = totals(counts);
  if (format === "json") {
    return `${JSON.stringify({ time, level: "info", event: "counts", ...values })}\n`;
  }
  const pairs = Object.entries(values).map(([name, value]) => `${name}=${value}`);
  return `${time} ${pairs.join(" ")}\n`;
}

const LEVELS = { away: "warn", warning: "warn", back: "info" } as const;

/** One line for a person or a log. Printable: a server that is not ours may have worded it. */
function formatNotice({ event, message }: Notice, format: LogFormat): string {
  const time = new Date().toISOString();
  return format === "json"
    ? `${JSON.stringify({ time, level: LEVELS[event], event, message })}\n`
    : `${event === "back" ? "" : "warning: "}${printable(message)}\n`;
}
