import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { canonicalBytes } from "../../vault/canonical.ts";
import * as independent from "../vectors/independent.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const canonicalHex = (value: string): string => hex(canonicalBytes("ip", value));

const byte = fc.integer({ min: 0, max: 255 });
const ipv4 = fc.tuple(byte, byte, byte, byte);
/** Groups of zeros more often than chance has them: they are what the spellings differ in. */
const group = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff }));
const ipv6 = fc.array(group, { minLength: 8, maxLength: 8 });

const dotted = (bytes: readonly number[]): string => bytes.join(".");

/** One spelling of eight groups after RFC 4291 section 2.2, chosen by `choose(n)`: 0 to n - 1. */
function spell(groups: readonly number[], choose: (choices: number) => number): string {
  const texts = groups.map((value) => {
    const short = value.toString(16);
    const long = short.padStart(short.length + choose(5 - short.length), "0");
    return Array.from(long, (c) => (choose(2) === 1 ? c.toUpperCase() : c)).join("");
  });
  const isDotted = choose(3) === 0;
  if (isDotted) {
    const [high, low] = [groups[6]!, groups[7]!];
    texts.splice(6, 2, dotted([high >> 8, high & 255, low >> 8, low & 255]));
  }
  const zeros = groups.slice(0, isDotted ? 6 : 8).flatMap((value, i) => (value === 0 ? [i] : []));
  if (zeros.length === 0 || choose(3) === 0) return texts.join(":");
  const start = zeros[choose(zeros.length)]!;
  let longest = 1;
  while (zeros.includes(start + longest)) longest++;
  const length = 1 + choose(longest);
  return `${texts.slice(0, start).join(":")}::${texts.slice(start + length).join(":")}`;
}

const spelling = (groups: readonly number[]) =>
  fc
    .infiniteStream(fc.nat())
    .map((stream) => spell(groups, (choices) => (stream.next().value ?? 0) % choices));

const MANY = { numRuns: 2000 };

describe("an IPv6 address", () => {
  test("has one canonical form in every spelling of RFC 4291", () => {
    const spelled = ipv6.chain((groups) => fc.tuple(fc.constant(groups), spelling(groups)));
    fc.assert(
      fc.property(spelled, ([groups, text]) => {
        const all = groups.map((value) => value.toString(16).padStart(4, "0")).join("");
        const mapped = /^0{20}ffff(.{8})$/.exec(all);
        expect(canonicalHex(text)).toBe(mapped === null ? `36${all}` : `34${mapped[1]}`);
      }),
      MANY,
    );
  });

  test("is spelled with and without `::`, dots, zeros and capitals by this test", () => {
    const texts = fc.sample(
      ipv6.chain((groups) => spelling(groups)),
      { numRuns: 500, seed: 1 },
    );
    for (const kind of [/::/, /^[^:].*::.*[^:]$/, /^::/, /::$/, /\./, /\b0\w/, /[A-F]/, /[a-f]/]) {
      expect(texts.some((text) => kind.test(text))).toBe(true);
    }
  });
});

describe("an IPv4 address", () => {
  test("and its mapped IPv6 spellings are one", () => {
    const spelled = ipv4.chain((bytes) => {
      const [a, b, c, d] = bytes;
      const groups = [0, 0, 0, 0, 0, 0xffff, (a << 8) | b, (c << 8) | d];
      return fc.tuple(fc.constant(bytes), spelling(groups));
    });
    fc.assert(
      fc.property(spelled, ([bytes, text]) => {
        const expected = `34${hex(Uint8Array.from(bytes))}`;
        expect(canonicalHex(dotted(bytes))).toBe(expected);
        expect(canonicalHex(text)).toBe(expected);
      }),
      MANY,
    );
  });

  test("is not its IPv4-compatible, translated or 6to4 form", () => {
    for (const other of [
      "::192.0.2.1",
      "::ffff:0:192.0.2.1",
      "64:ff9b::192.0.2.1",
      "2002:c000:201::",
    ]) {
      expect(canonicalHex(other)).toStartWith("36");
    }
  });

  test("with a leading zero in any part is text", () => {
    fc.assert(
      fc.property(ipv4, fc.nat(3), fc.constantFrom("0", "00"), (bytes, at, zeros) => {
        const text = bytes.map((part, i) => (i === at ? `${zeros}${part}` : part)).join(".");
        expect(canonicalHex(text)).toBe(`30${hex(Buffer.from(text))}`);
        expect(canonicalHex(`::ffff:${text}`)).toStartWith("30");
      }),
    );
  });

  test("with a part above 255 is text", () => {
    fc.assert(
      fc.property(ipv4, fc.nat(3), fc.integer({ min: 256, max: 99999 }), (bytes, at, part) => {
        const text = dotted(bytes.with(at, part));
        expect(canonicalHex(text)).toStartWith("30");
        expect(canonicalHex(`::${text}`)).toStartWith("30");
      }),
    );
  });
});

