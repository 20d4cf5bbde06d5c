// `bun run test [FILE…] [OPTION…]` and `bun run test:all`: the tests, in several processes that share one
// PostgreSQL. Options are those of `bun test`.
//
// Everything temporary is in one folder. A run that is killed takes the folder and the servers with it, and
// Bun's own test processes end with the one that started them.
import { makeOwnFolder } from "./support/own-folder.ts";
import { SHARED_SERVER, startTestServer } from "./support/test-server.ts";

/** Most tests wait more than they work. */
const OPTIONS = ["--timeout=300000", "--parallel=4", "--max-concurrency=10"];

const folder = makeOwnFolder("tests");
process.env.TMPDIR = folder.path;
const { stop, ...server } = await startTestServer();
const child = Bun.spawn([process.execPath, "test", ...OPTIONS, ...process.argv.slice(2)], {
  env: { ...process.env, [SHARED_SERVER]: JSON.stringify(server) },
  stdio: ["inherit", "inherit", "inherit"],
});
// Sent to the whole group by a terminal; the tests end, and then this process.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
const code = await child.exited;
await stop();
folder.remove();
process.exit(code);
