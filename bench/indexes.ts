// What the indexes of user_logins cost a load: batches of new logins through `etl.load`, with each set of
// indexes in turn, several rounds; ratios to none, and the size and time of the look-ups they are for.
// Run: bun bench/indexes.ts [batches]
import { readDatabase as databaseConfig } from "../src/config/database-url.ts";
import { DataKeys } from "../src/keys/data-keys.ts";
import { load } from "../src/line/load.ts";
import { parseMessage } from "../src/login/parse.ts";
import { maxSeals, protect } from "../src/login/protect.ts";
import { openDatabase } from "../src/postgres/database.ts";
import { migrate } from "../src/postgres/migrate.ts";
import { startScratchCluster } from "../test/support/scratch-cluster.ts";
import { generateIdentity } from "../vault/age.ts";
import { deriveSubkeys, generateTokenKey } from "../vault/keys.ts";

const BATCHES = Number(process.argv[2] ?? 60);
const ROWS = 1000;
const ROUNDS = 5;

const SETS: Record<string, readonly string[]> = {
  none: [],
  "btree user, ip, device; brin date": [
    "using btree (user_id)",
    "using btree (masked_ip)",
    "using btree (masked_device_id)",
    "using brin (create_date)",
  ],
  "btree user, ip, device, date": [
    "using btree (user_id)",
    "using btree (masked_ip)",
    "using btree (masked_device_id)",
    "using btree (create_date)",
  ],
  "hash user, ip, device; brin date": [
    "using hash (user_id)",
    "using hash (masked_ip)",
    "using hash (masked_device_id)",
    "using brin (create_date)",
  ],
};

const { url, stop } = await startScratchCluster("bench", { max_wal_size: "4GB" });
const database = openDatabase(databaseConfig({ DATABASE_URL: url }));
try {
  await migrate(database);
  await database.query("select from etl.housekeep()");
  const subkeys = deriveSubkeys(generateTokenKey());
  const { recipient } = await generateIdentity("classic");
  const dataKeys = new DataKeys(subkeys, [recipient]);
  let serial = 0;
  const nextBatch = async () => {
    const key = await dataKeys.take(maxSeals(ROWS));
    const messages = Array.from({ length: ROWS }, () => {
      const n = serial++;
      const body = JSON.stringify({
        user_id: `user-${(n * 7919) % 100_000}`,
        app_version: "2.3.0",
        device_type: "android",
        ip: `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`,
        locale: "en_US",
        device_id: `device-${n}`,
      });
      return { id: `m-${n}`, body, sentAt: new Date(), parsed: parseMessage(body) };
    });
    return { key, batch: protect(messages, subkeys, key.dataKey) };
  };
  const rates = new Map<string, number[]>();
  const notes = new Map<string, string>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, definitions] of Object.entries(SETS)) {
      await database.query("truncate public.user_logins, pii_vault.originals, etl.ledger");
      const old = await database.query(
        "select indexrelid::regclass::text as name from pg_index where indrelid = 'public.user_logins'::regclass",
      );
      for (const index of old) await database.query(`drop index ${index.name}`);
      for (const definition of definitions) {
        await database.query(`create index on public.user_logins ${definition}`);
      }
      const batches = [];
      for (let i = 0; i < BATCHES; i++) batches.push(await nextBatch());
      await database.query("checkpoint");
      const started = performance.now();
      for (const { key, batch } of batches) await load(database, subkeys, key, batch);
      const rate = (BATCHES * ROWS) / ((performance.now() - started) / 1000);
      rates.set(name, [...(rates.get(name) ?? []), rate]);
      await database.query("vacuum analyze public.user_logins");
      const [size] = await database.query(
        `select pg_size_pretty(sum(pg_indexes_size(relid))) as indexes, pg_size_pretty(sum(pg_relation_size(relid))) as rows
          from pg_partition_tree('public.user_logins')`,
      );
      notes.set(name, `indexes ${size?.indexes}, rows ${size?.rows}`);
    }
  }
  const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
  const base = rates.get("none") ?? [];
  const [version] = await database.query("select current_setting('server_version') as v");
  console.log(`PostgreSQL ${version?.v}, ${BATCHES} loads of ${ROWS} new rows, ${ROUNDS} rounds`);
  for (const [name, values] of rates) {
    const ratio = median(values.map((value, i) => value / (base[i] ?? value)));
    console.log(
      `${name.padEnd(36)} ${Math.round(median(values))} rows/s  ${ratio.toFixed(2)} of none  ${notes.get(name)}`,
    );
  }
} finally {
  await database.close();
  stop();
}
