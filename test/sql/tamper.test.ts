// What somebody who can write to the database may do to the vault: whatever he alters is refused, and
// the untouched tokens of the same call are answered.
import { afterEach, beforeEach, expect, test } from "bun:test";
import type postgres from "postgres";
import {
  readIdentities,
  readOptionalTokenKey,
  readTokenKey,
  readVerifyKey,
} from "../../src/config/keys.ts";
import { OpeningKeys } from "../../src/keys/open.ts";
import type { Database } from "../../src/postgres/database.ts";
import type { RevealedPage } from "../../src/recovery/reveal.ts";
import { generateDataKey, proveDataKey, wrapDataKey } from "../../vault/data-key.ts";
import { seal } from "../../vault/seal.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys } from "../support/keys.ts";
import { reveal } from "../support/reveal.ts";
import { type Host, makeHost } from "./host.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
let etl: Database;
let revealer: Database;
beforeEach(async () => {
  database = await createDatabase();
  etl = database.open(database.url("etl"));
  revealer = database.open(database.url("revealer"));
  owner = database.sql(database.ownerUrl);
  host = await makeHost();
});
afterEach(async () => {
  await database.drop();
});

type Configured = "verify key" | "token key" | "both" | "neither";
const CONFIGURED: readonly Configured[] = ["verify key", "token key", "both", "neither"];

function openingKeys(configured: Configured): OpeningKeys {
  const { VEIL_IDENTITY, VEIL_VERIFY_KEY, VEIL_TOKEN_KEY } = host.keys;
  const env = {
    VEIL_IDENTITY,
    ...(configured === "verify key" || configured === "both" ? { VEIL_VERIFY_KEY } : {}),
    ...(configured === "token key" || configured === "both" ? { VEIL_TOKEN_KEY } : {}),
  };
  return new OpeningKeys({
    identities: readIdentities(env),
    verifyKey: readVerifyKey(env),
    subkeys: readOptionalTokenKey(env),
  });
}

const ask = (tokens: readonly string[], configured: Configured): Promise<RevealedPage> =>
  reveal(revealer, openingKeys(configured), tokens, null);

const ip = (n: number): string => `198.51.${n >> 8}.${n & 255}`;

/** Seals one original per number, all under this host's one data key. */
async function sealAll(count: number, sealing = host, first = 0): Promise<string[]> {
  const numbers = Array.from({ length: count }, (_, i) => first + i);
  await sealing.load(
    etl,
    numbers.map((n) => ({ id: `m${n}`, body: { user_id: "u", ip: ip(n) } })),
  );
  return numbers.map((n) => host.token("ip", ip(n)));
}

/** The same, but each under a data key of its own. */
async function sealApart(count: number): Promise<string[]> {
  const tokens: string[] = [];
  for (let n = 0; n < count; n++) {
    tokens.push(...(await sealAll(1, await makeHost(host.keys), n)));
  }
  return tokens;
}

const originals = (result: RevealedPage) => result.revealed.map((found) => found.original);

test("what nobody touched is revealed, and verified where a key says so", async () => {
  const tokens = await sealAll(3);
  for (const configured of CONFIGURED) {
    const result = await ask(tokens, configured);
    expect(originals(result)).toEqual([ip(0), ip(1), ip(2)]);
    const verified = configured === "neither" ? null : true;
    expect(result.revealed.map((found) => found.verified)).toEqual([verified, verified, verified]);
    expect([result.unopened, result.unknown]).toEqual([[], []]);
  }
});

test("one bit of any byte of a seal makes its token refused, and no other", async () => {
  const tokens = await sealAll(64);
  const [length] =
    await owner`select distinct octet_length(sealed) as bytes from pii_vault.originals`;
  const bytes = Number(length?.bytes);
  expect(bytes).toBe(12 + 16 + 16);
  for (let i = 0; i < bytes; i++) {
    await owner`
      update pii_vault.originals
      set sealed = set_bit(sealed, ${i * 8 + (i % 8)}, 1 - get_bit(sealed, ${i * 8 + (i % 8)}))
      where token = ${tokens[i]!}`;
  }
  const result = await ask(tokens, "neither");
  expect(result.unopened).toEqual(tokens.slice(0, bytes));
  expect(originals(result)).toEqual(tokens.slice(bytes).map((_, i) => ip(bytes + i)));
});

test("one bit of any byte of a wrapped data key makes its tokens refused, and no others", async () => {
  const probe = await generateAndWrap();
  const tokens = await sealApart(probe.wrapped.length + 2);
  for (let i = 0; i < probe.wrapped.length; i++) {
    await owner`
      update pii_vault.data_keys
      set wrapped = set_bit(wrapped, ${i * 8 + (i % 8)}, 1 - get_bit(wrapped, ${i * 8 + (i % 8)}))
      where id = (select data_key from pii_vault.originals where token = ${tokens[i]!})`;
  }
  const result = await ask(tokens, "neither");
  expect(result.unopened).toEqual(tokens.slice(0, probe.wrapped.length));
  expect(originals(result)).toEqual([ip(probe.wrapped.length), ip(probe.wrapped.length + 1)]);
});

