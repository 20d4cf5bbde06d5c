// `veil audit`: the record listed, recomputed, and its end signed.
import { existsSync } from "node:fs";
import type { AuditKey, Checkpoint } from "../../vault/checkpoint.ts";
import { chainAudit, tryToChain } from "../audit/chain.ts";
import { addLine, readCheckpoints, writeLine } from "../audit/checkpoints.ts";
import { detailsText } from "../audit/details.ts";
import { formatTime } from "../audit/entries.ts";
import { type AuditFilter, type ListedEntry, listAudit } from "../audit/list.ts";
import { findStopped, STOPPED_HINT, waitingText } from "../audit/stopped.ts";
import { type Verdict, verifyAudit } from "../audit/verify.ts";
import { readDatabase } from "../config/database-url.ts";
import { readAuditKey, readAuditSecretKey } from "../config/keys.ts";
import { failed } from "../failure.ts";
import { type Database, openDatabase } from "../postgres/database.ts";
import { requireSchema } from "../postgres/schema.ts";
import { flushed, Progress, printable, table } from "../terminal/terminal.ts";
import { type Context, type ServerNeeds, type Servers, withServers } from "./servers.ts";

/** Reads what it needs of the configuration first, connects then. */
function withAudit<K>(
  context: Context,
  variables: ServerNeeds["variables"],
  read: (session: Servers) => K | Promise<K>,
  work: (database: Database, read: K) => Promise<void>,
): Promise<void> {
  return withServers(context, { login: "local_auditor", variables }, async (session) => {
    const given = await read(session);
    const database = openDatabase(readDatabase(session.env));
    try {
      await requireSchema(database);
      await work(database, given);
    } finally {
      await database.close();
    }
  });
}

export type ListOptions = AuditFilter & { readonly json: boolean };

export async function runAuditList(context: Context, options: ListOptions): Promise<void> {
  const { terminal } = context;
  await withAudit(
    context,
    [],
    () => null,
    async (database) => {
      await chainAudit(database);
      let listed = 0;
      if (options.json) terminal.out("[");
      await listAudit(database, options, async (page) => {
        if (options.json) {
          const objects = page.map((entry) => JSON.stringify(asJson(entry)));
          terminal.out(`${listed === 0 ? "" : ","}\n${objects.join(",\n")}`);
        } else {
          terminal.out(table(HEADER, page.map(cells), terminal.isStdoutTerminal && listed === 0));
        }
        listed += page.length;
        // A slow reader is waited for: nothing piles up here.
        await flushed();
      });
      if (options.json) terminal.out(listed === 0 ? "]\n" : "\n]\n");
      else if (listed === 0) terminal.err("the audit holds no such entries\n");
    },
  );
}

const HEADER = [
  ...["ENTRY", "AT", "LOGIN", "ADDRESS", "ACTION", "REQUEST", "ITEMS", "OF", "DETAILS", "REASON"],
];

const cells = (entry: ListedEntry): string[] => {
  const of = [...(entry.tokens ?? []), ...(entry.messageIds ?? [])];
  const role = entry.role === null ? "" : ` as ${entry.role}`;
  return [
    String(entry.id),
    formatTime(entry.at) ?? "",
    `${entry.login}${role}`,
    entry.address ?? "",
    String(entry.action),
    entry.request ?? "",
    String(entry.items),
    of.length === 0 ? "" : of.length === 1 ? String(of[0]) : `${of[0]} +${of.length - 1}`,
    detailsText(entry.details),
    entry.reason ?? "",
  ];
};

const asJson = (entry: ListedEntry) => ({
  ...entry,
  id: Number(entry.id),
  at: formatTime(entry.at),
  position: entry.position === null ? null : Number(entry.position),
  details: entry.details === null ? null : JSON.parse(entry.details),
});

export async function runAuditVerify(
  context: Context,
  checkpoint: string | null,
  json: boolean,
): Promise<void> {
  const { terminal } = context;
  await withAudit(
    context,
    ["VEIL_AUDIT_KEY"],
    ({ env }) =>
      checkpoint === null
        ? []
        : requireSome(checkpoint, readCheckpoints(checkpoint, readAuditKey(env))),
    async (database, signed) => {
      const verdict = await verify(context, database, signed);
      if (json) terminal.out(`${JSON.stringify(summary(verdict, signed))}\n`);
      else if (isWhole(verdict)) terminal.out(describe(verdict, signed));
      sayWhatIsWrong(context, verdict);
    },
  );
}

