// What an opener remembers of data keys answers for those very bytes, and for nothing that goes by their name.
import { beforeAll, expect, test } from "bun:test";
import { OpeningKeys, type SealedDataKey } from "../../src/keys/open.ts";
import { generateIdentity } from "../../vault/age.ts";
import { type DataKey, generateDataKey, wrapDataKey } from "../../vault/data-key.ts";
import { deriveSubkeys, generateTokenKey } from "../../vault/keys.ts";
import { seal } from "../../vault/seal.ts";
import { makeToken } from "../../vault/token.ts";

const subkeys = deriveSubkeys(generateTokenKey());
const text = "192.0.2.1";
const token = makeToken(subkeys, "ip", text);
const place = { kind: "original", token } as const;
let identity: string;
let recipient: string;
beforeAll(async () => {
  ({ identity, recipient } = await generateIdentity("classic"));
});

async function wrapped(key: DataKey, verifyKey = subkeys.verify): Promise<SealedDataKey> {
  const { id, generation, wrapped, proof } = await wrapDataKey(key, [recipient], verifyKey);
  return { id, generation, wrapped, proof };
}

test("two wrappings or proofs under one id do not answer for each other, whichever comes first", async () => {
  const key = generateDataKey(1);
  const good = await wrapped(key);
  const again = await wrapped(key);
  const other = await wrapped({ ...generateDataKey(1), id: key.id });
  const forged = [
    { ...good, wrapped: other.wrapped },
    { ...good, proof: other.proof },
    {
      ...good,
      proof: new Uint8Array(0),
      wrapped: new Uint8Array([...good.proof, ...good.wrapped]),
    },
    { ...good, generation: 2 },
    { ...good, id: crypto.randomUUID() },
    await wrapped(key, generateTokenKey().bytes),
  ];
  const sealed = seal(key.bytes, place, text);
  for (const order of [
    [good, again, ...forged, good],
    [...forged, again, good],
  ]) {
    const opener = new OpeningKeys({ identities: [identity], verifyKey: null, subkeys });
    for (const dataKey of order) {
      const opened = await opener.open({ dataKey: { ...dataKey }, sealed }, place);
      const isGood = dataKey === good || dataKey === again;
      expect(opened).toEqual(isGood ? { text, verified: true } : null);
    }
  }
});
