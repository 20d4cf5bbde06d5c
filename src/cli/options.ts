// What the definitions of commands share: how options are read, and how examples are printed.
import { InvalidArgumentError } from "@commander-js/extra-typings";
import type { Context } from "../commands/servers.ts";
import { MOST_WORKERS } from "../workers/command.ts";

/** Makes the context when a command runs, and not before. */
export type MakeContext = () => Promise<Context>;

export const examples = (...commands: string[]): string =>
  `\nExamples:\n${commands.map((command) => `  $ veil ${command}\n`).join("")}`;

function reasonText(text: string): string {
  if ([...text].length > 1000) throw new InvalidArgumentError("expected up to 1000 characters");
  return text;
}

/** The option of every command that puts something on record. */
export const REASON = ["--reason <text>", "why, for the record", reasonText] as const;

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
  if (isDay(text)) return text;
  throw new InvalidArgumentError("expected a day as YYYY-MM-DD");
}

/** Dates that no calendar has are rolled over to the next month by JavaScript. */
function isDay(text: string): boolean {
  const date = new Date(`${text}T00:00:00Z`);
  if (!/^\d{4}-\d\d-\d\d$/.test(text) || Number.isNaN(date.getTime())) return false;
  return date.toISOString().startsWith(text);
}

/**
 * A day in UTC, or a time with its offset, as ISO 8601. A day that ends a range is included, so the
 * beginning of the next day is meant.
 */
export const moment =
  (isEnd: boolean) =>
  (text: string): string => {
    const isTime = /^.{10}T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)$/.test(text);
    const isWhole = text.length === 10;
    const time = isDay(text.slice(0, 10)) && (isWhole || isTime) ? new Date(text) : new Date("");
    if (Number.isNaN(time.getTime())) {
      throw new InvalidArgumentError("expected a day (2026-01-31), or a time (2026-01-31T12:00Z)");
    }
    if (isWhole && isEnd) time.setUTCDate(time.getUTCDate() + 1);
    return time.toISOString();
  };

export function userId(text: string): string {
  if (text === "") throw new InvalidArgumentError("expected a user id");
  return text;
}

export function purposeWord(text: string): string {
  if (/^[a-z][a-z0-9-]{0,31}$/.test(text)) return text;
  throw new InvalidArgumentError("expected a word of up to 32 characters of a-z, 0-9 and -");
}

/** For an option that may be given several times. */
export const requestIds = (text: string, before: readonly string[]): readonly string[] => [
  ...new Set([...before, requestId(text)]),
];

export const requestId = uuid("expected a request's id");
export const holdId = uuid("expected a hold's id");

function uuid(expected: string) {
  return (text: string): string => {
    const id = text.toLowerCase();
    if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) return id;
    throw new InvalidArgumentError(expected);
  };
}
