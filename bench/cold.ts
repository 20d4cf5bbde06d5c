// `bun bench/cold.ts`: how long a fresh process takes, from its start to its end, to say its version and to
// reveal one token of a running database: the compiled binary and the sources, beside a binary that does
// nothing. Options: --runs N (of each, 30), --binary PATH (instead of one built now), --json.
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { readRecoveryKeys } from "../src/commands/with-recovery.ts";
import { readDatabase as databaseConfig } from "../src/config/database-url.ts";
import { OpeningKeys } from "../src/keys/open.ts";
import { openDatabase } from "../src/postgres/database.ts";
import { requireSchema } from "../src/postgres/schema.ts";
import { makeOwnFolder } from "../test/support/own-folder.ts";
import { reveal } from "../test/support/reveal.ts";
import { deriveSubkeys, parseKey } from "../vault/keys.ts";
import { makeToken } from "../vault/token.ts";
import { loginBody } from "./logins.ts";
import { describeMachine, describeVersions } from "./machine.ts";
import { environmentOf, PROGRAMS } from "./programs.ts";
import { type Servers, startServers, veil, withConnection } from "./servers.ts";
import { type Spread, spreadOf } from "./spread.ts";

const { values: options } = parseArgs({
  options: {
    runs: { type: "string", default: "30" },
    binary: { type: "string" },
    json: { type: "boolean", default: false },
  },
});
const runs = Number(options.runs);
/** They bring the files into memory, and do not count. */
const WARM_UP_RUNS = 2;

type Environment = Readonly<Record<string, string>>;
type Took = { readonly millis: number; readonly cpuMillis: number };
type Program = { readonly name: string; readonly run: () => Took | Promise<Took> };