const generateAndWrap = async () => {
  const key = generateDataKey(1);
  return await wrapDataKey(key, [host.keys.VEIL_RECIPIENTS], host.subkeys.verify);
};

test("one bit of any byte of a proof makes its tokens refused where a key can check it", async () => {
  const tokens = await sealApart(34);
  for (let i = 0; i < 32; i++) {
    await owner`
      update pii_vault.data_keys
      set proof = set_bit(proof, ${i * 8 + (i % 8)}, 1 - get_bit(proof, ${i * 8 + (i % 8)}))
      where id = (select data_key from pii_vault.originals where token = ${tokens[i]!})`;
  }
  for (const configured of ["verify key", "token key", "both"] as const) {
    const result = await ask(tokens, configured);
    expect(result.unopened).toEqual(tokens.slice(0, 32));
    expect(originals(result)).toEqual([ip(32), ip(33)]);
  }
  const unchecked = await ask(tokens, "neither");
  expect(unchecked.unopened).toEqual([]);
  expect(unchecked.revealed.every((found) => found.verified === null)).toBe(true);
});

test("a seal that was moved to another token is refused", async () => {
  const [a, b, c] = (await sealAll(3)) as [string, string, string];
  await owner`
    update pii_vault.originals set sealed = (
      select o.sealed from pii_vault.originals o where o.token = ${a}
    ) where token = ${b}`;
  for (const configured of CONFIGURED) {
    const result = await ask([a, b, c], configured);
    expect(result.unopened).toEqual([b]);
    expect(originals(result)).toEqual([ip(0), ip(2)]);
  }
});

test("two tokens whose seals and keys were swapped are refused", async () => {
  const [a, b, c] = (await sealApart(3)) as [string, string, string];
  await owner`
    update pii_vault.originals o set data_key = p.data_key, sealed = p.sealed
    from pii_vault.originals p
    where (o.token, p.token) in ((${a}, ${b}), (${b}, ${a}))`;
  for (const configured of CONFIGURED) {
    const result = await ask([a, b, c], configured);
    expect(result.unopened).toEqual([a, b]);
    expect(originals(result)).toEqual([ip(2)]);
  }
});

test("data keys that were swapped, misnamed or taken away leave their tokens refused", async () => {
  const tokens = (await sealApart(6)) as [string, string, string, string, string, string];
  const [a, b, c, d, e, f] = tokens;
  const keyOf = (token: string) =>
    owner`select data_key from pii_vault.originals where token = ${token}`;
  // a and b: the wrapped keys change places, proofs and all.
  await owner`
    update pii_vault.data_keys k set wrapped = o.wrapped, proof = o.proof
    from pii_vault.data_keys o
    where (k.id, o.id) in (((${keyOf(a)}), (${keyOf(b)})), ((${keyOf(b)}), (${keyOf(a)})))`;
  // c names e's data key, d one that does not exist, f's is gone.
  await owner`update pii_vault.originals set data_key = (${keyOf(e)}) where token = ${c}`;
  await owner`update pii_vault.originals set data_key = gen_random_uuid() where token = ${d}`;
  await owner`delete from pii_vault.data_keys where id = (${keyOf(f)})`;
  for (const configured of CONFIGURED) {
    const result = await ask(tokens, configured);
    expect(result.unopened).toEqual([a, b, c, d, f]);
    expect(originals(result)).toEqual([ip(4)]);
    expect(result.unknown).toEqual([]);
  }
});

test("a data key under another id is refused where a key can check its proof", async () => {
  const [a, b] = (await sealApart(2)) as [string, string];
  const id = crypto.randomUUID();
  await owner`
    update pii_vault.data_keys set id = ${id}
    where id = (select data_key from pii_vault.originals where token = ${a})`;
  await owner`update pii_vault.originals set data_key = ${id} where token = ${a}`;
  for (const configured of ["verify key", "token key", "both"] as const) {
    const result = await ask([a, b], configured);
    expect(result.unopened).toEqual([a]);
    expect(originals(result)).toEqual([ip(1)]);
  }
});

test("a data key that is said to be of another generation is refused, whatever is configured", async () => {
  const [a, b] = (await sealApart(2)) as [string, string];
  await owner`
    update pii_vault.data_keys set generation = 2
    where id = (select data_key from pii_vault.originals where token = ${a})`;
  for (const configured of CONFIGURED) {
    const result = await ask([a, b], configured);
    expect(result.unopened).toEqual([a]);
    expect(originals(result)).toEqual([ip(1)]);
  }
});

