import { expect, test } from "bun:test";
import { dayOf, KnownOriginals } from "../../src/line/known-originals.ts";
import type { LoginRow } from "../../src/login/protect.ts";
import { deriveSubkeys, generateTokenKey } from "../../vault/keys.ts";
import { makeToken } from "../../vault/token.ts";

const subkeys = deriveSubkeys(generateTokenKey());
const tokens = (count: number, name = "d"): string[] =>
  Array.from({ length: count }, (_, n) => makeToken(subkeys, "device_id", `${name}-${n}`));

const MAY = new Date("2030-05-31T23:59:59.999Z");
const JUNE = new Date("2030-06-01T00:00:00Z");
const may = { first: dayOf(new Date("2030-05-01")), until: dayOf(JUNE) };
const june = { first: dayOf(JUNE), until: dayOf(new Date("2030-07-01")) };

/** Rows with these tokens, sent at this moment, whose originals were sent with them. */
function add(known: KnownOriginals, added: readonly string[], sentAt = MAY): void {
  const row = { messageId: "m", userId: "u", deviceType: null, locale: null, appVersion: null };
  const rows: LoginRow[] = added.map((token) => ({
    ...row,
    ...{ sentAt, maskedIp: null, maskedDeviceId: token },
  }));
  known.addAll(rows, new Set(added));
}

function knowing(...periods: (typeof may)[]): KnownOriginals {
  const known = new KnownOriginals();
  known.note(periods);
  return known;
}

const knownOf = (known: KnownOriginals, all: readonly string[], sentAt = MAY): string[] =>
  all.filter((token) => known.has(token, dayOf(sentAt)));

test("a token is known once it was added, and no other is", () => {
  const known = knowing(may);
  const added = tokens(2000);
  const others = tokens(2000, "other");
  expect(knownOf(known, added)).toEqual([]);
  add(known, added);
  // Three tokens of one group are one too many: that one is sealed again, which is no harm.
  expect(knownOf(known, added).length).toBeGreaterThan(1980);
  expect(knownOf(known, others)).toEqual([]);
});

test("a token is known in the period that it was stored in, to its last millisecond, and in no other", () => {
  const known = knowing(may, june);
  const added = tokens(500);
  add(known, added);
  expect(knownOf(known, added).length).toBeGreaterThan(490);
  expect(knownOf(known, added, JUNE)).toEqual([]);
  add(known, added, JUNE);
  expect(knownOf(known, added, JUNE).length).toBeGreaterThan(490);
  expect(knownOf(known, added).length).toBeGreaterThan(480);
});

test("of a day in no known period nothing is known, and nothing is remembered", () => {
  const known = knowing(may);
  const added = tokens(100);
  add(known, added, JUNE);
  expect(knownOf(known, added, JUNE)).toEqual([]);
  known.note([june]);
  expect(knownOf(known, added, JUNE)).toEqual([]);
});

test("only tokens whose originals were sent are remembered", () => {
  const known = knowing(may);
  const [sent, left] = tokens(2) as [string, string];
  const row = { messageId: "m", userId: "u", deviceType: null, locale: null, appVersion: null };
  known.addAll(
    [{ ...row, sentAt: MAY, maskedIp: left, maskedDeviceId: sent }],
    new Set([sent, tokens(1, "of no row")[0]!]),
  );
  expect(knownOf(known, [sent, left])).toEqual([sent]);
});

test("a period that has other bounds now takes the place of the one that was known", () => {
  const known = knowing(may);
  known.note([{ first: may.first, until: may.first + 7 }]);
  const added = tokens(10);
  add(known, added);
  expect(knownOf(known, added)).toEqual([]);
});

test("nothing is known after a clear", () => {
  const known = knowing(may);
  const added = tokens(100);
  add(known, added);
  known.clear();
  expect(knownOf(known, added)).toEqual([]);
});

test("tokens that come again and again stay known while new ones pass", () => {
  const known = knowing(may);
  const often = tokens(500);
  add(known, often);
  for (let round = 0; round < 20; round++) {
    add(known, tokens(5000, `round-${round}`));
    add(known, often);
  }
  // What two busy neighbours have pushed out is sealed once more than needed, no more than that.
  expect(knownOf(known, often).length).toBeGreaterThan(490);
});
