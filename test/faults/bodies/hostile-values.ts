// Values that have broken a program somewhere: what a quoting, a counting, a parsing or a terminal may
// stumble over. As the texts that they are, and spelled as JSON in the ways that JSON allows.
import type { Random } from "./hostile-random.ts";

/** Texts as a hostile or a careless client sends them. */
const TEXTS = [
  // SQL, and what Postgres reads in its array and bytea literals.
  "'; drop table public.user_logins; --",
  "' or '1'='1",
  "$1",
  "$$; select pg_sleep(10); $$",
  "E'\\\\x00'",
  "\\x00",
  "\\\\x",
  "\\xdeadbee",
  "{",
  "}",
  "{}",
  '{"a",NULL}',
  '"',
  '\\"',
  "\\",
  "\\\\",
  'a","b',
  "NULL",
  "null",
  ",",
  "(1,2)",
  "[0:1]={1,2}",
  "infinity",
  "-infinity",
  "epoch",
  "now()",
  "2026-02-30",
  "0000-00-00",
  "294277-01-01",
  // Formats, templates, shells, markup, spreadsheets, terminals.
  "%s %n %d %x %p",
  "%00",
  "{0}",
  "{{7*7}}",
  "$\u007b7*7}",
  "`id`",
  "$(id)",
  "../../../../etc/passwd",
  "<script>alert(1)</script>",
  "=cmd|' /C calc'!A0",
  "@SUM(1+1)*cmd|' /C calc'!A0",
  '+1\t-1\r\n"x";y',
  "\u001b[2J\u001b]0;title\u0007",
  "\u001b[31mred\u001b[0m",
  "\r\nSet-Cookie: a=b",
  "\u009b31m",
  // Unicode: right to left, no width, combining, other digits, other cases, nearly nothing at all.
  "\u202eabc\u202c",
  "\u2066\u2069",
  "\u200b",
  "\u200d",
  "\ufeff",
  "\ufeffx",
  "\u00ad",
  "\u2028\u2029",
  "\u0085",
  "\u007f",
  "e\u0301",
  "é",
  `Z${"\u0335\u0321\u0307".repeat(12)}`,
  "👩‍👩‍👧‍👦",
  "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
  "İıſẞǰ",
  "١٢٣",
  "１２３",
  "\u{10ffff}",
  "\u{1f600}",
  "\ufdd0",
  "\ufffd",
  "\ufffdx\ufffd",
  "Ã©â‚¬",
  "À€",
  " ",
  "\t\n",
  "\u3000",
  "",
  // What looks like something of veil's own.
  ...["ip1_aaaaaaaaaaaaaaaaaaaaaaaaaa", "dev1_aaaaaaaaaaaaaaaaaaaaaaaaaa"],
  ...["ip0_aaaaaaaaaaaaaaaaaaaaaaaaaa"],
  ...["age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"],
  ...["AGE-SECRET-KEY-1QQQQQQ", "veil/v1/original", "00000000-0000-0000-0000-000000000000"],
  ...["the body is not JSON"],
  // What a language takes for something else than text.
  ...["__proto__", "constructor", "undefined", "NaN", "true", "[object Object]", "0", "-0"],
  ...["0x10", "1e1000", "9007199254740993", '{"user_id":"inner"}'],
] as const;

/** What no row may hold, wherever in a value it stands. */
const UNSTORABLE = [
  "\0",
  "a\0b",
  "\ud83d",
  "\ude00",
  "\ude00\ud83d",
  "x\ud800",
  "\udfffx",
  "\u{1f600}\ud83d",
] as const;

const ADDRESSES = [
  ...["203.0.113.7", "203.000.113.7", "010.1.1.1", "0x7f.1", "2130706433", "127.1", "256.1.1.1"],
  ...["1.2.3.4.5", "1.2.3", " 1.2.3.4", "1.2.3.4\n", "１.２.３.４", "1.2.3.4:443", "1.2.3.4/24"],
  ...["::", "::1", "0:0:0:0:0:0:0:1", "::ffff:203.0.113.7", "::FFFF:CB00:7107", "::203.0.113.7"],
  ...["2001:DB8::1", "2001:db8:0:0:0::1", "2001:0db8::0001", "fe80::1%eth0", "[::1]", "[::1]:80"],
  ...["1::2::3", ":::", ":", "::ffff:256.1.1.1", "::ffff:1.2.3", "12345::", "g::1", "::1 "],
  ...[
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7",
  ],
  ...["64:ff9b::192.0.2.1", "0:0:0:0:0:ffff:1.2.3.4", "::ffff:0:1.2.3.4", "::%", "::1%", "%eth0"],
] as const;

