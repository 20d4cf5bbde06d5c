// `veil audit verify` and `veil audit checkpoint`: the chain of the audit recomputed, and its end
// signed.
import { existsSync } from "node:fs";
import type { AuditKey, Checkpoint } from "../../vault/checkpoint.ts";
import { tryToChain } from "../audit/chain.ts";
import { addLine, readCheckpoints, writeLine } from "../audit/checkpoints.ts";
import { type VerifiedAudit, verifyAudit } from "../audit/verify.ts";
import { isChainingStopped, STOPPED_HINT, waitingText } from "../audit/waiting.ts";
import type { Environment } from "../config/environment.ts";
import { readAuditKey, readAuditSecretKey } from "../config/keys.ts";
import { failed } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import { Progress, printable } from "../terminal/terminal.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

const NEEDS = { roles: ["veil_auditor"] } as const;
const AUDIT_VARIABLES = ["VEIL_AUDIT_KEY"] as const;

export async function runAuditVerify(
  context: Context,
  checkpoint: string | null,
  json: boolean,
): Promise<void> {
  const { terminal } = context;
  const keys = {
    variables: AUDIT_VARIABLES,
    read: async (env: Environment): Promise<readonly Checkpoint[]> =>
      checkpoint === null ? [] : await readSome(checkpoint, readAuditKey(env)),
  };
  await withDatabase(context, { ...NEEDS, keys }, async ({ database, keys: signed }) => {
    const verified = await verify(context, database, signed);
    if (json) terminal.out(`${JSON.stringify(summary(verified, signed))}\n`);
    else if (isWhole(verified)) terminal.out(describe(verified, signed));
    sayWhatIsWrong(context, verified);
  });
}

async function readSome(path: string, key: AuditKey): Promise<readonly Checkpoint[]> {
  const signed = await readCheckpoints(path, key);
  if (signed.length > 0) return signed;
  throw failed(`${path} holds no checkpoint`, "`veil audit checkpoint --out FILE` writes one");
}

export async function runAuditCheckpoint(
  context: Context,
  path: string,
  json: boolean,
): Promise<void> {
  const { terminal } = context;
  const keys = {
    variables: AUDIT_VARIABLES,
    read: async (env: Environment) => {
      const key = readAuditSecretKey(env);
      const signed = existsSync(path) ? await readCheckpoints(path, key) : [];
      return { key, signed };
    },
  };
  await withDatabase(context, { ...NEEDS, keys }, async ({ database, keys: { key, signed } }) => {
    const verified = await verify(context, database, signed);
    if (!isWhole(verified)) sayWhatIsWrong(context, verified);
    const { chain, end } = verified;
    const { position, number: entry, hash, marks } = end;
    const madeAt = new Date().toISOString();
    addLine(path, await writeLine(key, { chain, position, entry, hash, madeAt, marks }));
    if (json) terminal.out(`${JSON.stringify(summary(verified, signed))}\n`);
    else terminal.out(`${describe(verified, signed)}signed in ${printable(path)}\n`);
    // Where chaining is stopped, it is all the more worth signing what is chained. That is not
    // everything.
    sayWhatIsWrong(context, verified);
  });
}

async function verify(
  { terminal }: Context,
  database: Database,
  signed: readonly Checkpoint[],
): Promise<Verified> {
  const chaining = await tryToChain(database);
  let progress: Progress | null = null;
  let verified: VerifiedAudit;
  try {
    verified = await verifyAudit(database, {
      signed,
      onProgress: (done, total) => {
        progress ??= new Progress(terminal, total);
        progress.show(done, "entries");
      },
    });
  } finally {
    (progress as Progress | null)?.clear();
  }
  const { waiting, end, problems } = verified;
  const read = { waiting, position: end.position };
  return { ...verified, isStopped: await isChainingStopped(database, chaining, read, problems) };
}

type Verified = VerifiedAudit & {
  /** It counts as a problem, but what is chained may be whole. */
  readonly isStopped: boolean;
};

const isWhole = ({ problems, isStopped }: Verified): boolean =>
  problems.count === (isStopped ? 1 : 0);

/** Each problem on stderr, the last one as the failure. */
function sayWhatIsWrong({ terminal }: Context, verified: Verified): void {
  const { problems, waiting, isStopped } = verified;
  if (waiting.entries > 0 && !isStopped) terminal.err(`${waitingText(waiting)}\n`);
  if (problems.count === 0) return;
  const said = problems.named.map(({ message }) => message);
  const rest = problems.count - said.length;
  if (rest > 0) said.push(`and ${rest} more like these`);
  for (const message of said.slice(0, -1)) terminal.err(`error: ${printable(message)}\n`);
  const isOfAnother = problems.named.some(
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

function describe({ end }: VerifiedAudit, signed: readonly Checkpoint[]): string {
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

function summary({ chain, end, waiting, problems }: Verified, signed: readonly Checkpoint[]) {
  const last = signed.at(-1);
  return {
    ok: problems.count === 0,
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
    offences: problems.count,
    examples: problems.named.map(({ kind, position, entry, message }) => ({
      kind,
      position: position === null ? null : Number(position),
      entry: entry === null ? null : Number(entry),
      message,
    })),
  };
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
