// The chain itself: one line through all entries however many write and chain at once, and a lock that no
// caller can keep.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import pg from "pg";
import type postgres from "postgres";
import { chainAudit } from "../../src/audit/chain.ts";
import { ENTRY_COLUMNS, readEntry } from "../../src/audit/entries.ts";
import { AuditProblems } from "../../src/audit/problems.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { isChainingStopped } from "../../src/audit/waiting.ts";
import { Failure } from "../../src/failure.ts";
import type { Database } from "../../src/postgres/database.ts";
import { array } from "../../src/postgres/values.ts";
import { entryBytes } from "../../vault/audit.ts";
import { createDatabase, ROLES, type TestDatabase } from "../support/database.ts";
import { outcome } from "./attempt.ts";

let database: TestDatabase;
let owner: postgres.Sql;
let auditor: Database;

beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  auditor = database.open(database.url("auditor"));
});
afterAll(() => database.drop());

const CHAIN = "call pii_vault.chain_audit()";
const token = (n: number) => `ip1_${String.fromCharCode(97 + (n % 26)).repeat(25)}a`;
const request = (sql: postgres.Sql | postgres.TransactionSql, n = 0) =>
  sql.unsafe("select pii_vault.request_reveal($1, 'why')", [array([token(n)])]);

const note = (sql: postgres.Sql | postgres.TransactionSql, n = 0) =>
  sql.unsafe("insert into pii_vault.audit (login_oid, action, items) values (1, 'a.note', $1)", [
    n,
  ]);

async function counts() {
  const [row] = await owner`
    select
      (select count(*)::int from pii_vault.audit) as entries,
      (select count(*)::int from pii_vault.audit_chain) as chained,
      (select count(*)::int from pii_vault.audit_waiting) as waiting`;
  return row as unknown as { entries: number; chained: number; waiting: number };
}

async function expectWhole(): Promise<void> {
  expect(await chainAudit(auditor)).toBe(true);
  const verdict = await verifyAudit(auditor, { signed: [], onProgress: () => {} });
  expect(verdict.problems.named).toEqual([]);
  const { entries, chained, waiting } = await counts();
  expect([chained, waiting]).toEqual([entries, 0]);
  expect(verdict.end.position).toBe(BigInt(entries));
}

