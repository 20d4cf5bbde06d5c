import { expect, test } from "bun:test";
import * as vault from "veil/vault";
import * as vectors from "../vectors/vectors.ts";

test("another program makes veil's tokens through veil/vault", () => {
  const { generation, tokenKey, field, value, token } = vectors.tokens.tokens[0]!;
  const bytes = new Uint8Array(Buffer.from(tokenKey, "hex"));
  const line = vault.formatKey({ generation, bytes });
  const subkeys = vault.deriveSubkeys(vault.parseKey(line)!);
  expect(vault.makeToken(subkeys, field, value)).toBe(token);
});

test("veil/vault exports what it promises, and nothing more", () => {
  expect(Object.keys(vault).sort()).toEqual([
    ...["MAX_SEALS_PER_DATA_KEY", "canonicalBytes", "checkProof", "deriveSubkeys", "formatKey"],
    ...["generateDataKey", "generateIdentity", "generateTokenKey", "isIdentity", "makeToken"],
    ...["open", "parseKey", "parseToken", "recipientKind", "seal", "unwrapDataKey", "wrapDataKey"],
  ]);
});

test("the rest of veil is not importable by its name", async () => {
  for (const path of ["veil", "veil/vault/seal.ts", "veil/src/cli.ts", "veil/vault/vault.ts"]) {
    await expect(import(path)).rejects.toThrow();
  }
});
