// What has to become of a body, by the words of DESIGN section 5 and with nothing of veil's own code: a
// login with these values, or the quarantine.
import type { Sent } from "../../line/expected.ts";
import { type Json, readJson } from "./hostile-json.ts";

const COLUMNS = ["user_id", "app_version", "device_type", "ip", "locale", "device_id"] as const;
type Column = (typeof COLUMNS)[number];
const LONGEST_NAME = 11;

/** Null: it is to be quarantined. */
export function judge(body: string): Sent | null {
  const message = unwrapped(readJson(body));
  if (message === null) return null;
  const reached = flattened(message);
  const only = new Map<Column, Json>();
  for (const [column, values] of reached) {
    const [value, second] = values;
    if (value === undefined || second !== undefined) return null;
    only.set(column, value);
  }
  const user = textOf(only.get("user_id"), 128);
  const deviceType = textOf(only.get("device_type"), 32);
  const locale = textOf(only.get("locale"), 32);
  const ip = personal(only.get("ip"));
  const deviceId = personal(only.get("device_id"));
  const version = versionOf(only.get("app_version"));
  if (typeof user !== "string" || user === "") return null;
  for (const value of [deviceType, locale, ip, deviceId, version]) {
    if (value === undefined) return null;
  }
  return {
    user_id: user,
    device_type: deviceType ?? null,
    ip: ip ?? null,
    locale: locale ?? null,
    device_id: deviceId ?? null,
    app_version: version ?? null,
  };
}

function unwrapped(body: Json | null): Json | null {
  if (body?.type !== "object") return null;
  const type = body.entries.get("Type");
  const message = body.entries.get("Message");
  const isEnvelope = type?.type === "string" && type.value === "Notification";
  if (!isEnvelope || message?.type !== "string") return body;
  const inner = readJson(message.value);
  return inner?.type === "object" ? inner : null;
}

/** Every value that some path leads to a column by. No name is longer than a column's, so no path need be. */
function flattened(message: Json): Map<Column, Json[]> {
  const reached = new Map<Column, Json[]>();
  const open: { readonly node: Json; readonly path: string | null }[] = [
    { node: message, path: null },
  ];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { node, path } = next;
    const column = COLUMNS.find((name) => name === path);
    if (column !== undefined) reached.set(column, [...(reached.get(column) ?? []), node]);
    else if (node.type === "object") {
      for (const [key, value] of node.entries) {
        const longer = path === null ? key : `${path}_${key}`;
        if (longer.length <= LONGEST_NAME) open.push({ node: value, path: longer });
      }
    }
  }
  return reached;
}

/** Undefined: it is none. */
function textOf(value: Json | undefined, most: number): string | null | undefined {
  const text = storable(value);
  return typeof text === "string" && codePoints(text) > most ? undefined : text;
}

function personal(value: Json | undefined): string | null | undefined {
  const text = storable(value);
  return typeof text === "string" && Buffer.byteLength(text) > 1024 ? undefined : text;
}

function storable(value: Json | undefined): string | null | undefined {
  if (value === undefined || value.type === "null") return null;
  if (value.type !== "string") return undefined;
  // With /u a pair is one character, and only what stands alone is a surrogate.
  return /[\0\p{Surrogate}]/u.test(value.value) ? undefined : value.value;
}

function codePoints(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i += text.codePointAt(i)! > 0xffff ? 2 : 1) count++;
  return count;
}

function versionOf(value: Json | undefined): string | number | null | undefined {
  if (value?.type === "number") {
    // A JSON number is the double nearest to it, as RFC 8259 expects of readers (section 6).
    const number = Number(value.text);
    return Number.isInteger(number) && number >= 0 && number <= 2146 ? number : undefined;
  }
  const text = storable(value);
  if (typeof text !== "string") return text;
  const end = text.search(/[-+]/);
  if (end >= 0 && /[\n\r\u2028\u2029]/.test(text.slice(end))) return undefined;
  const parts = (end < 0 ? text : text.slice(0, end)).split(".");
  if (!parts.every((part) => part !== "" && !/[^0-9]/.test(part))) return undefined;
  const fits = (part: string | undefined, most: number) => {
    const digits = (part ?? "0").replace(/^0+/, "");
    return digits.length < 5 && Number(digits) <= most;
  };
  return fits(parts[0], 2146) && fits(parts[1], 999) && fits(parts[2], 999) ? text : undefined;
}