describe("many at once", () => {
  test("write and chain, at every isolation level: one chain, every entry on it once", async () => {
    const work = ["read committed", "repeatable read", "serializable"].flatMap((level) =>
      Array.from({ length: 3 }, async () => {
        // Requests are made at read committed only; other entries are not.
        const [url, write] =
          level === "read committed"
            ? ([database.url("revealer"), request] as const)
            : ([database.ownerUrl, note] as const);
        const sql = database.sql(url);
        for (let n = 0; n < 12; n++) {
          await sql.begin(`isolation level ${level}`, async (transaction) => {
            await transaction.unsafe("select 1"); // the snapshot is from here
            await write(transaction, n);
            if (n % 4 === 0) await transaction.savepoint((savepoint) => write(savepoint, n));
          });
          await sql.unsafe(CHAIN);
        }
      }),
    );
    const chainers = ROLES.filter((role) => role !== "analyst").map(async (role) => {
      const sql = database.sql(database.url(role));
      await sql.unsafe("set default_transaction_isolation = 'repeatable read'");
      for (let n = 0; n < 12; n++) await sql.unsafe(CHAIN);
    });
    await Promise.all([...work, ...chainers]);
    const { entries } = await counts();
    expect(entries).toBe(9 * 15);
    await expectWhole();
  });

  test("a reader who leaves his request open blocks neither chaining nor other requests", async () => {
    const idle = database.sql(database.url("revealer"));
    const open = Promise.withResolvers<void>();
    const done = Promise.withResolvers<void>();
    const reader = idle.begin("isolation level read committed", async (transaction) => {
      await request(transaction);
      open.resolve();
      await done.promise;
    });
    await open.promise;
    const before = await counts();
    try {
      await request(database.sql(database.url("revealer")), 1);
      expect(await chainAudit(auditor)).toBe(true);
      expect(await counts()).toMatchObject({ entries: before.entries + 1, waiting: 0 });
    } finally {
      done.resolve();
      await reader;
    }
    // With a lower number than what is chained already, and behind it.
    const [late] = await owner`select min(entry) as entry from pii_vault.audit_waiting`;
    expect(await counts()).toMatchObject({ entries: before.entries + 2, waiting: 1 });
    await expectWhole();
    const [last] = await owner`
      select entry from pii_vault.audit_chain order by position desc limit 1`;
    expect(last?.entry).toBe(late?.entry);
    const [behind] = await owner`
      select max(entry) > ${String(late?.entry)}::bigint as is from pii_vault.audit_chain`;
    expect(behind?.is).toBe(true);
  });

  test("what is rolled back is on no chain", async () => {
    const before = await counts();
    const sql = database.sql(database.url("revealer"));
    const undo = sql.begin(async (transaction) => {
      await request(transaction);
      throw new Error("undone");
    });
    await expect(undo).rejects.toThrow("undone");
    expect(await counts()).toEqual(before);
  });

  test("while one chains, another is told so and does not wait", async () => {
    const sql = database.sql(database.url("revealer"));
    await request(sql);
    const held = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const holding = owner.begin(async (transaction) => {
      await transaction`select from pii_vault.audit_head for update`;
      held.resolve();
      await release.promise;
    });
    await held.promise;
    try {
      expect((await sql.unsafe(CHAIN))[0]?.chained).toBeNull();
      expect(await chainAudit(auditor)).toBe(false);
    } finally {
      release.resolve();
      await holding;
    }
    expect((await sql.unsafe(CHAIN))[0]?.chained).toBe(1);
    expect((await sql.unsafe(CHAIN))[0]?.chained).toBe(0);
  });
});

describe("chaining is refused", () => {
  const sql = () => database.sql(database.url("revealer"));
  const extended = { prepare: true } as const;
  const blocks: Record<string, (sql: postgres.Sql) => PromiseLike<unknown>> = {
    "in a block, by the simple protocol": (login) =>
      login.begin(async (transaction) => await transaction.unsafe(CHAIN)),
    "in a block, by the extended protocol": (login) =>
      login.begin(async (transaction) => await transaction.unsafe(CHAIN, [], extended)),
    "in a block that has written already": (login) =>
      login.begin(async (transaction) => {
        await request(transaction);
        await transaction.unsafe(CHAIN);
      }),
    "after a savepoint": (login) =>
      login.begin(async (transaction) => {
        await transaction.savepoint(async (savepoint) => await savepoint.unsafe(CHAIN));
      }),
    "before another statement": (login) => login.unsafe(`${CHAIN}; select pg_sleep(0)`),
    "after another statement": (login) => login.unsafe(`select 1; ${CHAIN}`),
    "twice in one message": (login) => login.unsafe(`${CHAIN}; ${CHAIN}`),
    "in a block begun in the same message": (login) => login.unsafe(`begin; ${CHAIN}`),
    "by a code block that could go on": (login) =>
      login.unsafe(
        "do $$ declare n int; begin call pii_vault.chain_audit(n); perform pg_sleep(0); end $$",
      ),
    "by a code block, past the procedure": (login) =>
      login.unsafe("do $$ begin commit; perform pii_vault.chain_waiting(); end $$"),
    "past the procedure": (login) => login.unsafe("select pii_vault.chain_waiting()"),
    "past the procedure, by a cursor": (login) =>
      login.begin(async (transaction) => {
        await transaction.unsafe("declare c cursor for select pii_vault.chain_waiting()");
        await transaction.unsafe("fetch c");
      }),
    "past the procedure, where its name is quoted": (login) =>
      login.unsafe(`select pii_vault.chain_waiting() as "${CHAIN}"`),
    "past the procedure, with its name in a comment": (login) =>
      login.unsafe(`/*\n${CHAIN}\n*/ select pii_vault.chain_waiting()`),
    "as a function": (login) => login.unsafe("select pii_vault.chain_audit()"),
  };

  test.each(Object.entries(blocks))("%s", async (_, work) => {
    const login = sql();
    await request(login);
    const before = await counts();
    expect(await outcome(work(login))).toMatch(/^(2D000|VL043|42809)$/);
    expect((await counts()).chained).toBe(before.chained);
    // And nothing is held: somebody else chains at once.
    expect(await chainAudit(auditor)).toBe(true);
    expect((await counts()).waiting).toBe(0);
  });

  test("to who may not, and where nothing of veil's is granted", async () => {
    expect(await outcome(database.sql(database.url("analyst")).unsafe(CHAIN))).toBe("42501");
  });
});

