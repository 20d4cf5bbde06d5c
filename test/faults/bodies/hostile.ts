// Message bodies that are meant to break something, among ordinary logins that must not suffer from
// them. Body `n` of a seed is always the same one.
import { mutate } from "./hostile-mutations.ts";
import { type Random, random } from "./hostile-random.ts";
import {
  DEEPEST,
  deepText,
  envelope,
  extraPair,
  FIELDS,
  type FieldName,
  LARGEST_BODY,
  MOST_KEYS,
  neighbour,
  objectText,
  type Pair,
  sizedText,
  spell,
  widePairs,
} from "./hostile-shapes.ts";
import { address, numberText, otherTypeText, stringText, text, version } from "./hostile-values.ts";

export type Hostile = { readonly kind: Kind; readonly body: string };

type Make = (r: Random, user: string) => string;

const hostileText = (r: Random, field: FieldName): string =>
  field === "ip" ? address(r) : field === "app_version" ? version(r) : text(r);

/** The login with this field's value replaced, or added. */
const withField = (pairs: readonly Pair[], field: FieldName, value: string): Pair[] => [
  ...pairs.filter(([key]) => key !== field),
  [field, value],
];

const shuffled = (r: Random, pairs: readonly Pair[]): Pair[] =>
  pairs
    .map((pair) => ({ pair, at: r.float() }))
    .sort((a, b) => a.at - b.at)
    .map(({ pair }) => pair);

const values: Make = (r, user) => {
  let pairs = neighbour(r, user);
  for (let times = r.between(1, 3); times > 0; times--) {
    const field = r.pick(FIELDS);
    pairs = withField(pairs, field, stringText(r, hostileText(r, field)));
  }
  return spell(r, shuffled(r, pairs));
};

/** At a column's limit, one below it and one beyond, counted in each of the ways that there are. */
const lengths: Make = (r, user) => {
  const field = r.pick(["user_id", "device_type", "locale", "ip", "device_id"] as const);
  const limits = field === "user_id" ? [128] : /^(ip|device_id)$/.test(field) ? [256, 1024] : [32];
  const character = r.pick(["a", "é", "€", "\u{1f600}", "\u{10ffff}", "e\u0301", "\0", "\ud83d"]);
  const count = r.pick<(text: string) => number>([
    (text) => [...text].length,
    (text) => text.length,
    (text) => Buffer.byteLength(text),
  ]);
  const length = r.pick(limits) + r.between(-1, 1);
  let value = character.repeat(Math.floor(length / count(character)));
  value += "z".repeat(length - count(value));
  return spell(r, withField(neighbour(r, user), field, stringText(r, value)));
};

const types: Make = (r, user) =>
  spell(r, shuffled(r, withField(neighbour(r, user), r.pick(FIELDS), otherTypeText(r))));

const numbers: Make = (r, user) =>
  spell(
    r,
    withField(neighbour(r, user), r.chance(0.8) ? "app_version" : r.pick(FIELDS), numberText(r)),
  );

const keys: Make = (r, user) => {
  const extra = Array.from({ length: r.between(1, 4) }, () => extraPair(r));
  return spell(r, shuffled(r, [...neighbour(r, user), ...extra]));
};

const envelopes: Make = (r, user) => {
  let body = r.chance(0.7) ? objectText(neighbour(r, user)) : r.pick([text(r), "", "[]", "null"]);
  // Each level doubles the backslashes of the one inside.
  for (let times = r.magnitude(7); times > 0; times--) body = envelope(r, body);
  if (r.chance(0.6)) return body;
  const type = r.pick(['"Notification"', '"notification"', '["Notification"]', "null", '""']);
  const message = r.pick([stringText(r, body), body, "null", "7", '""', '["{}"]', '"\\ufeff{}"']);
  const pairs: Pair[] = [
    ["Type", type],
    ["Message", message.startsWith("{") || message.startsWith('"') ? message : "[]"],
  ];
  return objectText(shuffled(r, r.chance(0.5) ? [...pairs, ...neighbour(r, user)] : pairs));
};

const deep: Make = (r, user) => {
  const nested = deepText(r, r.magnitude(DEEPEST), r.chance(0.1));
  if (r.chance(0.2)) return nested;
  const key = r.pick(["x", "device", "user", "app", "__proto__", r.pick(FIELDS)]);
  return objectText(shuffled(r, [...neighbour(r, user), [key, nested]]));
};

const wide: Make = (r, user) => {
  const pairs = widePairs(r, r.magnitude(MOST_KEYS));
  const inside: Pair[] = [[r.pick(["device", "x"]), objectText(pairs)]];
  const many = r.chance(0.5) ? pairs : inside;
  const login = neighbour(r, user);
  return objectText(r.chance(0.5) ? [...login, ...many] : [...many, ...login]);
};

