// Ten thousand messages as the world sends them, the same every time: logins in every shape that is
// one, and what cannot become a row in every way that there is.
import type { Sent } from "./expected.ts";

/** Each with the reason that its quarantine entry has to give. */
export const BROKEN: readonly (readonly [body: (n: number) => string, reason: string])[] = [
  [(n) => `{"user_id":"u${n}","ip":"198.51.100.9`, "the body is not JSON"],
  [(n) => JSON.stringify([{ user_id: `u${n}` }]), "the body is an array, expected an object"],
  [
    (n) => JSON.stringify({ foo: `oops ${n}` }),
    "this is another type of message: it has none of a login's fields",
  ],
  [(n) => JSON.stringify({ ip: `198.51.100.${n % 256}` }), "user_id is missing"],
  [() => JSON.stringify({ user_id: "", ip: "198.51.100.9" }), "user_id is empty"],
  [(n) => JSON.stringify({ user_id: n }), "user_id is a number, expected a string"],
  [
    (n) => JSON.stringify({ user_id: `u${n}`, ip: ["198.51.100.9"] }),
    "ip is an array, expected a string",
  ],
  [
    (n) => JSON.stringify({ user_id: `u${n}`, device_id: "ü".repeat(513) }),
    "device_id is longer than 1024 bytes",
  ],
  [() => JSON.stringify({ user_id: "😀".repeat(129) }), "user_id is longer than 128 characters"],
  [
    (n) => JSON.stringify({ user_id: `u${n}`, app_version: "latest" }),
    "app_version is not written as a version",
  ],
  [
    (n) => JSON.stringify({ user_id: `u${n}`, app_version: "1.1000.0" }),
    "app_version is out of range: parts go up to 999, the first up to 2146",
  ],
  [(n) => JSON.stringify({ user_id: `u${n}`, locale: "a\0b" }), "locale holds a NUL character"],
  [(n) => `{"user_id":"u${n}","device_id":"\\ud83d"}`, "device_id holds a lone surrogate"],
  [
    (n) => JSON.stringify({ user_id: `u${n}`, device_id: "a", device: { id: "b" } }),
    "device_id is ambiguous: two paths of the message lead to it",
  ],
  [
    (n) => JSON.stringify({ Type: "Notification", Message: `not a login ${n}` }),
    "the message in its SNS envelope is not JSON",
  ],
];

/** One address each, in the spelling that is sent first and in others. */
export const ADDRESSES: readonly (readonly string[])[] = [
  ["2001:DB8:0:0:8:800:200C:417A", "2001:db8::8:800:200c:417a", "2001:0db8::0008:0800:200c:417a"],
  ["::ffff:192.0.2.33", "192.0.2.33", "::FFFF:c000:0221", "0:0:0:0:0:ffff:192.0.2.33"],
  ["192.0.2.44", "::ffff:192.0.2.44"],
  ["::1", "0:0:0:0:0:0:0:1", "0000::0001"],
  ["::", "0:0:0:0:0:0:0:0"],
  ["64:ff9b::192.0.2.1", "64:ff9b::c000:201"],
  ["fe80::1", "FE80:0::0:1"],
];

/** Not addresses, however much some of them look like one: each is the text that it is. */
export const TEXTS = [
  "010.1.1.1",
  "10.1.1.1 ",
  "fe80::1%eth0",
  "[::1]",
  "192.0.2.1:443",
  "256.1.1.1",
  "host.example",
  "1.2.3",
  "12345::",
  "::ffff:192.0.2.033",
  "مضيف.example",
  "١٩٢.٠.٢.١",
];

export const USERS = [
  "anna",
  "zoë",
  "zoe\u0308",
  "משה",
  "👩‍👩‍👧‍👦",
  "名無し",
  "a\u202eb",
  "O'Brien",
  '"q\\u"',
];
export const LOCALES = [
  "de_DE",
  null,
  "ar-EG-u-nu-arab",
  "日本語",
  "",
  "e\u0301n",
  "{a,b}",
  "NULL",
];
export const TYPES = ["ios", "android", null, "téléphone", "📱".repeat(32), "\\x00", "a\tb\nc"];
export const VERSIONS = [
  "2.3.0",
  null,
  "2.10",
  "10.0.1-beta.2",
  "3.0.0.9+x",
  "007.08.09",
  5,
  "2146.999.999",
];
const DEVICES = (n: number): string =>
  [
    `593-47-${n}`,
    `📱${n}👩🏽‍💻`,
    `e\u0301-${n}`,
    `é-${n}`,
    `جهاز-${n}`,
    ` ${n} `,
    `${n}\u0000`.slice(0, -1),
    `'; drop table x; -- ${n}`,
    `"${n}\\"`,
    `\ufeff${n}`,
    "0".repeat(1000) + n,
    `${n}\r\n`,
  ][n % 12]!;

export type Corpus = readonly CorpusMessage[];
export type CorpusMessage =
  | { readonly body: string; readonly login: Sent }
  | { readonly body: string; readonly login: null; readonly reason: string };

/** Message `n`; from `secondHalf` on, addresses come in other spellings than the first. */
export function message(n: number, secondHalf: boolean): CorpusMessage {
  if (n % 33 === 0) {
    const [body, reason] = BROKEN[(n / 33) % BROKEN.length]!;
    return { body: body(n), login: null, reason };
  }
  const login: Sent = {
    user_id: `${USERS[n % USERS.length]}-${n % 700}`,
    device_type: TYPES[n % TYPES.length]!,
    ip: address(n, secondHalf),
    locale: LOCALES[n % LOCALES.length]!,
    device_id: n % 17 === 0 ? null : n % 19 === 0 ? "" : DEVICES(n % 3000),
    app_version: VERSIONS[n % VERSIONS.length]!,
  };
  return { body: SPELLINGS[n % SPELLINGS.length]!(login), login };
}

function address(n: number, secondHalf: boolean): string | null {
  if (n % 13 === 0) return null;
  if (n % 7 === 0) return TEXTS[(n / 7) % TEXTS.length]!;
  if (n % 5 === 0) {
    const spellings = ADDRESSES[(n / 5) % ADDRESSES.length]!;
    return spellings[secondHalf ? n % spellings.length : 0]!;
  }
  return n % 2 === 0
    ? `203.0.${n % 114}.${n % 251}`
    : `2001:db8:${(n % 900).toString(16)}::${(n % 1300).toString(16)}`;
}

/** Flat, nested, inside an SNS envelope, with keys that mean nothing, or without the nulls. */
export const SPELLINGS: readonly ((login: Sent) => string)[] = [
  ({ device_id, device_type, ...rest }) =>
    JSON.stringify({ ...rest, device: { id: device_id, type: device_type, os: "x" } }),
  (login) => {
    const inner = JSON.stringify(login);
    return JSON.stringify({ Type: "Notification", MessageId: "m", Message: inner });
  },
  (login) => JSON.stringify({ ...login, Type: "login", more: { ip: "192.0.2.250" }, ips: ["x"] }),
  (login) =>
    JSON.stringify(Object.fromEntries(Object.entries(login).filter(([, value]) => value !== null))),
  (login) => JSON.stringify(login, null, 2),
  (login) =>
    JSON.stringify(login).replace(/[\u007f-\uffff]/g, (unit) => {
      return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
    }),
];
