// What a bulk reveal costs, and what it costs the line: tokens a second, the memory of the process, what stays in
// the database of it for each token, and the rate of loads beside it against that of loads alone, in one run.
// Run: bun bench/reveal.ts [N=100000] [--data-keys N] [--json]
import { openSync } from "node:fs";
import { parseArgs } from "node:util";
import { readDatabase as databaseConfig } from "../src/config/database-url.ts";
import { readTokenKey } from "../src/config/keys.ts";
import { DataKeys } from "../src/keys/data-keys.ts";
import { native } from "../src/keys/native.ts";
import { load } from "../src/line/load.ts";
import { parseMessage } from "../src/login/parse.ts";
import { maxSeals, protect } from "../src/login/protect.ts";
import { openDatabase } from "../src/postgres/database.ts";
import { SCRATCH_PASSWORD } from "../test/support/scratch-cluster.ts";
import { loginBody } from "./logins.ts";
import { describeMachine, veilCommit } from "./machine.ts";
import { startServers, veil } from "./servers.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "data-keys": { type: "string", default: "20" },
    json: { type: "boolean", default: false },
  },
});
const N = Number(positionals[0] ?? 100_000);
const DATA_KEYS = Number(options["data-keys"]);
const ROWS = 500;
/** Loads are timed for so long without a reveal, before and after. */
const ALONE_MS = 4000;