test("a message that its sender never finishes holds nothing", async () => {
  const client = await openUnfinished(database.url("revealer"));
  try {
    await request(database.sql(database.url("revealer")));
    expect(await client.send(CHAIN)).toBe("CALL");
    expect((await counts()).waiting).toBe(0);
    await request(database.sql(database.url("revealer")));
    expect(await chainAudit(auditor)).toBe(true);
    expect((await counts()).waiting).toBe(0);
  } finally {
    client.close();
  }
});

test("in a message that has written already, chaining is refused or commits that, and holds nothing", async () => {
  const client = await openUnfinished(database.url("revealer"));
  try {
    const before = await counts();
    expect(await client.send(`select pii_vault.request_reveal('{${token(1)}}', 'why')`)).toBe(
      "SELECT 1",
    );
    expect(await client.send(CHAIN)).toMatch(/^(2D000|25001|CALL)$/);
    await request(database.sql(database.url("revealer")));
    expect(await chainAudit(auditor)).toBe(true);
    expect(await counts()).toMatchObject({ waiting: 0 });
    expect((await counts()).entries).toBeGreaterThan(before.entries);
  } finally {
    client.close();
  }
});

/** Sends parse, bind and execute, and never sync: to the server, the transaction of them is not over. */
async function openUnfinished(url: string) {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {}); // it ends without a good-bye
  await client.connect();
  let answer = Promise.withResolvers<string>();
  let connection: Unfinished | null = null;
  const ignore = () => {};
  client.query({
    submit: (opened: unknown) => {
      connection = opened as Unfinished;
    },
    handleCommandComplete: ({ text }: { readonly text: string }) => answer.resolve(text),
    handleError: ({ code }: { readonly code: string }) => answer.resolve(code),
    ...{ handleRowDescription: ignore, handleDataRow: ignore, handlePortalSuspended: ignore },
    ...{ handleReadyForQuery: ignore, handleEmptyQuery: ignore },
  } as unknown as pg.Submittable);
  return {
    send: async (text: string): Promise<string> => {
      answer = Promise.withResolvers();
      connection?.parse({ text, name: "", types: [] });
      connection?.bind({ portal: "", statement: "", values: [] });
      connection?.execute({ portal: "", rows: 0 });
      connection?.flush();
      return await answer.promise;
    },
    close: () => connection?.stream.destroy(),
  };
}

/** What pg's own types do not tell of. */
type Unfinished = {
  readonly parse: (query: object) => void;
  readonly bind: (values: object) => void;
  readonly execute: (portal: object) => void;
  readonly flush: () => void;
  readonly stream: { readonly destroy: () => void };
};

test("spaces, capitals and a semicolon do not matter, nor what the login has set", async () => {
  const login = database.sql(database.url("revealer"));
  for (const setting of [
    ...["default_transaction_isolation = serializable", "default_transaction_read_only = on"],
    ...["standard_conforming_strings = off", "synchronous_commit = off", "bytea_output = escape"],
    ...["TimeZone = 'Asia/Kolkata'", "DateStyle = 'SQL, DMY'", "IntervalStyle = sql_standard"],
    ...["client_encoding = LATIN1", "extra_float_digits = -15", "search_path = ''"],
    ...["lock_timeout = '1ms'", "client_min_messages = debug5", "enable_indexscan = off"],
  ]) {
    const writer = database.sql(database.url("revealer"));
    await request(writer);
    // From 19 on there is no other way to write strings.
    await outcome(login.unsafe(`set ${setting}`));
    const [row] = await login.unsafe("\n CALL  pii_vault.chain_audit ( ) ;\n");
    expect([setting, row?.chained]).toEqual([setting, 1]);
  }
  await expectWhole();
});