const big: Make = (r, user) => {
  const size = LARGEST_BODY - r.pick([0, 0, 0, 1, 2, 3, r.below(200), r.below(LARGEST_BODY / 2)]);
  return sizedText(r, neighbour(r, user), size);
};

const SYNTAX: readonly ((login: string, r: Random) => string)[] = [
  (login) => `\ufeff${login}`,
  (login) => `${login}\ufeff`,
  (login) => login.slice(0, -1),
  (login) => `${login.slice(0, -1)},}`,
  (login) => login + login,
  (login) => `${login}\n${login}`,
  (login) => `[${login}]`,
  (login) => JSON.stringify(login),
  (login) => JSON.stringify(JSON.stringify(login)),
  (login) => login.replaceAll('"', "'"),
  (login) => login.replace(/"(\w+)":/g, "$1:"),
  (login) => `${login}//`,
  (login) => `/**/${login}`,
  (login) => `)]}',\n${login}`,
  (login) => Buffer.from(login).toString("base64"),
  (login) => Buffer.from(login).toString("latin1"),
  (login) => encodeURIComponent(login),
  (login) => login.replaceAll("{", "\u201c"),
  (login) => `${login.slice(0, -1)},"x":undefined}`,
  (login, r) =>
    `${login.slice(0, -1)},"x":${r.pick(["NaN", "Infinity", "-", "+1", "01", "1.", ".5", "0x1", "1e", "1e+", "--1", "tru", "nulL", "True", "1_000", "1n", ""])}}`,
  (login, r) =>
    `${login.slice(0, -1)},"locale":"${r.pick(["\\", "\\u", "\\u12", "\\u123g", "\\x41", "\\u{1f600}", "\\a", "\\'", "\\\n", "\t", "\n", "\u007f", "\u2028", "\\ud83d\\u", "\\U0041", "\\0"])}"}`,
  (_, r) =>
    r.pick(["", " ", "\n", "\t\r\n ", "\ufeff", "\u00a0", "\u3000"]).repeat(r.magnitude(900)),
  (_, r) =>
    r.pick([
      "null",
      "true",
      "0",
      "-0",
      '""',
      "[]",
      "{}",
      "{",
      "}",
      '"',
      "nul",
      "{{}}",
      "[[]",
      '{"":1}',
    ]),
  (_, r) => text(r),
];
const syntax: Make = (r, user) => r.pick(SYNTAX)(objectText(neighbour(r, user)), r);

const mutants: Make = (r, user) => {
  const base = r.pick([
    values,
    lengths,
    types,
    keys,
    envelopes,
    neighbours,
    neighbours,
    neighbours,
  ]);
  return mutate(r, base(r, user), neighbours(r, `${user}-donor`));
};

const neighbours: Make = (r, user) => spell(r, neighbour(r, user));

const KINDS = {
  neighbours: [25, neighbours],
  values: [20, values],
  mutants: [15, mutants],
  keys: [10, keys],
  lengths: [8, lengths],
  types: [7, types],
  syntax: [6, syntax],
  numbers: [4, numbers],
  envelopes: [3, envelopes],
  deep: [0.9, deep],
  wide: [0.8, wide],
  big: [0.3, big],
} as const satisfies Record<string, readonly [weight: number, make: Make]>;
export type Kind = keyof typeof KINDS;

const LIST = Object.entries(KINDS) as [Kind, readonly [number, Make]][];
const TOTAL = LIST.reduce((sum, [, [weight]]) => sum + weight, 0);

/** As SQS can carry it: up to a megabyte, and of the characters that it takes. */
export function hostile(seed: number, n: number): Hostile {
  const { kind, body } = unfiltered(seed, n);
  return { kind, body: deliverable(body) };
}

/** The same as no SQS would take it: with control characters, lone surrogates, and any size. */
export function unfiltered(seed: number, n: number): Hostile {
  const r = random(seed, n);
  let at = r.float() * TOTAL;
  for (const [kind, [weight, make]] of LIST) {
    at -= weight;
    if (at < 0) return { kind, body: make(r, `n-${n}`) };
  }
  return { kind: "neighbours", body: neighbours(r, `n-${n}`) };
}

/** A control character, a lone surrogate and U+FFFE are refused where they are sent. */
function deliverable(body: string): string {
  const taken = body
    .toWellFormed()
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones
    .replace(/[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd");
  if (Buffer.byteLength(taken) <= LARGEST_BODY) return taken;
  const cut = Buffer.from(taken).subarray(0, LARGEST_BODY);
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(cut).replace(/\ufffd$/, "");
}
