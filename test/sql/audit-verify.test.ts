// Whatever a superuser does to the audit afterwards, verifying finds it and names the place.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type postgres from "postgres";
import { chainAudit } from "../../src/audit/chain.ts";
import { addLine, readCheckpoints, writeLine } from "../../src/audit/checkpoints.ts";
import { listAudit } from "../../src/audit/list.ts";
import { type VerifiedAudit, verifyAudit } from "../../src/audit/verify.ts";
import { Failure } from "../../src/failure.ts";
import type { Database } from "../../src/postgres/database.ts";
import { type AuditKey, generateAuditKey } from "../../vault/checkpoint.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";

const ENTRIES = 30;
const folder = mkdtempSync(join(tmpdir(), "veil-audit-"));
const key = generateAuditKey();
let database: TestDatabase;
let owner: postgres.Sql;
let auditor: Database;
/** Signed at 20 entries and at all of them. */
const checkpoints = join(folder, "checkpoints.jsonl");

const TABLES = ["audit", "audit_chain", "audit_head", "audit_waiting"];

beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  auditor = database.open(database.url("auditor"));
  await addEntries(20);
  await sign(checkpoints);
  await addEntries(ENTRIES - 20);
  await sign(checkpoints);
  for (const name of TABLES) {
    await owner.unsafe(`create table public.saved_${name} as select * from pii_vault.${name}`);
  }
});
afterAll(async () => {
  await database.drop();
  rmSync(folder, { recursive: true, force: true });
});

const addEntries = async (count: number) => {
  await owner.unsafe(`
    insert into pii_vault.audit
      (login, login_oid, action, request, tokens, message_ids, items, reason, role, address, details)
    select 'alice', 4711, 'reveal.request', gen_random_uuid(), array['ip1_a' || n, 'ip1_b'],
      array['m' || n], 2, 'case ' || n, 'veil_revealer', '192.0.2.1', '{"n": 1}'
    from generate_series(1, ${count}) n`);
  expect(await chainAudit(auditor)).toBe(true);
};

/** As the command does. */
async function sign(path: string, by: AuditKey = key): Promise<void> {
  const { chain, end } = await verify([]);
  const { position, number: entry, hash, marks } = end;
  const madeAt = new Date().toISOString();
  addLine(path, await writeLine(by, { chain, position, entry, hash, madeAt, marks }));
}

const verify = async (
  signed: Awaited<ReturnType<typeof readCheckpoints>>,
): Promise<VerifiedAudit> => await verifyAudit(auditor, { signed, onProgress: () => {} });

const messages = ({ problems }: VerifiedAudit): string[] =>
  problems.named.map(({ message }) => message.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/, "DATE"));

/** Past triggers and constraints, as only a superuser can. */
async function tamper(...statements: string[]): Promise<void> {
  await owner.begin(async (sql) => {
    await sql.unsafe("set local session_replication_role = replica");
    for (const statement of statements) await sql.unsafe(statement);
  });
}

afterEach(async () => {
  await tamper(
    ...TABLES.flatMap((name) => [
      `truncate pii_vault.${name}`,
      `insert into pii_vault.${name} ${name === "audit" ? "overriding system value" : ""}
         select * from public.saved_${name}`,
    ]),
  );
});

/** All hashes from a position on made anew, and the head's, by the database's own function. */
const recompute = (from: number) => `do $$
  declare
    link record;
    made bytea;
  begin
    if ${from} = 1 then
      select sha256(convert_to('veil/v1/audit-genesis', 'UTF8') || uuid_send(h.chain)) into made
      from pii_vault.audit_head h;
    else
      select c.hash into made from pii_vault.audit_chain c where c.position = ${from} - 1;
    end if;
    for link in
      select c.position, pii_vault.audit_entry_bytes(a) as entry
      from pii_vault.audit_chain c join pii_vault.audit a on a.id = c.entry
      where c.position >= ${from} order by c.position
    loop
      made := sha256(
        convert_to('veil/v1/audit-chain', 'UTF8') || made || int8send(link.position) || link.entry
      );
      update pii_vault.audit_chain c set hash = made where c.position = link.position;
    end loop;
    update pii_vault.audit_head h set
      position = (select max(c.position) from pii_vault.audit_chain c),
      hash = (select c.hash from pii_vault.audit_chain c order by c.position desc limit 1);
  end $$`;