describe("what waits", () => {
  /** An entry of an hour ago, read as verifying does, which may have been before somebody chained it. */
  async function waiting() {
    await owner`
      insert into pii_vault.audit (at, login_oid, action, items)
      values (now() - interval '1 hour', 1, 'a.b', 0)`;
    const verdict = await verifyAudit(auditor, { signed: [], onProgress: () => {} });
    expect(verdict.waiting).toMatchObject({ entries: 1, isOld: true });
    return { waiting: verdict.waiting, position: verdict.end.position };
  }

  async function whileHeld(work: () => Promise<void>): Promise<void> {
    await owner.begin(async (transaction) => {
      await transaction`select from pii_vault.audit_head for update`;
      await work();
    });
  }

  test("for long, while somebody holds the head, is a problem that names the first entry", async () => {
    const read = await waiting();
    await whileHeld(async () => {
      const problems = new AuditProblems();
      expect(await isChainingStopped(auditor, "busy", read, problems)).toBe(true);
      expect(problems.named).toEqual([
        {
          ...{ kind: "not-chained", position: null, entry: read.waiting.first },
          message: expect.stringMatching(
            /^1 entry waits to be chained since 20.*Z and cannot be: entry \d+ is .* holds the head/,
          ),
        },
      ]);
    });
    await expectWhole();
  });

  test("because of a holder has an auditor find him with the query of the documentation", async () => {
    const page = await Bun.file(new URL("../../docs/audit.md", import.meta.url)).text();
    const [, query = ""] = /```sql\n(select l\.pid[^`]*)```/.exec(page) ?? [];
    const login = database.sql(database.url("auditor"));
    expect(await login.unsafe(query)).toHaveLength(0);
    await owner.begin(async (transaction) => {
      await transaction`select from pii_vault.audit_head for update`;
      const [self] = await transaction`select pg_backend_pid() as pid`;
      const holders = await login.unsafe(query);
      expect([...new Set(holders.map(({ pid }) => pid))]).toEqual([self?.pid]);
    });
  });

  test("is no problem where it is young, is chained meanwhile, or somebody works off a backlog", async () => {
    const read = await waiting();
    const problems = new AuditProblems();
    await whileHeld(async () => {
      const young = { ...read, waiting: { ...read.waiting, isOld: false } };
      expect(await isChainingStopped(auditor, "busy", young, problems)).toBe(false);
      const moved = { ...read, position: read.position - 1n };
      expect(await isChainingStopped(auditor, "busy", moved, problems)).toBe(false);
    });
    expect(await isChainingStopped(auditor, "busy", read, problems)).toBe(false);
    expect(problems.count).toBe(0);
    await expectWhole();
  });

  test("is a problem at once where chaining fails, with what the database says, and not where it did before", async () => {
    await owner`insert into pii_vault.audit (login_oid, action, items) values (1, 'a.b', 0)`;
    const { waiting, end } = await verifyAudit(auditor, { signed: [], onProgress: () => {} });
    const read = { waiting, position: end.position };
    const failure = new Failure(1, "before", null, "VL043");
    const run = async (statement: string) => await owner.unsafe(statement);
    await run("revoke execute on procedure pii_vault.chain_audit(integer) from veil_auditor");
    try {
      const problems = new AuditProblems();
      expect(await isChainingStopped(auditor, failure, read, problems)).toBe(true);
      expect(problems.named[0]?.message).toMatch(/entry \d+ is the first of them \(.*42501/);
    } finally {
      await run("grant execute on procedure pii_vault.chain_audit(integer) to veil_auditor");
    }
    const problems = new AuditProblems();
    expect(await isChainingStopped(auditor, failure, read, problems)).toBe(false);
    expect(problems.count).toBe(0);
    await expectWhole();
  });
});

describe("append-only, to the owner too:", () => {
  const refused = [
    "update pii_vault.audit_chain set entry = entry",
    "delete from pii_vault.audit_chain",
    "truncate pii_vault.audit_chain",
    "delete from pii_vault.audit_head",
    "truncate pii_vault.audit_head",
    "update pii_vault.audit_head set position = position - 1",
    "update pii_vault.audit_head set hash = sha256(hash)",
    "update pii_vault.audit_head set chain = gen_random_uuid(), position = position + 1",
  ];
  test.each(refused)("%s", async (statement) => {
    for (const role of ["veil_owner", "none"]) {
      const work = owner.begin(async (transaction) => {
        await transaction.unsafe(`set local role ${role}`);
        await transaction.unsafe(statement);
      });
      expect(await outcome(work)).toBe("VL020");
    }
  });

  test("one chain, not two", async () => {
    const second = owner.unsafe(
      "insert into pii_vault.audit_head (position, hash) values (0, sha256(''))",
    );
    expect(await outcome(second)).toBe("23505");
  });
});

test("a restore of the data alone, which has every entry wait again, chains none of them twice", async () => {
  const before = await counts();
  await owner`
    insert into pii_vault.audit_waiting select id from pii_vault.audit on conflict do nothing`;
  await expectWhole();
  expect((await counts()).chained).toBe(before.entries);
});

test("where the chain was altered nothing is added to it", async () => {
  await request(database.sql(database.url("revealer")));
  const set = (to: string) =>
    owner.begin(async (sql) => {
      await sql.unsafe("set local session_replication_role = replica");
      await sql.unsafe(`update pii_vault.audit_head set position = position ${to}`);
    });
  await set("- 1");
  expect(await outcome(database.sql(database.url("auditor")).unsafe(CHAIN))).toBe("VL043");
  expect(await chainAudit(auditor)).toBe(false);
  await set("+ 1");
  await expectWhole();
});

test("the database and the vault make the same bytes of an entry, whatever is in it", async () => {
  const login = database.sql(database.ownerUrl);
  await login.unsafe(`
    set TimeZone = 'America/St_Johns'; set DateStyle = 'Postgres, DMY'; set bytea_output = escape;
    set IntervalStyle = iso_8601; set extra_float_digits = -15`);
  const text = fc.oneof(
    fc.string({ unit: "binary", maxLength: 40 }).map((s) => s.replaceAll("\0", "")),
    fc.constantFrom("", '"', "\\", "'", "{}", "NULL", "null", "{a,b}", "\u0001\n\r\t\u007f", "📱"),
    fc.constantFrom("\u{10ffff}", "Ω̈", "\ufeff", "\u2028", "a".repeat(1000), "00", "\\x00"),
  );
  const time = fc.oneof(
    fc.constantFrom(
      ...["0001-01-01 00:00:00.000001+00", "9999-12-31 23:59:59.999999+00", "infinity"],
      ...["4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "-infinity"],
      ...["1970-01-01 00:00:00+00", "1999-12-31 23:59:59.999999+00", "2026-03-29 01:30:00+01"],
    ),
    fc
      .date({ min: new Date(0), max: new Date("2100-01-01"), noInvalidDate: true })
      .map((date) => date.toISOString()),
  );
  const list = fc.array(fc.option(text), { maxLength: 5 }).map(array);
  const entry = fc.record({
    at: time,
    login: text,
    login_oid: fc.integer({ min: 0, max: 2 ** 32 - 1 }).map(String),
    role: fc.option(text),
    address: fc.option(text),
    action: fc.constantFrom("reveal.request", "a.b"),
    request: fc.option(fc.uuid()),
    tokens: list,
    message_ids: list,
    items: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    reason: fc.option(text),
    details: fc.option(fc.json().map((json) => ` ${json.replaceAll("\\u0000", "")}`)),
  });
  const entries = fc.sample(entry, 150);
  await login.begin(async (sql) => {
    for (const row of entries) {
      await sql.unsafe(
        `insert into pii_vault.audit
           (at, login, login_oid, role, address, action, request, tokens, message_ids, items, reason, details)
         values ($1::text::timestamptz, $2, $3::text::oid, $4, $5, $6, $7::text::uuid, $8::text::text[],
           $9::text::text[], $10, $11, $12::text::json)`,
        Object.values(row),
      );
    }
  });
  // What no constraint of today lets in: nulls everywhere.
  await login.unsafe(`
    alter table pii_vault.audit alter tokens drop not null, alter message_ids drop not null,
      alter items drop not null, alter login drop not null, alter at drop not null`);
  await login.unsafe(`
    insert into pii_vault.audit (at, login, login_oid, action, tokens, message_ids, items)
    values (null, null, 1, 'a.b', null, null, null)`);
  const rows = await login.unsafe(
    `select encode(pii_vault.audit_entry_bytes(a), 'hex') as bytes, ${ENTRY_COLUMNS}
     from pii_vault.audit a order by a.id desc limit 151`,
  );
  expect(rows.length).toBe(151);
  for (const { bytes, ...row } of rows) {
    const read = readEntry(row);
    if (read === null) throw new Error("no entry");
    expect(Buffer.from(entryBytes(read)).toString("hex")).toBe(String(bytes));
  }
  await expectWhole();
});

describe("nobody keeps the chain from growing", () => {
  test("by a role whose name is no UTF-8", async () => {
    const latin = `veil_latin_${crypto.randomUUID().slice(0, 8)}`;
    await owner.unsafe(`create database ${latin} encoding 'LATIN1' locale 'C' template template0`);
    const url = new URL(await database.addLogin("revealer"));
    const there = new URL(database.ownerUrl);
    there.pathname = `/${latin}`;
    const elsewhere = database.sql(there.href);
    const name = `"caf\u00e9_${latin}"`;
    try {
      await elsewhere.unsafe(`create role ${name} in role veil_revealer role ${url.username}`);
      const sql = database.sql(url.href);
      await sql.unsafe(`
        select set_config('role', rolname::text, false) from pg_roles
        where rolname::text like '%${latin}'`);
      await request(sql);
      await expectWhole();
      const [entry] = await owner`
        select role from pii_vault.audit where login = ${url.username} order by id desc limit 1`;
      expect(entry?.role).toMatch(/^not UTF-8: [0-9a-f]{32}$/);
      await sql.end();
      await elsewhere.unsafe(`drop role ${name}`);
    } finally {
      await elsewhere.end();
      await owner.unsafe(`drop database ${latin} with (force)`);
    }
  });

  test("by plans that he has made bad", async () => {
    const sql = database.sql(database.url("revealer"));
    const settings = ["indexscan", "indexonlyscan", "bitmapscan", "nestloop", "sort"];
    for (const name of settings) await sql.unsafe(`set enable_${name} = off`);
    await sql.unsafe("set statement_timeout = '200s'");
    await owner.unsafe(`
      insert into pii_vault.audit (login_oid, action, items)
      select 1, 'a.note', n from generate_series(1, 20000) n`);
    const [row] = await sql.unsafe(CHAIN);
    expect(row?.chained).toBe(10_000);
    await expectWhole();
  });

  test("nor is anything chained less because notifications cannot be sent", async () => {
    const sql = database.sql(database.url("revealer"));
    await request(sql);
    const heard: string[] = [];
    const listener = database.sql(database.url("analyst"));
    await listener.listen("veil_audit", (payload) => heard.push(payload));
    await sql.unsafe(CHAIN);
    await listener.unsafe("select 1");
    // Apart from the chain, and it says nothing.
    expect(heard).toEqual([""]);
    expect(await counts()).toMatchObject({ waiting: 0 });
  });
});

test("an entry that names no role is of none, whoever writes it: a copy of it has the bytes that were chained", async () => {
  const [row] = await owner`
    insert into pii_vault.audit (login_oid, action, items) values (10, 'test.copied', 0) returning role`;
  expect(row?.role).toBeNull();
});