async function requireSome(
  path: string,
  reading: Promise<readonly Checkpoint[]>,
): Promise<readonly Checkpoint[]> {
  const signed = await reading;
  if (signed.length > 0) return signed;
  throw failed(`${path} holds no checkpoint`, "`veil audit checkpoint --out FILE` writes one");
}

export async function runAuditCheckpoint(
  context: Context,
  path: string,
  json: boolean,
): Promise<void> {
  const { terminal } = context;
  await withAudit(
    context,
    ["VEIL_AUDIT_KEY"],
    async ({ env }): Promise<{ key: AuditKey; signed: readonly Checkpoint[] }> => {
      const key = readAuditSecretKey(env);
      return { key, signed: existsSync(path) ? await readCheckpoints(path, key) : [] };
    },
    async (database, { key, signed }) => {
      const verdict = await verify(context, database, signed);
      if (!isWhole(verdict)) sayWhatIsWrong(context, verdict);
      const { chain, end } = verdict;
      const { position, number: entry, hash, marks } = end;
      const madeAt = new Date().toISOString();
      addLine(path, await writeLine(key, { chain, position, entry, hash, madeAt, marks }));
      if (json) terminal.out(`${JSON.stringify(summary(verdict, signed))}\n`);
      else terminal.out(`${describe(verdict, signed)}signed in ${printable(path)}\n`);
      // Where chaining is stopped, what is chained is worth signing all the more; and is not all.
      sayWhatIsWrong(context, verdict);
    },
  );
}

async function verify(
  { terminal }: Context,
  database: Database,
  signed: readonly Checkpoint[],
): Promise<Verified> {
  const chaining = await tryToChain(database);
  let progress: Progress | null = null;
  let verdict: Verdict;
  try {
    verdict = await verifyAudit(database, {
      signed,
      onProgress: (done, total) => {
        progress ??= new Progress(terminal, total);
        progress.show(done, "entries");
      },
    });
  } finally {
    (progress as Progress | null)?.clear();
  }
  const { waiting, end, offences } = verdict;
  const read = { waiting, position: end.position };
  return { ...verdict, isStopped: await findStopped(database, chaining, read, offences) };
}

type Verified = Verdict & {
  /** An offence as well, but none of what is chained. */
  readonly isStopped: boolean;
};

const isWhole = ({ offences, isStopped }: Verified): boolean =>
  offences.count === (isStopped ? 1 : 0);

/** Each offence on stderr, the last one as the failure. */
function sayWhatIsWrong({ terminal }: Context, verified: Verified): void {
  const { offences, waiting, isStopped } = verified;
  if (waiting.entries > 0 && !isStopped) terminal.err(`${waitingText(waiting)}\n`);
  if (offences.count === 0) return;
  const said = offences.named.map(({ message }) => message);
  const rest = offences.count - said.length;
  if (rest > 0) said.push(`and ${rest} more like these`);
  for (const message of said.slice(0, -1)) terminal.err(`error: ${printable(message)}\n`);
  const isOfAnother = offences.named.some(
    ({ kind, position }) => kind === "checkpoint" && position === null,
  );
  throw failed(
    said.at(-1)!,
    isWhole(verified) ? STOPPED_HINT : isOfAnother ? `${WHICH_DATABASE} ${ALTERED}` : ALTERED,
  );
}

const ALTERED =
  "the audit is not as it was written: compare it with a backup from before, and find out who could";

const WHICH_DATABASE =
  "is DATABASE_URL the database of these checkpoints, and not one that was made anew? If it is,";

function describe({ end }: Verdict, signed: readonly Checkpoint[]): string {
  const last = signed.at(-1);
  const added =
    last === undefined
      ? ""
      : `${end.position - last.position} added since the checkpoint of ${last.madeAt}\n`;
  return (
    `${end.position} entries, each as it was chained\n` +
    `head: position ${end.position}, ${hex(end.hash)}\n${added}`
  );
}

function summary({ chain, end, waiting, offences }: Verified, signed: readonly Checkpoint[]) {
  const last = signed.at(-1);
  return {
    ok: offences.count === 0,
    chain,
    position: Number(end.position),
    hash: hex(end.hash),
    waiting: {
      entries: waiting.entries,
      since: waiting.since,
      first: waiting.first === null ? null : Number(waiting.first),
    },
    checkpoint:
      last === undefined
        ? null
        : {
            position: Number(last.position),
            madeAt: last.madeAt,
            added: Number(end.position - last.position),
          },
    offences: offences.count,
    examples: offences.named.map(({ kind, position, entry, message }) => ({
      kind,
      position: position === null ? null : Number(position),
      entry: entry === null ? null : Number(entry),
      message,
    })),
  };
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
