// What the audit's chain costs: `bun bench/audit.ts [N]` puts N entries on record, chains, verifies and
// signs them, on a PostgreSQL of its own. Times, the most memory this process took, what it weighs on disk.
import { join } from "node:path";
import { chainAudit } from "../src/audit/chain.ts";
import { addLine, readCheckpoints, writeLine } from "../src/audit/checkpoints.ts";
import { verifyAudit } from "../src/audit/verify.ts";
import { readDatabase as configOf } from "../src/config/database-url.ts";
import { openDatabase } from "../src/postgres/database.ts";
import { migrate } from "../src/postgres/migrate.ts";
import { makeOwnFolder } from "../test/support/own-folder.ts";
import { startScratchCluster } from "../test/support/scratch-cluster.ts";
import { generateAuditKey } from "../vault/checkpoint.ts";
import { describeMachine } from "./machine.ts";

const entries = Number(process.argv[2] ?? 100_000);
const { path: folder, remove } = makeOwnFolder("bench-audit");
const { url, stop } = await startScratchCluster("bench", {});
const database = openDatabase(configOf({ DATABASE_URL: url }));

let peak = 0;
const watch = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss());
}, 50);

async function measured<T>(what: string, work: () => Promise<T>): Promise<T> {
  peak = process.memoryUsage.rss();
  const started = performance.now();
  const done = await work();
  const seconds = (performance.now() - started) / 1000;
  const rate = Math.round(entries / seconds).toLocaleString("en");
  console.log(
    `${what.padEnd(22)} ${seconds.toFixed(1).padStart(7)} s ${rate.padStart(9)} entries/s, ` +
      `peak RSS ${Math.round(peak / 2 ** 20)} MB`,
  );
  return done;
}

try {
  const { cpu, cores, memoryGiB, system } = describeMachine();
  console.log(`${cpu}, ${cores} cores, ${memoryGiB} GiB, ${system}`);
  console.log(`${entries.toLocaleString("en")} entries, a request and a fetch for each token\n`);
  await migrate(database);
  await measured("put on record", async () => {
    for (let done = 0; done < entries; done += 50_000) {
      await database.query(
        `insert into pii_vault.audit (login_oid, action, request, tokens, items, reason)
         select 16385, case n % 2 when 0 then 'reveal.request' else 'reveal.fetch' end,
           gen_random_uuid(), case n % 2 when 0 then array['ip1_abcdefghijklmnopqrstuvwxya'] else '{}' end,
           1, case n % 2 when 0 then 'case 4711' end
         from generate_series(1, $1::int) n`,
        [Math.min(50_000, entries - done)],
      );
    }
  });
  await measured("chained", () => chainAudit(database));
  const first = await measured("verified", () =>
    verifyAudit(database, { signed: [], onProgress: () => {} }),
  );
  const path = join(folder, "checkpoints.jsonl");
  const key = generateAuditKey();
  const { position, number: entry, hash, marks } = first.end;
  const madeAt = new Date().toISOString();
  const line = await writeLine(key, { chain: first.chain, position, entry, hash, madeAt, marks });
  addLine(path, line);
  const second = await measured("verified, checkpoint", async () =>
    verifyAudit(database, { signed: await readCheckpoints(path, key), onProgress: () => {} }),
  );
  console.log(
    `\n${first.problems.count + second.problems.count} problems; a checkpoint is ${line.length} bytes`,
  );
  const sizes = await database.query(
    `select c.relname as name, pg_size_pretty(pg_total_relation_size(c.oid)) as size
     from pg_catalog.pg_class c where c.relnamespace = 'pii_vault'::regnamespace
       and c.relname like 'audit%' and c.relkind = 'r' order by 1`,
  );
  for (const { name, size } of sizes) console.log(`${String(name).padEnd(22)} ${size}`);
} finally {
  clearInterval(watch);
  await database.close();
  await stop();
  remove();
}