test("seals that were cut, extended or emptied as far as the table lets them are refused", async () => {
  const tokens = await sealAll(3);
  await owner`update pii_vault.originals set sealed = sealed || decode(repeat('00', 16), 'hex')
    where token = ${tokens[0]!}`;
  await owner`update pii_vault.originals set sealed = decode(repeat('00', 44), 'hex')
    where token = ${tokens[1]!}`;
  const result = await ask(tokens, "neither");
  expect(result.unopened).toEqual(tokens.slice(0, 2));
  expect(originals(result)).toEqual([ip(2)]);
});

/** What the public recipients and write access are enough for: a lie, sealed as it should be. */
async function forge(
  token: string,
  lie: string,
  options: { generation?: number; verifyKey?: Uint8Array } = {},
): Promise<void> {
  const { generation = 1, verifyKey = crypto.getRandomValues(new Uint8Array(32)) } = options;
  const key = generateDataKey(generation);
  const wrapped = await wrapDataKey(key, [host.keys.VEIL_RECIPIENTS], verifyKey);
  expect(wrapped.proof).toEqual(proveDataKey(verifyKey, key.id, key.bytes));
  await owner`
    insert into pii_vault.data_keys (id, generation, wrapped, recipients, proof)
    values (${key.id}, ${generation}, ${wrapped.wrapped}, ${`{${wrapped.recipients.join()}}`}::text[],
      ${wrapped.proof})`;
  const sealed = seal(key.bytes, { kind: "original", token }, lie);
  await owner`
    insert into pii_vault.originals (token, period, data_key, sealed)
    values (${token}, etl.period_of(current_date), ${key.id}, ${sealed})
    on conflict (token, period) do update set data_key = excluded.data_key, sealed = excluded.sealed`;
}

test("a lie sealed with nothing but the public recipients is refused where a key can tell", async () => {
  const [a, b] = (await sealAll(2)) as [string, string];
  const invented = host.token("ip", "192.0.2.99");
  await forge(a, "192.0.2.1");
  await forge(invented, "192.0.2.2");
  for (const configured of ["verify key", "token key", "both"] as const) {
    const result = await ask([a, b, invented], configured);
    expect(result.unopened).toEqual([a, invented]);
    expect(originals(result)).toEqual([ip(1)]);
  }
  // Nobody can tell without a key, and the answer says that nobody did.
  const unchecked = await ask([a, b, invented], "neither");
  expect(unchecked.unopened).toEqual([]);
  expect(originals(unchecked)).toEqual(["192.0.2.1", ip(1), "192.0.2.2"]);
  expect(unchecked.revealed.map((found) => found.verified)).toEqual([null, null, null]);
});

test("a lie in a generation that no configured key is of is refused", async () => {
  const [a, b] = (await sealAll(2)) as [string, string];
  const second = a.replace("ip1_", "ip2_");
  await forge(a, "192.0.2.1", { generation: 2 });
  await forge(second, "192.0.2.2", { generation: 2 });
  for (const configured of ["verify key", "token key", "both"] as const) {
    const result = await ask([a, b, second], configured);
    expect(result.unopened).toEqual([a, second]);
    expect(originals(result)).toEqual([ip(1)]);
  }
  expect((await ask([a, b, second], "neither")).unopened).toEqual([a]);
});

test("with the token key, a lie with a proper proof is refused too: its token is another one", async () => {
  const [a, b] = (await sealAll(2)) as [string, string];
  await forge(a, "192.0.2.1", { verifyKey: host.subkeys.verify });
  for (const configured of ["token key", "both"] as const) {
    const result = await ask([a, b], configured);
    expect(result.unopened).toEqual([a]);
    expect(originals(result)).toEqual([ip(1)]);
  }
});

test("what was sealed for another identity is refused, and what is not there is unknown", async () => {
  const [a] = (await sealAll(1)) as [string];
  const absent = host.token("ip", "192.0.2.50");
  const others = await makeHost({
    ...(await makeKeys()),
    VEIL_TOKEN_KEY: host.keys.VEIL_TOKEN_KEY,
    VEIL_VERIFY_KEY: host.keys.VEIL_VERIFY_KEY,
  });
  const [theirs] = (await sealAll(1, others, 7)) as [string];
  expect(readTokenKey(others.keys).check).toEqual(host.subkeys.check);
  for (const configured of CONFIGURED) {
    const result = await ask([theirs, absent, a], configured);
    expect(result.unopened).toEqual([theirs]);
    expect(result.unknown).toEqual([absent]);
    expect(originals(result)).toEqual([ip(0)]);
  }
});