const VERSIONS = [
  ...[
    "2.3.0",
    "0",
    "00",
    "007.08.09",
    "2146.999.999",
    "2147.0.0",
    "1.1000.0",
    "1.0.1000",
    "2.3.4.5.6",
  ],
  ...[
    "2.3.0-beta",
    "2.3.0+1",
    "2-",
    "2.",
    ".2",
    "2..3",
    "v2",
    "2 ",
    " 2",
    "-1",
    "+1",
    "",
    "latest",
  ],
  ...[
    "2.3.0-\n",
    "2.3.0-\u2028",
    "2.3.0-\u{1f600}",
    "2.3.0-\0",
    "2.3-\ud83d",
    "٢.٣",
    "1e3",
    "0x10",
  ],
  ...["2.3.0beta", "2.-3", "1,2", "NaN", "9007199254740993", "4294967298.0.0", "1.2.3-1.2.3-+-"],
] as const;

const NUMBERS = [
  ...[
    "0",
    "-0",
    "-0.0",
    "1",
    "2146",
    "2147",
    "-1",
    "2.0",
    "2.5",
    "20e-1",
    "1e3",
    "1E+3",
    "1e-3",
    "0e9",
  ],
  ...["1e308", "1e309", "1e400", "-1e400", "1e-400", "-1e-400", "5e-324", "0.1e1", "123e-2"],
  ...["9007199254740991", "9007199254740993", "4294967296", "4294967298", "18446744073709551616"],
  ...["2146.0000000000000000000001", "0.99999999999999999999", "2.2250738585072011e-308"],
  ...["1e99999999999999999999", "1e-99999999999999999999", "0e99999999999999999999"],
] as const;

export function text(r: Random): string {
  const kind = r.below(10);
  if (kind < 6) return r.pick(TEXTS);
  if (kind < 7) return r.pick(UNSTORABLE);
  if (kind < 8) return `${r.pick(TEXTS)}${r.pick(TEXTS)}`;
  if (kind < 9) return r.pick(TEXTS).repeat(r.magnitude(300));
  return Array.from({ length: r.magnitude(200) }, () => String.fromCodePoint(codePoint(r))).join(
    "",
  );
}

export const address = (r: Random): string => (r.chance(0.8) ? r.pick(ADDRESSES) : text(r));

export function version(r: Random): string {
  const kind = r.below(8);
  if (kind < 5) return r.pick(VERSIONS);
  if (kind < 6) return `${"0".repeat(r.magnitude(5000))}${r.below(3000)}.${r.below(1100)}`;
  if (kind < 7) return `1${`.${r.below(12)}`.repeat(r.magnitude(5000))}${r.pick(["", "x", "-"])}`;
  return text(r);
}

/** JSON's spelling of a number; some of them no double can hold. */
export function numberText(r: Random): string {
  const kind = r.below(5);
  if (kind < 3) return r.pick(NUMBERS);
  const digits = Array.from({ length: r.magnitude(5000) }, () => String(r.below(10))).join("");
  return kind < 4 ? `1${digits}` : `${r.below(2147)}.${digits}${r.pick(["", "e1", "E-2", "e+2"])}`;
}

/** What is no string: each of JSON's other types, also where it is empty or holds what would be one. */
export function otherTypeText(r: Random): string {
  return r.pick([
    ...["null", "true", "false", "0", "7", "[]", "{}", '["x"]', '{"id":"x"}', "[null]", "[[]]"],
    ...['{"user_id":"x"}', '[{"user_id":"x"}]', '{"__proto__":"x"}', '{"toString":1}', '{"":""}'],
    numberText(r),
  ]);
}

/** Every spelling of this text that JSON has. */
export function stringText(r: Random, value: string): string {
  const style = r.below(6);
  const written = JSON.stringify(value);
  if (style < 4) return written;
  const escaped = (unit: string) => {
    const hex = unit.charCodeAt(0).toString(16).padStart(4, "0");
    return `\\u${r.chance(0.5) ? hex.toUpperCase() : hex}`;
  };
  if (style < 5) return `"${value.replace(/[\s\S]/g, escaped)}"`;
  return written.replaceAll("/", "\\/").replace(/[\u007f-\uffff]/g, escaped);
}

function codePoint(r: Random): number {
  return r.pick([
    r.below(0x80),
    r.below(0x800),
    r.below(0x1_0000),
    r.between(0xd800, 0xdfff),
    r.between(0x1_0000, 0x10_ffff),
  ]);
}