const servers = await startServers();
try {
  const name = await servers.copy("veil");
  const sql = servers.connect(name);
  await sql.unsafe(
    `create role bench_revealer login password '${SCRATCH_PASSWORD}' in role veil_revealer`,
  );
  const etlUrl = servers.etlUrl(name);
  const revealerUrl = etlUrl.replace("bench_etl", "bench_revealer");
  const etl = openDatabase(databaseConfig({ DATABASE_URL: etlUrl }));
  const subkeys = readTokenKey(servers.keys);
  let serial = 0;
  const loadBatch = async (dataKeys: DataKeys): Promise<string[]> => {
    const messages = Array.from({ length: ROWS }, () => {
      const body = loginBody("new", ++serial);
      return { id: `m${serial}`, sentAt: new Date(), body, parsed: parseMessage(body) };
    });
    const key = await dataKeys.take(maxSeals(ROWS));
    const batch = protect(messages, subkeys, key.dataKey, { primitives: native });
    await load(etl, subkeys, key, batch);
    return [...batch.originals.keys()];
  };
  const newKeys = () => new DataKeys(subkeys, [servers.keys.VEIL_RECIPIENTS]);

  const tokens: string[] = [];
  while (tokens.length < N) {
    const batches = Math.ceil(N / DATA_KEYS / ROWS / 2);
    const keys = newKeys();
    for (let j = 0; j < batches && tokens.length < N; j++) tokens.push(...(await loadBatch(keys)));
  }
  tokens.length = N;
  // As an investigator's list would be: in no order that the vault knows.
  for (let i = tokens.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [tokens[i], tokens[j]] = [tokens[j]!, tokens[i]!];
  }
  await sql.unsafe("vacuum analyze pii_vault.originals");
  const list = `${process.env.TMPDIR ?? "/tmp"}/veil-bench-${process.pid}.txt`;
  await Bun.write(list, `${tokens.join("\n")}\n`);

  const sizes = async () => {
    const [row] = await sql`
      select
        pg_total_relation_size('pii_vault.audit')::float8 as audit,
        pg_total_relation_size('pii_vault.requests')::float8 as requests`;
    return { audit: Number(row?.audit), requests: Number(row?.requests) };
  };
  const reveal = async () => {
    const started = performance.now();
    const child = Bun.spawn(veil("reveal", "-", "--json", "--reason", "bench"), {
      cwd: "/",
      env: {
        ...{ PATH: process.env.PATH ?? "", HOME: "/", DATABASE_URL: revealerUrl },
        ...{ VEIL_IDENTITY: servers.keys.VEIL_IDENTITY },
        ...{ VEIL_TOKEN_KEY: servers.keys.VEIL_TOKEN_KEY },
      },
      stdin: openSync(list, "r"),
      stdout: "pipe",
      stderr: "inherit",
    });
    // Counted and not kept: what is measured is not this process.
    let revealed = 0;
    let tail = "";
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      const text = tail + chunk;
      revealed += text.split('"sealedAt"').length - 1;
      tail = text.slice(Math.max(text.lastIndexOf('"sealedAt"') + 10, text.length - 9));
    }
    const code = await child.exited;
    if (code !== 0 || revealed !== N) throw new Error(`exit code ${code}, ${revealed} of ${N}`);
    const seconds = (performance.now() - started) / 1000;
    const peakMiB = (child.resourceUsage()?.maxRSS ?? 0) / 2 ** 20;
    return { seconds, tokensPerSecond: N / seconds, peakMiB };
  };
  const keys = newKeys();
  const loadUntil = async (over: () => boolean) => {
    const started = performance.now();
    let rows = 0;
    let longestMs = 0;
    for (let before = started; !over(); ) {
      await loadBatch(keys);
      rows += ROWS;
      const now = performance.now();
      longestMs = Math.max(longestMs, now - before);
      before = now;
    }
    return { rowsPerSecond: (rows * 1000) / (performance.now() - started), longestMs };
  };
  const loadAlone = async () => {
    const until = performance.now() + ALONE_MS;
    return await loadUntil(() => performance.now() > until);
  };

  const before = await sizes();
  const alone = await reveal();
  const after = await sizes();
  const loadsBefore = await loadAlone();
  let isOver = false;
  const [beside, loadsBeside] = await Promise.all([
    reveal().finally(() => {
      isOver = true;
    }),
    loadUntil(() => isOver),
  ]);
  const loadsAfter = await loadAlone();
  const rate = (loadsBefore.rowsPerSecond + loadsAfter.rowsPerSecond) / 2;
  const report = {
    machine: describeMachine(),
    veil: veilCommit(),
    tokens: N,
    dataKeys: DATA_KEYS,
    reveal: alone,
    bytesPerToken: {
      audit: (after.audit - before.audit) / N,
      requests: (after.requests - before.requests) / N,
    },
    revealBesideLoads: beside,
    loads: {
      aloneRowsPerSecond: rate,
      aloneLongestMs: Math.max(loadsBefore.longestMs, loadsAfter.longestMs),
      besideRowsPerSecond: loadsBeside.rowsPerSecond,
      besideLongestMs: loadsBeside.longestMs,
      ratio: loadsBeside.rowsPerSecond / rate,
    },
  };
  await etl.close();
  await sql.end();
  await Bun.file(list).delete();
  if (options.json) console.log(JSON.stringify(report));
  else {
    const { machine, reveal: r, bytesPerToken: b, loads: l } = report;
    console.log(`${machine.cpu}, ${machine.cores} cores; ${N} tokens under ${DATA_KEYS} data keys
reveal             ${Math.round(r.tokensPerSecond)} tokens/s (${r.seconds.toFixed(2)} s), peak ${r.peakMiB.toFixed(0)} MiB
beside loads       ${Math.round(beside.tokensPerSecond)} tokens/s (${beside.seconds.toFixed(2)} s)
stays in database  ${b.audit.toFixed(0)} bytes a token in the audit, ${b.requests.toFixed(0)} in the requests
loads alone        ${Math.round(l.aloneRowsPerSecond)} rows/s, the longest ${l.aloneLongestMs.toFixed(0)} ms
loads beside it    ${Math.round(l.besideRowsPerSecond)} rows/s, the longest ${l.besideLongestMs.toFixed(0)} ms
ratio              ${l.ratio.toFixed(2)}`);
  }
} finally {
  servers.stop();
}
