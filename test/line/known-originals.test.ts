import { expect, test } from "bun:test";
import { KnownOriginals } from "../../src/line/known-originals.ts";
import { deriveSubkeys, generateTokenKey } from "../../vault/keys.ts";
import { makeToken } from "../../vault/token.ts";

const subkeys = deriveSubkeys(generateTokenKey());
const tokens = (count: number, name = "d"): string[] =>
  Array.from({ length: count }, (_, n) => makeToken(subkeys, "device_id", `${name}-${n}`));

test("a token is known once it was added, and no other is", () => {
  const known = new KnownOriginals();
  const added = tokens(2000);
  const others = tokens(2000, "other");
  expect(added.filter((token) => known.has(token))).toEqual([]);
  known.addAll(added);
  // Three tokens of one group are one too many: that one is sealed again, which is no harm.
  expect(added.filter((token) => known.has(token)).length).toBeGreaterThan(1980);
  expect(others.filter((token) => known.has(token))).toEqual([]);
});

test("nothing is known after a clear", () => {
  const known = new KnownOriginals();
  const added = tokens(100);
  known.addAll(added);
  known.clear();
  expect(added.filter((token) => known.has(token))).toEqual([]);
});

test("tokens that come again and again stay known while new ones pass", () => {
  const known = new KnownOriginals();
  const often = tokens(500);
  known.addAll(often);
  for (let round = 0; round < 20; round++) {
    known.addAll(tokens(5000, `round-${round}`));
    known.addAll(often);
  }
  // What two busy neighbours have pushed out is sealed once more than needed, no more than that.
  expect(often.filter((token) => known.has(token)).length).toBeGreaterThan(490);
});