function finish(argv: readonly string[], env: Environment = {}): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...argv], { env: { ...env }, cwd: "/" });
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${exitCode}, ${stderr.toString()}`);
  return stdout.toString();
}

const EXECUTABLE = `linux-${process.arch}`;

/** The binary as it is released, and one that Bun makes of nothing. */
function build(folder: string): { readonly binary: string; readonly floor: string } {
  const floor = join(folder, "floor");
  const source = join(folder, "nothing.ts");
  writeFileSync(source, "");
  const compile = ["build", "--compile", "--minify", "--bytecode", "--format=esm"];
  finish([process.execPath, ...compile, source, `--outfile=${floor}`], { PATH });
  if (options.binary !== undefined) return { binary: resolve(options.binary), floor };
  const script = fileURLToPath(new URL("../scripts/build.ts", import.meta.url));
  finish([process.execPath, script, "--only", EXECUTABLE, "--out", folder], { PATH });
  return { binary: join(folder, `veil-${EXECUTABLE}`), floor };
}

const PATH = process.env.PATH ?? "";

/** Stores one original; what reveals it again. */
async function store(
  servers: Servers,
): Promise<{ token: string; original: string; env: Environment }> {
  const database = await servers.copy("veil");
  const url = await servers.queue.fill({ kind: "new", from: 1, count: 1 });
  finish(veil("etl", "--max-messages", "1"), environmentOf(servers, PROGRAMS.new, url, database));
  const login = new URL(servers.superuserUrl(database));
  login.username = "bench_revealer";
  await withConnection(servers.connect("postgres"), (sql) =>
    sql.unsafe(
      `create role ${login.username} login password '${login.password}' in role veil_revealer`,
    ),
  );
  const { VEIL_TOKEN_KEY, VEIL_IDENTITY, VEIL_VERIFY_KEY } = servers.keys;
  const original = String(JSON.parse(loginBody("new", 1)).ip);
  return {
    token: makeToken(deriveSubkeys(parseKey(VEIL_TOKEN_KEY)!), "ip", original),
    original,
    env: { DATABASE_URL: login.href, VEIL_IDENTITY, VEIL_VERIFY_KEY, HOME: "/" },
  };
}

/** A process of its own, which must say `expected`. */
function started(argv: readonly string[], expected: string, env: Environment = {}): Took {
  const before = performance.now();
  const { exitCode, stdout, stderr, resourceUsage } = Bun.spawnSync([...argv], {
    ...{ env: { ...env }, cwd: "/", stdin: "ignore" },
  });
  const millis = performance.now() - before;
  if (exitCode !== 0 || !stdout.toString().includes(expected)) {
    throw new Error(`${argv.join(" ")}: exit code ${exitCode}, ${stderr.toString()}`);
  }
  return { millis, cpuMillis: Number(resourceUsage.cpuTime.total) / 1000 };
}

/** What of a reveal is left where nothing has to be started or loaded: it connects, asks and opens. */
async function revealedHere(token: string, original: string, env: Environment): Promise<Took> {
  const [before, cpuBefore] = [performance.now(), process.cpuUsage()];
  const database = openDatabase(databaseConfig(env));
  await requireSchema(database);
  const { revealed } = await reveal(
    database,
    new OpeningKeys(readRecoveryKeys(env)),
    [token],
    null,
  );
  const millis = performance.now() - before;
  const { user, system } = process.cpuUsage(cpuBefore);
  await database.close();
  if (revealed[0]?.original !== original) throw new Error("another original was revealed");
  return { millis, cpuMillis: (user + system) / 1000 };
}

type Row = { readonly name: string; readonly millis: Spread; readonly cpuMillis: Spread };

/** They take turns, so that what else the machine does falls on all of them. */
async function measure(programs: readonly Program[]): Promise<Row[]> {
  const taken = programs.map((): Took[] => []);
  for (let run = 0; run < WARM_UP_RUNS + runs; run++) {
    for (const [i, program] of programs.entries()) {
      const took = await program.run();
      if (run >= WARM_UP_RUNS) taken[i]!.push(took);
    }
  }
  return programs.map(({ name }, i) => ({
    name,
    millis: spreadOf(taken[i]!.map(({ millis }) => millis))!,
    cpuMillis: spreadOf(taken[i]!.map(({ cpuMillis }) => cpuMillis))!,
  }));
}

function format(rows: readonly Row[]): string {
  const { date, cpu, cores } = machine;
  const spread = ({ median, min, max }: Spread) =>
    `${median.toFixed(1)} (${min.toFixed(1)}–${max.toFixed(1)})`.padStart(22);
  return [
    `${date}: ${cpu}, ${cores} cores; bun ${versions.bun}, PostgreSQL ${versions.postgres}, veil ${versions.veil}`,
    `medians of ${runs} runs`,
    "",
    `${"".padEnd(36)}${"ms".padStart(22)}${"ms of CPU".padStart(22)}`,
    ...rows.map((row) => `${row.name.padEnd(36)}${spread(row.millis)}${spread(row.cpuMillis)}`),
    "",
  ].join("\n");
}

if (!Number.isSafeInteger(runs) || runs < 1) {
  throw new Error("--runs: expected a whole number of 1 or more");
}
const { path: folder } = makeOwnFolder("cold");
const { binary, floor } = build(folder);
const servers = await startServers();
const machine = describeMachine();
const versions = await describeVersions(servers);
try {
  const { token, original, env } = await store(servers);
  const rows = await measure([
    { name: "a Bun binary that does nothing", run: () => started([floor], "") },
    { name: "--version, binary", run: () => started([binary, "--version"], "veil ") },
    { name: "--version, source", run: () => started(veil("--version"), "veil ") },
    { name: "reveal, binary", run: () => started([binary, "reveal", token], original, env) },
    { name: "reveal, source", run: () => started(veil("reveal", token), original, env) },
    { name: "the same in a process that runs", run: () => revealedHere(token, original, env) },
  ]);
  process.stdout.write(
    options.json
      ? `${JSON.stringify({ machine, versions, runs, programs: rows })}\n`
      : format(rows),
  );
} finally {
  servers.stop();
}
