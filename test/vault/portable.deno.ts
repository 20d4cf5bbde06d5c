// Run by portable.test.ts under Deno, without any permission: the formats and the pure half of the line
// need no environment, file, network or clock, and give the same bytes there.
import { parseMessage } from "../../src/login/parse.ts";
import { protect } from "../../src/login/protect.ts";
import { chainHash, genesisHash } from "../../vault/audit.ts";
import { parseAuditKey, signCheckpoint, verifyCheckpoint } from "../../vault/checkpoint.ts";
import { checkProof } from "../../vault/data-key.ts";
import * as vault from "../../vault/vault.ts";
import * as vectors from "../vectors/vectors.ts";

let checks = 0;
const same = (what: string, got: unknown, expected: unknown): void => {
  checks++;
  if (JSON.stringify(got) !== JSON.stringify(expected)) throw new Error(`${what} differs`);
};
const throws = (what: string, act: () => unknown): void => {
  let thrown = false;
  try {
    act();
  } catch {
    thrown = true;
  }
  same(what, thrown, true);
};
const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const bytes = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));

for (const { generation, tokenKey, subkeys } of vectors.keys.keys) {
  const derived = vault.deriveSubkeys({ generation, bytes: bytes(tokenKey) });
  const { ip, deviceId, verify, check } = derived;
  same("a subkey", [ip, deviceId, verify, check].map(hex), Object.values(subkeys));
}
for (const { field, value, canonical } of vectors.canonical.accept) {
  same("a canonical form", hex(vault.canonicalBytes(field, value)), canonical);
}
for (const { value } of vectors.canonical.reject) {
  throws("a lone surrogate", () => vault.canonicalBytes("ip", value));
}
for (const { generation, tokenKey, field, value, token } of vectors.tokens.tokens) {
  const subkeys = vault.deriveSubkeys({ generation, bytes: bytes(tokenKey) });
  same("a token", vault.makeToken(subkeys, field, value), token);
}
for (const { text, field, generation } of vectors.tokens.accept) {
  same("a token's parts", vault.parseToken(text), { field, generation });
}
for (const { text } of vectors.tokens.reject) same("no token", vault.parseToken(text), null);
for (const { line, written } of vectors.keyLines.accept) {
  const key = vault.parseKey(line);
  same("a key's line", key === null ? null : vault.formatKey(key), written);
}
for (const { line } of vectors.keyLines.reject) same("no key", vault.parseKey(line), null);
for (const { text, kind } of vectors.recipients.accept) {
  same("a recipient", vault.recipientKind(text), kind);
}
for (const { text } of vectors.recipients.reject) {
  same("no recipient", vault.recipientKind(text), null);
}
for (const { dataKey, place, nonce, text, sealed } of vectors.seals.accept) {
  same("a seal", hex(vault.seal(bytes(dataKey), place, text, bytes(nonce))), sealed);
  same("an original", vault.open(bytes(dataKey), place, bytes(sealed)), text);
}
for (const { dataKey, place, sealed } of vectors.seals.reject) {
  same("a tampered seal", vault.open(bytes(dataKey), place, bytes(sealed)), null);
}
for (const expected of [true, false]) {
  for (const vector of expected ? vectors.proofs.accept : vectors.proofs.reject) {
    const { verifyKey, id, dataKey, proof } = vector;
    const good = checkProof(bytes(verifyKey), id, bytes(dataKey), bytes(proof));
    same("a proof", good, expected);
  }
}
for (const { identities, dataKey, wrapped } of vectors.wrapped.files) {
  for (const identity of identities) {
    const key = await vault.unwrapDataKey(bytes(wrapped), [identity]);
    same("a wrapped key", key === null ? null : hex(key), dataKey);
  }
}

let previous = genesisHash(vectors.audit.chain);
for (const { position, id, at, hash, ...columns } of vectors.audit.entries) {
  const entry = { ...columns, id: BigInt(id), at: at === null ? null : BigInt(at) };
  previous = chainHash(previous, BigInt(position), entry);
  same("a hash of the audit's chain", hex(previous), hash);
}
for (const expected of [true, false]) {
  for (const vector of expected ? vectors.audit.accept : vectors.audit.reject) {
    const key = parseAuditKey(vector.secretKey);
    if (key === null) throw new Error("a key that was published is none");
    const checkpoint = {
      ...vector,
      ...{
        position: BigInt(vector.position),
        entry: BigInt(vector.entry),
        hash: bytes(vector.hash),
      },
      marks: vector.marks.map(([position, hash]) => ({
        ...{ position: BigInt(position ?? 0), hash: bytes(hash ?? "") },
      })),
    };
    const good = await verifyCheckpoint(key, checkpoint, bytes(vector.signature));
    same("a checkpoint", good, expected);
    if (expected) same("a signature", hex(await signCheckpoint(key, checkpoint)), vector.signature);
  }
}

// From a message to its row and back to the original, with keys made here.
const subkeys = vault.deriveSubkeys(vault.generateTokenKey());
const dataKey = vault.generateDataKey(1);
const { identity, recipient } = await vault.generateIdentity("classic");
const wrapped = await vault.wrapDataKey(dataKey, [recipient], subkeys.verify);
const bodies = ['{"user_id":"u1","ip":"203.0.113.7","device":{"id":"d1"}}', "not JSON"];
const batch = protect(
  bodies.map((body, i) => ({
    id: `m${i}`,
    sentAt: new Date(0),
    body,
    parsed: parseMessage(body),
  })),
  subkeys,
  dataKey,
);
const opened = await vault.unwrapDataKey(wrapped.wrapped, [identity]);
if (opened === null) throw new Error("a data key that was wrapped here does not open");
const tokens = ["ip", "device_id"] as const;
const originals = ["203.0.113.7", "d1"];
const made = tokens.map((field, i) => vault.makeToken(subkeys, field, originals[i] ?? ""));
same("a row's tokens", [batch.rows[0]?.maskedIp, batch.rows[0]?.maskedDeviceId], made);
const revealed = made.map((token) => {
  const sealed = batch.originals.get(token);
  return sealed && vault.open(opened, { kind: "original", token }, sealed);
});
same("the originals", revealed, originals);
const rejected = batch.rejected[0];
const place = { kind: "quarantine", messageId: "m1" } as const;
same("a quarantined body", rejected && vault.open(opened, place, rejected.sealed), "not JSON");

console.log(`OK ${checks}`);