test("an audit that nobody has touched verifies, alone and against its checkpoints", async () => {
  for (const signed of [[], await readCheckpoints(checkpoints, key)]) {
    const verdict = await verify(signed);
    expect(messages(verdict)).toEqual([]);
    expect(verdict.end.position).toBe(BigInt(ENTRIES));
    expect(verdict.waiting).toEqual({ entries: 0, since: null, first: null, isOld: false });
  }
});

test("entries that come after a checkpoint, or wait, are no problem", async () => {
  const signed = await readCheckpoints(checkpoints, key);
  await owner.unsafe("insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)");
  const waiting = await verify(signed);
  expect(messages(waiting)).toEqual([]);
  expect(waiting.waiting).toEqual({
    ...{ entries: 1, since: expect.stringMatching(/^20.*Z$/) },
    ...{ first: expect.any(BigInt), isOld: false },
  });
  await chainAudit(auditor);
  const chained = await verify(signed);
  expect(messages(chained)).toEqual([]);
  expect([chained.end.position, chained.waiting.entries]).toEqual([BigInt(ENTRIES + 1), 0]);
});

/** One byte of each column, or null for what was not, or something for what was null. */
const CHANGES: Record<string, string> = {
  at: "at + interval '1 microsecond'",
  login: "'alicf'",
  login_oid: "4712::oid",
  role: "null",
  address: "'192.0.2.2'",
  action: "'reveal.requesu'",
  request: "gen_random_uuid()",
  tokens: "array['ip1_a7', 'ip1_c']",
  message_ids: "'{}'",
  items: "3",
  reason: "reason || ' '",
  details: "'{\"n\":1}'",
};

test("these tests change every column but the key", async () => {
  const columns = await owner`
    select attname::text as name from pg_catalog.pg_attribute
    where attrelid = 'pii_vault.audit'::regclass and attnum > 0 and not attisdropped order by 1`;
  expect(columns.map((column) => column.name)).toEqual(["id", ...Object.keys(CHANGES)].sort());
});

test.each(Object.entries(CHANGES))(
  "a changed %s is named with its entry",
  async (column, value) => {
    await tamper(`update pii_vault.audit set ${column} = ${value} where id = 7`);
    expect(messages(await verify([]))).toEqual([
      "entry 7 (position 7) was changed after it was chained",
    ]);
  },
);

type Case = readonly [
  name: string,
  statements: readonly string[],
  alone: readonly string[],
  withCheckpoints?: readonly string[],
];

