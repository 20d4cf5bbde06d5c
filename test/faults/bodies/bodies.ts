// Feeds hostile bodies to one real `veil etl --follow`, and says what became of every one of them:
// `bun test/faults/bodies/bodies.ts --count 300000 --seed 1`. Exit code 0 only if nothing was found.
import { parseArgs } from "node:util";
import type { Summary } from "../../line/stored.ts";
import { makeKeys, type TestKeys } from "../../support/keys.ts";
import { startVeil } from "../../support/veil.ts";
import { type Front, startFront } from "./bodies-front.ts";
import { isFlat, residentMegabytes } from "./bodies-memory.ts";
import { type Servers, startServers } from "./bodies-servers.ts";
import { judgeRun } from "./bodies-verdict.ts";

/** As many messages wait in the queue as keep veil busy, and no more than memory likes. */
const MOST_WAITING = 2000;
const SENT_AT_ONCE = 200;
const REPORTS = 30;
/** A hang, not slowness: nothing at all was deleted for so long. */
const HUNG_MS = 300_000;

/** Of what veil says: the counts, once a minute, and that a busy machine's database took long to answer. */
const UNREMARKABLE =
  /^$|^\S+Z received=\d|has not answered for 5 s; waiting for it|^the database stores again after \d+ s$/;

export async function bodies(
  args: readonly string[],
  say: (line: string) => void = (line) => process.stdout.write(`${line}\n`),
): Promise<number> {
  const options = readOptions(args);
  if (options === null) {
    say("expected --count N and --seed N, whole numbers");
    return 2;
  }
  const { count, seed } = options;
  say(`${count} hostile bodies, seed ${seed}`);
  const servers = await startServers();
  const interrupted = () => servers.stop().finally(() => process.exit(130));
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, interrupted);
  try {
    return await feed(servers, count, seed, say);
  } finally {
    for (const signal of ["SIGINT", "SIGTERM"]) process.off(signal, interrupted);
    await servers.stop();
  }
}

function readOptions(args: readonly string[]): { count: number; seed: number } | null {
  const options = { count: { type: "string" }, seed: { type: "string" } } as const;
  try {
    const { values } = parseArgs({ args: [...args], options });
    const count = Number(values.count ?? 300_000);
    const seed = Number(values.seed ?? Date.now() % 1_000_000);
    return Number.isInteger(count) && count > 0 && Number.isInteger(seed) ? { count, seed } : null;
  } catch {
    return null;
  }
}

async function feed(
  servers: Servers,
  count: number,
  seed: number,
  say: (line: string) => void,
): Promise<number> {
  const keys = await makeKeys();
  const front = startFront(servers.queue, seed);
  const etl = startVeil(["etl", "--follow", "--json"], {
    env: {
      QUEUE_URL: servers.queue.queueUrl,
      AWS_ENDPOINT_URL_SQS: front.address,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      DATABASE_URL: servers.etlUrl,
      VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
      VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
    },
  });
  const output = Promise.all([
    new Response(etl.stdout).text(),
    new Response(etl.stderr).text(),
    etl.exited,
  ]);
  servers.onStop(async () => {
    etl.kill("SIGKILL");
    await etl.exited;
    await front.stop();
  });
  const startedAt = Date.now();
  const megabytes: number[] = [];
  await keepFed(front, count, etl, () => {
    megabytes.push(residentMegabytes(etl.pid));
    const seconds = Math.round((Date.now() - startedAt) / 1000);
    say(`${front.deleted()} done after ${seconds} s: RSS ${megabytes.at(-1)} MB`);
  });
  etl.kill("SIGTERM");
  const [stdout, stderr, code] = await output;
  const seconds = (Date.now() - startedAt) / 1000;
  say(`veil ended with ${code} after ${seconds.toFixed(0)} s: ${stdout.trim()}`);
  const complaints = stderr.split("\n").filter((line) => !UNREMARKABLE.test(line));
  const findings = complaints.map((line) => `veil said: ${line}`);
  if (code !== 0) findings.push(`veil ended with exit code ${code}`);
  findings.push(...servers.complaints().map((line) => `PostgreSQL said: ${line}`));
  findings.push(...(await busyness(servers, say)));
  const counts = readSummary(stdout);
  if (front.deleted() < count) findings.push(`only ${front.deleted()} were done at the end`);
  else if (counts === null) findings.push("veil printed no summary");
  else findings.push(...(await account({ seed, count, servers, keys, front, counts, say })));
  if (!isFlat(megabytes)) findings.push(`RSS grew: ${megabytes.join(", ")} MB`);
  for (const finding of findings.slice(0, 40)) say(`FOUND ${finding}`);
  say(findings.length === 0 ? "nothing found" : `${findings.length} findings, seed ${seed}`);
  return findings.length === 0 ? 0 : 1;
}

/** What became of every body, in a line; and what of it is wrong. */
async function account(done: {
  readonly seed: number;
  readonly count: number;
  readonly servers: Servers;
  readonly keys: TestKeys;
  readonly front: Front;
  readonly counts: Summary;
  readonly say: (line: string) => void;
}): Promise<readonly string[]> {
  const { count, front, counts, servers } = done;
  const run = { ...done, sql: servers.sql, summary: counts };
  const { rows, quarantined, neighbours, findings } = await judgeRun(run);
  const megabytes = (front.bytes() / 2 ** 20).toFixed(0);
  done.say(
    `${count} bodies of ${megabytes} MB in ${counts.received} deliveries = ${rows} rows ` +
      `(${neighbours} of them neighbours) + ${counts.duplicates} duplicates + ${quarantined} quarantined`,
  );
  return findings;
}

/** Until every message is deleted, veil has ended by itself, or nothing moves any more. */
async function keepFed(
  front: Front,
  count: number,
  etl: { readonly exitCode: number | null },
  report: () => void,
): Promise<void> {
  let sent = 0;
  let movedAt = Date.now();
  let before = 0;
  let reported = 0;
  while (front.deleted() < count && etl.exitCode === null && Date.now() - movedAt < HUNG_MS) {
    if (sent < count && sent - front.deleted() < MOST_WAITING) {
      const end = Math.min(count, sent + SENT_AT_ONCE);
      await front.send(sent, end);
      sent = end;
    } else await Bun.sleep(20);
    const deleted = front.deleted();
    if (deleted > before) [before, movedAt] = [deleted, Date.now()];
    if (deleted >= reported + Math.ceil(count / REPORTS)) {
      reported = deleted;
      report();
    }
  }
}

/** What the database counted, and what of it should not be there. */
async function busyness({ sql }: Servers, say: (line: string) => void): Promise<string[]> {
  const [stat] = await sql`
    select xact_commit::integer as commits, xact_rollback::integer as rollbacks,
      deadlocks::integer, conflicts::integer, temp_files::integer as "temporary files",
      sessions::integer, sessions_abandoned::integer as abandoned,
      sessions_fatal::integer as fatal, sessions_killed::integer as killed
    from pg_stat_database where datname = current_database()`;
  say(`pg_stat_database: ${JSON.stringify(stat)}`);
  const bad = ["rollbacks", "deadlocks", "conflicts", "abandoned", "fatal", "killed"];
  return bad.filter((name) => stat?.[name] !== 0).map((name) => `${stat?.[name]} ${name}`);
}

function readSummary(stdout: string): Summary | null {
  return /^\{[^\n]*\}\n$/.test(stdout) ? (JSON.parse(stdout) as Summary) : null;
}

if (import.meta.main) process.exit(await bodies(process.argv.slice(2)));
