// Messages as JSON text, put together by hand: no serializer writes what these are for (a key that stands
// twice, half a million levels, a megabyte to the byte).
import type { Random } from "./hostile-random.ts";
import { stringText, text } from "./hostile-values.ts";

/** SQS's largest message since 2025, in bytes of UTF-8. */
export const LARGEST_BODY = 2 ** 20;
export const DEEPEST = 500_000;
export const MOST_KEYS = 100_000;

/** A key and the JSON text of its value. A list of them is an object, in this order and with its doubles. */
export type Pair = readonly [key: string, value: string];

export const FIELDS = [
  "user_id",
  "app_version",
  "device_type",
  "ip",
  "locale",
  "device_id",
] as const;
export type FieldName = (typeof FIELDS)[number];

export const objectText = (pairs: readonly Pair[]): string =>
  `{${pairs.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(",")}}`;

/** A login that is one, as a well-behaved client sends it; known by its user. */
export function neighbour(r: Random, user: string): Pair[] {
  const all: Pair[] = [
    ["user_id", JSON.stringify(user)],
    ["app_version", r.chance(0.9) ? `"${r.below(30)}.${r.below(999)}.${r.below(99)}"` : "null"],
    ["device_type", r.pick(['"ios"', '"android"', '"téléphone"', '"📱"', "null"])],
    ["ip", r.pick([`"198.51.${r.below(40)}.${r.below(256)}"`, `"2001:DB8::${r.below(9000)}"`])],
    ["locale", r.pick(['"de_DE"', '"RU"', '"日本語"', '""', "null"])],
    ["device_id", `"${r.pick(["593-47", "gerät", "📱"])}-${r.below(20_000)}"`],
  ];
  return all.filter(([key]) => key === "user_id" || r.chance(0.9));
}

/** The same message in one of the shapes that a message may have. */
export function spell(r: Random, pairs: readonly Pair[]): string {
  const flat = r.chance(0.6) ? pairs : nest(r, pairs);
  const json = r.chance(0.9) ? objectText(flat) : withSpaces(r, flat);
  return r.chance(0.85) ? json : envelope(r, json);
}

/** Values in objects of their own: device_id becomes device{id}. */
function nest(r: Random, pairs: readonly Pair[]): Pair[] {
  const inner = new Map<string, Pair[]>();
  const outer: Pair[] = [];
  for (const [key, value] of pairs) {
    const [head, tail] = key.split("_", 2);
    if (head === undefined || tail === undefined || r.chance(0.2)) outer.push([key, value]);
    else inner.set(head, [...(inner.get(head) ?? []), [tail, value]]);
  }
  for (const [key, values] of inner) outer.push([key, objectText(values)]);
  return outer;
}

function withSpaces(r: Random, pairs: readonly Pair[]): string {
  const space = () => r.pick(["", " ", "\n", "\t", "\r\n  "]).repeat(r.magnitude(3));
  const inner = pairs
    .map(([key, value]) =>
      [space(), JSON.stringify(key), space(), ":", space(), value, space()].join(""),
    )
    .join(",");
  return `${space()}{${inner}}${space()}`;
}

/** What SNS puts around a message, or nearly that. */
export function envelope(r: Random, message: string): string {
  const pairs: Pair[] = [
    ["Type", '"Notification"'],
    ["MessageId", '"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"'],
    ["TopicArn", '"arn:aws:sns:us-east-1:1:logins"'],
    ["Message", stringText(r, message)],
  ];
  return objectText(r.chance(0.5) ? pairs : pairs.reverse());
}

/** Nested so deep, and closed again unless `open`. */
export function deepText(r: Random, depth: number, open: boolean): string {
  const [before, after] = r.pick([
    ["[", "]"],
    ['{"":', "}"],
    ['[{"a":', "}]"],
    ['{"device":', "}"],
    ['{"device":{"id":', "}}"],
    ['{"user":', "}"],
    ['{"__proto__":', "}"],
    ['[0,{"id":1,"b":', "}]"],
  ] as const);
  const times = Math.min(depth, Math.floor((LARGEST_BODY - 400) / (before.length + after.length)));
  const core = r.pick(["1", "null", "[]", "{}", '"x"']);
  return before.repeat(times) + core + (open ? "" : after.repeat(times));
}

/** So many pairs, or as many as a message can hold. */
export function widePairs(r: Random, count: number): Pair[] {
  const key = r.pick<(i: number) => string>([
    (i) => `k${i}`,
    (i) => `${i}`,
    (i) => `${count - i}`,
    (i) => `${4_294_967_294 - i}`,
    () => "k",
    () => "device",
    (i) => `device_${i}`,
    (i) => `__proto__${i}`,
    (i) => (i % 2 === 0 ? "user" : "app"),
  ]);
  const value = r.pick(["1", "{}", "[]", '{"id":1}', '"x"']);
  const pairs: Pair[] = [];
  for (let i = 0, size = 0; i < count && size < LARGEST_BODY - 1000; i++) {
    pairs.push([key(i), value]);
    size += key(i).length + value.length + 4;
  }
  return pairs;
}

/** A message of exactly so many bytes; `pairs` alone have to be smaller. */
export function sizedText(r: Random, pairs: readonly Pair[], bytes: number): string {
  const unit = r.pick(["x", " ", "é", "\u{1f600}", "\\u0000", "\\ud83d", '\\"', "[", "%s"]);
  const whole = objectText(pairs);
  const build = r.pick<(padding: string) => string>([
    (padding) => objectText([...pairs, ["padding", `"${padding}"`]]),
    (padding) => objectText([["padding", `"${padding}"`], ...pairs]),
    (padding) => objectText([...pairs, ["user_id", `"${padding}"`]]),
    (padding) => objectText([...pairs, ["device", `{"id":"${padding}"}`]]),
    (padding) => `${whole.slice(0, -1)},"${padding}":1}`,
    (padding) => `${whole.slice(0, -1)},"padding":"${padding}`,
    (padding) => whole + " ".repeat(Buffer.byteLength(padding)),
    (padding) => whole + padding,
  ]);
  const room = bytes - Buffer.byteLength(build(""));
  const size = Buffer.byteLength(unit);
  return build(unit.repeat(Math.floor(room / size)) + "y".repeat(room % size));
}

/** Keys beside a login's: harmless, hostile, or leading to the field that another one leads to. */
export function extraPair(r: Random): Pair {
  const key = r.pick([
    ...["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf", "prototype", "length"],
    ...[
      "Type",
      "Message",
      "USER_ID",
      "userId",
      "user_id ",
      "user_id\0",
      "\0",
      "\ud83d",
      "ip\ude00",
    ],
    ...[
      "",
      "_",
      "__",
      "_id",
      "id",
      "user",
      "device",
      "app",
      "device_",
      "user_",
      "device__id",
      "ipv6",
    ],
    ...["device.id", "device\u0000_id", "user\u200b_id", "\ufeffuser_id", "ｕｓｅｒ_id", "0", "-1"],
    ...FIELDS,
    text(r),
    "k".repeat(r.magnitude(20_000)),
  ]);
  const value = r.pick([
    ...["null", "1", "true", '"x"', "[]", "{}", '{"id":"x"}', '{"type":"x"}', '{"version":"1.0"}'],
    ...['{"id":null}', '{"id":{}}', '[{"id":"x"}]', '{"__proto__":{"id":"x"}}', '{"":{"id":"x"}}'],
    ...['{"id":"x","id":"y"}', '{"_id":"x"}', '{"device":{"id":"x"}}', '{"user_id":"x"}'],
    stringText(r, text(r)),
  ]);
  return [key, value];
}