const CASES: readonly Case[] = [
  [
    "the last entry changed",
    [`update pii_vault.audit set items = 3 where id = ${ENTRIES}`],
    [`entry ${ENTRIES} is not what was chained at position ${ENTRIES}`],
  ],
  [
    "two entries changed",
    ["update pii_vault.audit set items = 3 where id in (4, 9)"],
    [
      "entry 4 (position 4) was changed after it was chained",
      "entry 9 (position 9) was changed after it was chained",
    ],
  ],
  [
    "two entries next to each other swapped in the chain",
    [
      "alter table pii_vault.audit_chain drop constraint audit_chain_entry",
      "update pii_vault.audit_chain set entry = 5 - position where position in (2, 3)",
      "alter table pii_vault.audit_chain add constraint audit_chain_entry unique (entry)",
    ],
    [
      "swapped: entry 3 at position 2 and entry 2 at position 3",
      "swapped: entry 2 at position 3 and entry 3 at position 2",
    ],
  ],
  [
    "two entries far from each other swapped in the audit",
    [
      "create table public.swapped as select * from pii_vault.audit where id in (5, 25)",
      "delete from pii_vault.audit where id in (5, 25)",
      "update public.swapped set id = 30 - id",
      "insert into pii_vault.audit overriding system value select * from public.swapped",
    ],
    [
      "swapped: entry 5 at position 5 and entry 25 at position 25",
      "swapped: entry 25 at position 25 and entry 5 at position 5",
    ],
  ],
  [
    "an entry inserted into the audit alone",
    ["insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)"],
    ["entry NEW is on no chain and does not wait for it: it was put in, or taken off"],
  ],
  [
    "an entry deleted from the audit alone",
    ["delete from pii_vault.audit where id = 12"],
    ["entry 12 (position 12) is missing: it was deleted"],
  ],
  [
    "an entry deleted from audit and chain",
    [
      "delete from pii_vault.audit where id = 12",
      "delete from pii_vault.audit_chain where entry = 12",
    ],
    ["position 12 is missing from the chain"],
  ],
  [
    "three entries taken off the chain",
    ["delete from pii_vault.audit_chain where entry between 12 and 14"],
    [
      "positions 12 to 14 are missing from the chain",
      ...[12, 13, 14].map(
        (id) => `entry ${id} is on no chain and does not wait for it: it was put in, or taken off`,
      ),
    ],
  ],
  [
    "one hash of the chain changed",
    ["update pii_vault.audit_chain set hash = sha256(hash) where position = 12"],
    ["the hash at position 12 (of entry 12) was changed"],
    [
      "position 12 (entry 12) is not what was signed on DATE: the chain was rewritten from there on",
      "the hash at position 12 (of entry 12) was changed",
    ],
  ],
  [
    "the last hash and the head's changed",
    [
      `update pii_vault.audit_chain set hash = sha256(hash) where position = ${ENTRIES}`,
      "update pii_vault.audit_head set hash = sha256(hash)",
    ],
    [`entry ${ENTRIES} is not what was chained at position ${ENTRIES}`],
    [
      `position ${ENTRIES} (entry ${ENTRIES}) is not what was signed on DATE: the chain was rewritten from there on`,
      `entry ${ENTRIES} is not what was chained at position ${ENTRIES}`,
    ],
  ],
  [
    "the head moved",
    ["update pii_vault.audit_head set position = position + 1"],
    [`the chain ends at position ${ENTRIES}, its head says ${ENTRIES + 1}`],
  ],
  [
    "the head's hash changed",
    ["update pii_vault.audit_head set hash = sha256(hash)"],
    [`the head's hash is not that of the last position, ${ENTRIES}`],
  ],
  [
    "an entry and a position put in before the first",
    [
      "alter table pii_vault.audit_chain drop constraint audit_chain_position",
      "insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)",
      `insert into pii_vault.audit_chain select 0, max(id), sha256('') from pii_vault.audit`,
    ],
    ["position 0 (entry NEW) was put into the chain"],
  ],
  [
    "the last ten deleted, from audit, chain and head",
    [
      "delete from pii_vault.audit where id > 20",
      "delete from pii_vault.audit_chain where position > 20",
      `update pii_vault.audit_head set position = 20,
         hash = (select hash from pii_vault.audit_chain where position = 20)`,
    ],
    [],
    ["the chain ends at position 20, the checkpoint of DATE signed 30: the last 10 are missing"],
  ],
  [
    "the last ten deleted, and ten others put in their place",
    [
      "delete from pii_vault.audit_chain where position > 20",
      "update pii_vault.audit set reason = 'nothing to see' where id > 20",
      "insert into pii_vault.audit_chain select id, id, sha256('') from pii_vault.audit where id > 20",
      recompute(21),
    ],
    [],
    [
      "position 21 (entry 21) is not what was signed on DATE: the chain was rewritten from there on",
    ],
  ],
  [
    "the whole chain recomputed over a changed first entry",
    ["update pii_vault.audit set login = 'bob' where id = 1", recompute(1)],
    [],
    ["position 1 (entry 1) is not what was signed on DATE: the chain was rewritten from there on"],
  ],
  [
    "an entry in the middle taken out, and the whole chain recomputed",
    [
      "delete from pii_vault.audit where id = 12",
      "delete from pii_vault.audit_chain where position = 12",
      "update pii_vault.audit_chain set position = position + 1000 where position > 12",
      "update pii_vault.audit_chain set position = position - 1001 where position > 1000",
      recompute(12),
    ],
    [],
    [
      "position 12 (entry 13) is not what was signed on DATE: the chain was rewritten from there on",
      "the chain ends at position 29, the checkpoint of DATE signed 30: the last one is missing",
    ],
  ],
  [
    "another chain begun over the same entries",
    [
      "update pii_vault.audit_head set chain = '11111111-1111-4111-8111-111111111111'",
      recompute(1),
    ],
    [],
    [
      expect.stringMatching(/^the checkpoint of DATE is of another database's chain/) as string,
      expect.stringMatching(/^the checkpoint of DATE is of another database's chain/) as string,
    ],
  ],
];

describe("found, and where it was:", () => {
  test.each(CASES)("%s", async (_, statements, alone, withCheckpoints = alone) => {
    await tamper(...statements);
    const clean = (verdict: VerifiedAudit) =>
      messages(verdict).map((message) =>
        message.replace(/entry (\d+)/g, (all, id) => (Number(id) > ENTRIES ? "entry NEW" : all)),
      );
    expect(clean(await verify([]))).toEqual([...alone]);
    expect(withCheckpoints.length).toBeGreaterThan(0);
    expect(clean(await verify(await readCheckpoints(checkpoints, key)))).toEqual([
      ...withCheckpoints,
    ]);
  });
});

test("without its head nobody can say which chain this is", async () => {
  await tamper("delete from pii_vault.audit_head");
  await expect(verify([])).rejects.toThrow("the head of the audit chain is missing");
});

test("a chain of many pages verifies, entries of ten thousand tokens among them, and lists in order", async () => {
  await owner.unsafe(`
    insert into pii_vault.audit (login, login_oid, action, items, tokens)
    select 'carol', 1, 'a.b', n, case when n % 700 = 0 then (
      select array_agg(md5(m::text)) from generate_series(1, 10000) m
    ) else '{}' end from generate_series(1, 2500) n`);
  expect(await chainAudit(auditor)).toBe(true);
  const verdict = await verify(await readCheckpoints(checkpoints, key));
  expect(messages(verdict)).toEqual([]);
  const end = ENTRIES + 2500;
  expect(verdict.end.position).toBe(BigInt(end));
  const places = verdict.end.marks.map(({ position }) => Number(position));
  expect([places.length, places[0], places.at(-1)]).toEqual([1024, Math.floor(end / 1024), end]);
  const rest = { token: null, request: null, action: null, since: null, until: null };
  for (const [limit, first] of [
    [null, 1],
    [450, 2051],
  ] as const) {
    const listed: (number | null)[] = [];
    await listAudit(auditor, { ...rest, actor: "carol", limit }, async (page) => {
      listed.push(...page.map(({ items }) => items));
    });
    expect(listed).toEqual(Array.from({ length: 2501 - first }, (_, i) => first + i));
  }
  await tamper("update pii_vault.audit set items = 0 where login = 'carol' and items = 2100");
  expect((await verify([])).problems.named).toMatchObject([
    { kind: "entry-changed", position: BigInt(ENTRIES + 2100) },
  ]);
});

test("of many problems the first ten are named, all are counted, and what was signed is named too", async () => {
  await tamper(
    "update pii_vault.audit_chain set position = position + 1000 where position > 3",
    "update pii_vault.audit_chain set position = position - 999 where position > 1000",
    "insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)",
    "insert into pii_vault.audit_chain select 4, max(id), sha256('') from pii_vault.audit",
    "update pii_vault.audit_head set position = position + 1",
  );
  const verdict = await verify(await readCheckpoints(checkpoints, key));
  expect(verdict.problems.count).toBe(ENTRIES - 3 + 1 + 1);
  expect(verdict.problems.named.map(({ kind, position }) => `${kind} ${position}`)).toEqual([
    "rewritten 4",
    ...Array.from({ length: 9 }, (__, i) => `entry-changed ${i + 4}`),
  ]);
});

describe("a file of checkpoints is refused", () => {
  const refusal = async (text: string, by: AuditKey = key): Promise<string> => {
    const path = join(folder, "altered.jsonl");
    writeFileSync(path, text);
    try {
      await readCheckpoints(path, by);
    } catch (error) {
      if (error instanceof Failure && error.exitCode === 1) return error.message;
      throw error;
    }
    return "accepted";
  };
  const good = () => readFileSync(checkpoints, "utf8");

  test("where anything that was signed was changed", async () => {
    const line = good().split("\n")[1]!;
    const { marks, signature, format, publicKey, ...rest } = JSON.parse(line);
    expect(await refusal(`${line}\n`)).toBe("accepted");
    const forgeries = [
      ...Object.entries(rest).map(([name, value]) => ({
        [name]: String(value).replace(/\d(?=\D*$)/, (digit) => String((Number(digit) + 1) % 10)),
      })),
      { marks: marks.slice(1) },
      { marks: marks.with(3, [marks[3][0], marks[4][1]]) },
      { marks: marks.with(3, ["99", marks[3][1]]) },
      {
        signature: `${signature.slice(0, 4)}${signature[4] === "A" ? "B" : "A"}${signature.slice(5)}`,
      },
    ];
    expect(forgeries.length).toBe(9);
    for (const forgery of forgeries) {
      const forged = `${JSON.stringify({ format, publicKey, ...JSON.parse(line), ...forgery })}\n`;
      expect([Object.keys(forgery), await refusal(forged)]).toEqual([
        Object.keys(forgery),
        expect.stringMatching(/checkpoint 1 of .* is forged/),
      ]);
    }
  });

  test("where it is signed with another key, also when it says otherwise", async () => {
    const other = generateAuditKey();
    expect(await refusal(good(), other)).toMatch(/checkpoint 1 of .* with another key/);
    const path = join(folder, "other.jsonl");
    await sign(path, other);
    const line = JSON.parse(readFileSync(path, "utf8"));
    line.publicKey = JSON.parse(good().split("\n")[0]!).publicKey;
    expect(await refusal(`${JSON.stringify(line)}\n`)).toMatch(/is forged/);
  });

  test("where it was cut short, or holds something else", async () => {
    for (const length of [1, 10, good().length >> 1, good().length - 1]) {
      expect(await refusal(good().slice(0, length))).toMatch(/is not whole/);
    }
    for (const line of ["", "{}", "null", "[]", "7", '{"format":"veil/v2/audit-checkpoint"}']) {
      expect(await refusal(`${good()}${line}\n`)).toMatch(/checkpoint 3 of .* is no checkpoint/);
    }
  });

  test("where its lines are not in the order in which they were signed", async () => {
    const [first, second] = good().split("\n");
    expect(await refusal(`${second}\n${first}\n`)).toMatch(/checkpoint 2 of .* signs less/);
  });
});

test("the checkpoint of another database is refused by its chain", async () => {
  const other = await createDatabase({ copied: false });
  try {
    const path = join(folder, "foreign.jsonl");
    const there = await verifyAudit(other.open(other.url("auditor")), {
      signed: [],
      onProgress: () => {},
    });
    const { chain, end } = there;
    const madeAt = new Date().toISOString();
    addLine(path, await writeLine(key, { chain, ...end, entry: 0n, madeAt }));
    expect(messages(await verify(await readCheckpoints(path, key)))).toEqual([
      expect.stringMatching(/is of another database's chain/),
    ]);
  } finally {
    await other.drop();
  }
});

test("a line that could not be written whole is not left behind", () => {
  const path = join(folder, "appended.jsonl");
  addLine(path, "one\n");
  appendFileSync(path, "");
  addLine(path, "two\n");
  expect(readFileSync(path, "utf8")).toBe("one\ntwo\n");
  expect(() => addLine("/dev/full", "x\n")).toThrow(/no checkpoint was added/);
});
