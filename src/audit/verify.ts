// Verifies the audit: recomputes its chain, entry by entry, and names what does not fit. Nothing
// that the database says of its own chain is believed. Only a signed checkpoint shows a chain that
// was rewritten as a whole.
//
// It reads one snapshot, so entries may be added meanwhile, and a page at a time, so the chain may
// be long.
import { failed } from "../failure.ts";
import type { Database, Query } from "../postgres/database.ts";
import type { Row } from "../postgres/values.ts";
import { type ChainEnd, type ChainHead, type ChainLink, ChainWalk } from "./chain-walk.ts";
import { ENTRY_COLUMNS, readEntry } from "./entries.ts";
import { AuditProblems } from "./problems.ts";
import { type SignedCheckpoint, SignedMarks } from "./signed-marks.ts";
import { readWaiting, type WaitingEntries } from "./waiting.ts";

export type VerifiedAudit = {
  readonly chain: string;
  readonly end: ChainEnd;
  readonly waiting: WaitingEntries;
  readonly problems: AuditProblems;
};

export type AuditVerifying = {
  /** The oldest first. */
  readonly signed: readonly SignedCheckpoint[];
  readonly onProgress: (done: number, total: number) => void;
};

/**
 * Throws only where the database cannot be read: what is wrong with the chain is part of the
 * answer.
 */
export async function verifyAudit(
  database: Database,
  verifying: AuditVerifying,
): Promise<VerifiedAudit> {
  return await database.transaction(async (query) => {
    await query("set transaction isolation level repeatable read, read only");
    // A function of `public` could fit a call better than the one that was meant, and lie.
    await query("set local search_path = pg_catalog, pg_temp");
    // By index, page after page: the statistics may be from when the tables were empty.
    await query("set local enable_seqscan = off");
    await query("set local enable_hashjoin = off");
    const problems = new AuditProblems();
    const head = await readHead(query, problems);
    const signed = new SignedMarks(head.chain, verifying.signed, problems);
    const walk = new ChainWalk(head, signed, problems);
    for await (const page of readChain(query)) {
      for (const link of page) walk.step(link);
      verifying.onProgress(Number(walk.position), Number(head.position));
    }
    const end = walk.end();
    await findStrays(query, problems);
    const waiting = await readWaiting(query, problems);
    return { chain: head.chain, end, waiting, problems };
  });
}

async function readHead(query: Query, problems: AuditProblems): Promise<ChainHead> {
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
  if (rows.length > 1) problems.add("head", null, null, "the audit chain has more than one head");
  return {
    chain: String(row.chain),
    position: BigInt(String(row.position)),
    hash: fromHex(row.hash),
  };
}

const MOST_ROWS = 2000;
const MOST_BYTES = 4_000_000;

/** An entry may name ten thousand tokens, so pages are cut by their stored size. */
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

async function* readChain(query: Query): AsyncGenerator<readonly ChainLink[]> {
  for (let after = FIRST; ; ) {
    const rows = await query(PAGE, [after]);
    if (rows.length === 0) return;
    yield rows.map(readLink);
    after = String(rows.at(-1)?.position);
  }
}

const FIRST = "-9223372036854775808";

const readLink = (row: Row): ChainLink => ({
  position: BigInt(String(row.position)),
  number: BigInt(String(row.entry)),
  entry: readEntry(row),
  hash: fromHex(row.hash),
});

const fromHex = (text: unknown): Uint8Array => new Uint8Array(Buffer.from(String(text), "hex"));

async function findStrays(query: Query, problems: AuditProblems): Promise<void> {
  const rows = await query(
    `select a.id::text as id, pg_catalog.count(*) over ()::text as total
     from pii_vault.audit a
     where not exists (select from pii_vault.audit_chain c where c.entry = a.id)
       and not exists (select from pii_vault.audit_waiting w where w.entry = a.id)
     order by a.id limit $1`,
    [AuditProblems.MOST_NAMED],
  );
  for (const { id } of rows) {
    problems.add(
      "entry-inserted",
      null,
      BigInt(String(id)),
      `entry ${id} is on no chain and does not wait for it: it was put in, or taken off`,
    );
  }
  problems.addUnnamed(Number(rows[0]?.total ?? 0) - rows.length);
}