describe("every other text", () => {
  const address = fc.oneof(
    ipv4.map(dotted),
    ipv6.chain((groups) => spelling(groups)),
  );
  /** An address with one character put in, taken out or replaced: mostly no address any more. */
  const nearly = fc
    .tuple(address, fc.nat(), fc.constantFrom(..."0123456789abcdefABCDEFg:.%/[] \n-"), fc.nat(2))
    .map(([text, at, character, edit]) => {
      const index = at % (text.length + 1);
      const kept = text.slice(edit === 0 ? index : index + 1);
      return text.slice(0, index) + (edit === 2 ? "" : character) + kept;
    });
  const soup = fc.string({ unit: fc.constantFrom(..."01fF:."), maxLength: 46 });

  test("is read as an address exactly where the platform reads one", () => {
    let addresses = 0;
    fc.assert(
      fc.property(fc.oneof(address, nearly, soup), (text) => {
        const expected = independent.canonicalBytes("ip", text);
        if (expected[0] !== 0x30) addresses++;
        expect({ text, canonical: canonicalHex(text) }).toEqual({ text, canonical: hex(expected) });
      }),
      { numRuns: 5000, seed: 4291 },
    );
    // Both kinds were met, each in numbers.
    expect(addresses).toBeGreaterThan(1000);
    expect(addresses).toBeLessThan(4000);
  });

  test("never shares its canonical bytes with an address or another text", () => {
    const anything = fc.oneof(fc.string({ unit: "binary" }), nearly, soup, address);
    fc.assert(
      fc.property(anything, anything, (one, other) => {
        const isText = (value: string) => independent.addressBytes(value) === null;
        if (isText(one)) expect(canonicalHex(one)).toBe(`30${hex(Buffer.from(one))}`);
        if (one !== other && (isText(one) || isText(other))) {
          expect(canonicalHex(one)).not.toBe(canonicalHex(other));
        }
      }),
      MANY,
    );
  });

  test("around an address makes it text", () => {
    const around = fc.constantFrom(
      " ",
      "\t",
      "\n",
      "\r\n",
      "\0",
      "\u00a0",
      "[",
      "]",
      "%",
      "/",
      "'",
    );
    fc.assert(
      fc.property(address, around, (text, more) => {
        for (const changed of [text + more, more + text]) {
          expect(canonicalHex(changed)).toBe(`30${hex(Buffer.from(changed))}`);
        }
      }),
    );
  });

  test("of any length is read in a time that its length alone decides", () => {
    for (const piece of [":", "::", "0:", "1.", "0", "f:f"]) {
      const text = piece.repeat(200_000);
      // This process's own time: others may keep it waiting.
      const start = process.cpuUsage();
      expect(canonicalHex(text)).toStartWith("30");
      expect(process.cpuUsage(start).user).toBeLessThan(1_000_000);
    }
  });
});

describe("a device id", () => {
  test("is its UTF-8, untouched", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(hex(canonicalBytes("device_id", text))).toBe(hex(Buffer.from(text)));
      }),
    );
  });

  test("in another normal form is another device id", () => {
    const bytes = ["NFC", "NFD"].map((form) =>
      hex(canonicalBytes("device_id", "é".normalize(form))),
    );
    expect(bytes).toEqual(["c3a9", "65cc81"]);
  });
});

test("a lone surrogate anywhere in a text has no canonical bytes", () => {
  const surrogate = fc.integer({ min: 0xd800, max: 0xdfff }).map((n) => String.fromCharCode(n));
  // Neighbours that cannot make a pair of it.
  const ascii = fc.string({ unit: "grapheme-ascii" });
  fc.assert(
    fc.property(
      ascii,
      surrogate,
      ascii,
      fc.constantFrom("ip", "device_id"),
      (a, lone, b, field) => {
        expect(() => canonicalBytes(field, a + lone + b)).toThrow("lone surrogate");
      },
    ),
  );
});
