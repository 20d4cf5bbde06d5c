// `bun run test [FILE…] [OPTION…]` runs every behaviour once. `bun run test:all` adds the fault tests at full
// length, the benchmarks' own tests, and what depends on the server's version on PostgreSQL 14. With `--added`
// it runs only these, for a machine that has just run the others. Options are those of `bun test`.
//
// All test processes share one PostgreSQL, and everything temporary is in one folder. A run that is killed
// takes the folder and the servers with it.
import { endsWithUs } from "./support/ends-with-us.ts";
import { makeOwnFolder } from "./support/own-folder.ts";
import { SHARED_SERVER, startTestServer } from "./support/test-server.ts";

type Variables = Readonly<Record<string, string>>;

/** More processes than cores: most tests wait more than they work. */
const OPTIONS = ["--timeout=300000", "--parallel=4", "--max-concurrency=10"];
const WITHOUT_BENCHMARKS = "--path-ignore-patterns=test/bench.test.ts";
const ADDED = ["test/faults", "test/bench.test.ts"];
const ON_OLDEST = ["migrate", "roles", "load", "reveal", "governance"].map((n) => `test/sql/${n}`);

/** Answers with the exit code. */
async function run(args: readonly string[], variables: Variables = {}): Promise<number> {
  Object.assign(process.env, variables);
  const { stop, ...server } = await startTestServer();
  const child = Bun.spawn(endsWithUs([process.execPath, "test", ...OPTIONS, ...args]), {
    env: { ...process.env, [SHARED_SERVER]: JSON.stringify(server) },
    stdio: ["inherit", "inherit", "inherit"],
  });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, forward);
  const code = await child.exited;
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, forward);
  await stop();
  return code;
}

async function runAll(args: readonly string[]): Promise<number> {
  const others = args.filter((arg) => arg !== "--added");
  const files = others.length < args.length ? ADDED : [];
  const newest = await run([...files, ...others], { TEST_FAULTS: "all" });
  // A server that somebody named, or the oldest one, has been used already.
  if (process.env.TEST_DATABASE_URL || process.env.TEST_POSTGRES) return newest;
  return (await run([...ON_OLDEST, ...others], { TEST_POSTGRES: "14" })) || newest;
}

const folder = makeOwnFolder("tests");
process.env.TMPDIR = folder.path;
const args = process.argv.slice(2);
const isAll = args[0] === "--all";
const namesFiles = args.some((arg) => !arg.startsWith("-"));
const code = isAll
  ? await runAll(args.slice(1))
  : await run(namesFiles ? args : [WITHOUT_BENCHMARKS, ...args]);
folder.remove();
process.exit(code);
