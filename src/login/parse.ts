// A message's body → a login, or the reason why it cannot become one. Pure; Web-standard APIs only.
// A reason is stored and shown, so it names fields and types and quotes no value.

export type Login = {
  readonly userId: string;
  readonly deviceType: string | null;
  readonly ip: string | null;
  readonly deviceId: string | null;
  readonly locale: string | null;
  readonly appVersion: number | null;
};

export type ParsedBody =
  | { readonly kind: "login"; readonly login: Login }
  | { readonly kind: "rejected"; readonly reason: string };

/** The keys of a message, as they stand after flattening. */
const FIELDS = ["user_id", "app_version", "device_type", "ip", "locale", "device_id"] as const;
type FieldName = (typeof FIELDS)[number];

const MAX_PERSONAL_BYTES = 1024; // of `ip` and `device_id`

class Rejected extends Error {}

/** Never throws: whatever the body is, the answer is a login or a reason. */
export function parseMessage(body: string): ParsedBody {
  try {
    return { kind: "login", login: readLogin(flatten(unwrap(body))) };
  } catch (error) {
    if (error instanceof Rejected) return { kind: "rejected", reason: error.message };
    throw error;
  }
}

type JsonObject = { readonly [key: string]: unknown };

function unwrap(body: string): JsonObject {
  const outer = parseObject(body, "the body");
  // What SNS puts around a message that it forwards to a queue.
  if (own(outer, "Type") === "Notification") {
    const inner = own(outer, "Message");
    if (typeof inner === "string") return parseObject(inner, "the message in its SNS envelope");
  }
  return outer;
}

function parseObject(text: string, name: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Not the parser's own message: it quotes the text.
    throw new Rejected(`${name} is not JSON`);
  }
  if (!isObject(value)) throw new Rejected(`${name} is ${typeName(value)}, expected an object`);
  return value;
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const own = (object: JsonObject, key: string): unknown =>
  Object.hasOwn(object, key) ? object[key] : undefined;

type Fields = { [name in FieldName]?: unknown };

/** Beginnings of the paths that nested objects may lead to a field by: `user_`, `device_`, `app_`. */
const PREFIXES: readonly string[] = FIELDS.flatMap((name) =>
  Array.from(name.matchAll(/_/g), ({ index }) => name.slice(0, index + 1)),
);

const isField = (path: string): path is FieldName => FIELDS.some((name) => name === path);

/**
 * The values of our fields, nested objects flattened with `_`. Only paths that can still become a field
 * are followed, so that neither the depth nor the size of the rest costs anything.
 */
function flatten(object: JsonObject): Fields {
  const found: Fields = {};
  let isEmpty = true;
  const visit = (node: JsonObject, prefix: string) => {
    for (const key of Object.keys(node)) {
      const path = prefix === "" ? key : prefix + key;
      const value = node[key];
      if (isField(path)) {
        if (Object.hasOwn(found, path)) {
          throw new Rejected(`${path} is ambiguous: two paths of the message lead to it`);
        }
        found[path] = value;
        isEmpty = false;
      } else if (isObject(value) && PREFIXES.includes(`${path}_`)) {
        visit(value, `${path}_`);
      }
    }
  };
  visit(object, "");
  if (isEmpty) {
    throw new Rejected("this is another type of message: it has none of a login's fields");
  }
  return found;
}

function readLogin(fields: Fields): Login {
  const userId = readText(fields, "user_id", 128);
  if (userId === null) throw new Rejected("user_id is missing");
  if (userId === "") throw new Rejected("user_id is empty");
  return {
    userId,
    deviceType: readText(fields, "device_type", 32),
    ip: readPersonal(fields, "ip"),
    deviceId: readPersonal(fields, "device_id"),
    locale: readText(fields, "locale", 32),
    appVersion: readVersion(fields),
  };
}

function readString(fields: Fields, name: FieldName): string | null {
  const value = fields[name];
  if (value === undefined || value === null) return null;
  if (typeof value !== "string") {
    throw new Rejected(`${name} is ${typeName(value)}, expected a string`);
  }
  if (!value.isWellFormed()) throw new Rejected(`${name} holds a lone surrogate`);
  if (value.includes("\0")) throw new Rejected(`${name} holds a NUL character`);
  return value;
}

function readText(fields: Fields, name: FieldName, max: number): string | null {
  const value = readString(fields, name);
  // A string's length counts UTF-16 units, a varchar's code points.
  if (value !== null && value.length > max && [...value].length > max) {
    throw new Rejected(`${name} is longer than ${max} characters`);
  }
  return value;
}

function readPersonal(fields: Fields, name: FieldName): string | null {
  const value = readString(fields, name);
  if (value === null || value === "") return null;
  const mayBeLong = value.length * 3 > MAX_PERSONAL_BYTES;
  if (mayBeLong && new TextEncoder().encode(value).length > MAX_PERSONAL_BYTES) {
    throw new Rejected(`${name} is longer than ${MAX_PERSONAL_BYTES} bytes`);
  }
  return value;
}

/**
 * "2.3.0" → 2003000: an integer that sorts as versions do and reads back. What follows the third part,
 * or a `-` or `+`, is dropped.
 */
function readVersion(fields: Fields): number | null {
  const number = fields.app_version;
  if (typeof number === "number") {
    // The double nearest to what was written, as RFC 8259 expects of readers: infinite beyond 1e308, and
    // out of range there like every number as large.
    const isFraction = Number.isFinite(number) && !Number.isInteger(number);
    if (isFraction) throw new Rejected("app_version is not a whole number");
    return packVersion([number, 0, 0]);
  }
  const value = readString(fields, "app_version");
  if (value === null) return null;
  const parts = VERSION.exec(value);
  if (parts === null) throw new Rejected("app_version is not written as a version");
  const [, major, minor = 0, patch = 0] = parts;
  return packVersion([Number(major), Number(minor), Number(patch)]);
}

const VERSION = /^([0-9]+)(?:\.([0-9]+)(?:\.([0-9]+)(?:\.[0-9]+)*)?)?(?:[-+].*)?$/;

function packVersion([major, minor, patch]: [number, number, number]): number {
  if (major < 0 || major > 2146 || minor > 999 || patch > 999) {
    throw new Rejected("app_version is out of range: parts go up to 999, the first up to 2146");
  }
  return major * 1_000_000 + minor * 1_000 + patch;
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "an object";
  return `a ${typeof value}`;
}
