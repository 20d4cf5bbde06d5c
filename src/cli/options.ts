// What the commands' definitions share: how options are read, and how examples are shown.
import { InvalidArgumentError } from "@commander-js/extra-typings";
import type { Context } from "../session.ts";
import { MOST_WORKERS } from "../worker-command.ts";

/** Where a command runs; made when it does. */
export type MakeContext = () => Promise<Context>;

export const examples = (...commands: string[]): string =>
  `\nExamples:\n${commands.map((command) => `  $ veil ${command}\n`).join("")}`;

export function reasonText(text: string): string {
  if ([...text].length > 1000) throw new InvalidArgumentError("expected up to 1000 characters");
  return text;
}

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^[1-9][0-9]*$/.test(text) || !Number.isSafeInteger(value)) {
    throw new InvalidArgumentError("expected a whole number of 1 or more");
  }
  return value;
}

export function workerCount(text: string): number | "auto" {
  if (text === "auto" || (/^[1-9][0-9]?$/.test(text) && Number(text) <= MOST_WORKERS)) {
    return text === "auto" ? text : Number(text);
  }
  throw new InvalidArgumentError(`expected a whole number from 1 to ${MOST_WORKERS}, or auto`);
}

/** A day of the calendar, as YYYY-MM-DD. */
export function day(text: string): string {
  const date = new Date(`${text}T00:00:00Z`);
  const isDay = /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(date.getTime());
  if (isDay && date.toISOString().startsWith(text)) return text;
  throw new InvalidArgumentError("expected a day as YYYY-MM-DD");
}

export function purposeWord(text: string): string {
  if (/^[a-z][a-z0-9-]{0,31}$/.test(text)) return text;
  throw new InvalidArgumentError("expected a word of up to 32 characters of a-z, 0-9 and -");
}

/** For an option that may be given several times. */
export function requestIds(text: string, before: readonly string[]): readonly string[] {
  const id = text.toLowerCase();
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) {
    throw new InvalidArgumentError("expected a request's id");
  }
  return [...new Set([...before, id])];
}
