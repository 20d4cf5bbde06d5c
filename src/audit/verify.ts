// Recomputes the audit's chain, entry by entry, and names what does not fit. Nothing that the database says
// of its own chain is believed; what it cannot have changed unnoticed is what a checkpoint holds.
//
// One snapshot throughout, so entries may be added meanwhile; a page at a time, so a chain may be long.

import { failed } from "../failure.ts";
import type { Database, Query } from "../postgres/database.ts";
import type { Row } from "../postgres/values.ts";
import { ENTRY_COLUMNS, formatTime, readEntry } from "./entries.ts";
import { Offences } from "./offences.ts";
import { type Signed, SignedMarks } from "./signed-marks.ts";
import { type End, type Head, type Link, Walk } from "./walk.ts";

export type Verdict = {
  readonly chain: string;
  readonly end: End;
  readonly waiting: Waiting;
  readonly offences: Offences;
};

/** What is on no chain yet. */
export type Waiting = {
  readonly entries: number;
  /** When the first of them was written, and which it is; null where none waits. */
  readonly since: string | null;
  readonly first: bigint | null;
  /** By the database's clock: chaining comes right after an entry is committed, and every hour. */
  readonly isOld: boolean;
};

const OLD_MINUTES = 10;

export type Verifying = {
  /** The oldest first. */
  readonly signed: readonly Signed[];
  readonly onProgress: (done: number, total: number) => void;
};

/** Throws only where the database cannot be read: what is wrong with the chain is in the verdict. */
export async function verifyAudit(database: Database, verifying: Verifying): Promise<Verdict> {
  return await database.transaction(async (query) => {
    await query("set transaction isolation level repeatable read, read only");
    // A function of `public` could fit a call better than the one that was meant, and lie.
    await query("set local search_path = pg_catalog, pg_temp");
    // By index, page after page: statistics may be from before there was anything.
    await query("set local enable_seqscan = off");
    await query("set local enable_hashjoin = off");
    const offences = new Offences();
    const head = await readHead(query, offences);
    const signed = new SignedMarks(head.chain, verifying.signed, offences);
    const walk = new Walk(head, signed, offences);
    for await (const page of readChain(query)) {
      for (const link of page) walk.step(link);
      verifying.onProgress(Number(walk.position), Number(head.position));
    }
    const end = walk.end();
    await findStrays(query, offences);
    const waiting = await readWaiting(query, offences);
    return { chain: head.chain, end, waiting, offences };
  });
}

async function readHead(query: Query, offences: Offences): Promise<Head> {
  const rows = await query(
    `select chain::text, position::text, pg_catalog.encode(hash, 'hex') as hash
     from pii_vault.audit_head limit 2`,
  );
  const [row] = rows;
  if (row === undefined) {
    throw failed(
      "the head of the audit chain is missing: the database does not say which chain this is",
      "somebody altered the database: compare it with a backup, and find out who could",
    );
  }
  if (rows.length > 1) offences.add("head", null, null, "the audit chain has more than one head");
  return {
    chain: String(row.chain),
    position: BigInt(String(row.position)),
    hash: fromHex(row.hash),
  };
}

const MOST_ROWS = 2000;
const MOST_BYTES = 4_000_000;

/** An entry may name ten thousand tokens: pages are cut by size, as it is stored. */
const PAGE = `
  with page as (
    select
      c.position, c.entry, c.hash, pg_catalog.row_number() over (order by c.position) as n,
      pg_catalog.sum(
        coalesce(
          pg_catalog.pg_column_size(a.tokens) + pg_catalog.pg_column_size(a.message_ids), 0
        ) + coalesce(pg_catalog.pg_column_size(a.details), 0)
      ) over (order by c.position) as bytes
    from (
      select * from pii_vault.audit_chain where position > $1::bigint
      order by position limit ${MOST_ROWS}
    ) c
    left join pii_vault.audit a on a.id = c.entry
  )
  select p.position::text as position, p.entry::text as entry,
    pg_catalog.encode(p.hash, 'hex') as hash,
    ${ENTRY_COLUMNS}
  from page p left join pii_vault.audit a on a.id = p.entry
  where p.bytes <= ${MOST_BYTES} or p.n = 1
  order by p.position`;

async function* readChain(query: Query): AsyncGenerator<readonly Link[]> {
  for (let after = FIRST; ; ) {
    const rows = await query(PAGE, [after]);
    if (rows.length === 0) return;
    yield rows.map(readLink);
    after = String(rows.at(-1)?.position);
  }
}

const FIRST = "-9223372036854775808";

const readLink = (row: Row): Link => ({
  position: BigInt(String(row.position)),
  number: BigInt(String(row.entry)),
  entry: readEntry(row),
  hash: fromHex(row.hash),
});

const fromHex = (text: unknown): Uint8Array => new Uint8Array(Buffer.from(String(text), "hex"));

async function findStrays(query: Query, offences: Offences): Promise<void> {
  const rows = await query(
    `select a.id::text as id, pg_catalog.count(*) over ()::text as total
     from pii_vault.audit a
     where not exists (select from pii_vault.audit_chain c where c.entry = a.id)
       and not exists (select from pii_vault.audit_waiting w where w.entry = a.id)
     order by a.id limit $1`,
    [Offences.MOST_NAMED],
  );
  for (const { id } of rows) {
    offences.add(
      "entry-inserted",
      null,
      BigInt(String(id)),
      `entry ${id} is on no chain and does not wait for it: it was put in, or taken off`,
    );
  }
  offences.addUnnamed(Number(rows[0]?.total ?? 0) - rows.length);
}

async function readWaiting(query: Query, offences: Offences): Promise<Waiting> {
  const [row] = await query(
    `select a.id::text as first, pg_catalog.count(*) over ()::text as entries,
       pg_catalog.encode(pg_catalog.timestamptz_send(a.at), 'hex') as since,
       a.at < pg_catalog.now() - interval '${OLD_MINUTES} minutes' as is_old
     from pii_vault.audit_waiting w join pii_vault.audit a on a.id = w.entry
     where not exists (select from pii_vault.audit_chain c where c.entry = w.entry)
     order by a.at, a.id limit 1`,
  );
  const gone = await query(
    `select w.entry::text as id, pg_catalog.count(*) over ()::text as total from pii_vault.audit_waiting w
     where not exists (select from pii_vault.audit a where a.id = w.entry)
       and not exists (select from pii_vault.audit_chain c where c.entry = w.entry)
     order by w.entry limit $1`,
    [Offences.MOST_NAMED],
  );
  for (const { id } of gone) {
    offences.add(
      "entry-missing",
      null,
      BigInt(String(id)),
      `entry ${id} is missing: it was deleted before it was chained`,
    );
  }
  offences.addUnnamed(Number(gone[0]?.total ?? 0) - gone.length);
  const since = row?.since;
  return {
    entries: Number(row?.entries ?? 0),
    since: typeof since === "string" ? formatTime(BigInt.asIntN(64, BigInt(`0x${since}`))) : null,
    first: row === undefined ? null : BigInt(String(row.first)),
    isOld: row?.is_old === true,
  };
}
