// What one connection's loads cost: CPU of PostgreSQL's backend and of this process per row, without the
// rest of the line. Batches of made-up tokens and seals of the usual size go through `load`, one after another.
// Run: bun bench/load.ts [--rows N] [--batches N] [--rounds N] [--vault N] [--tombstones N]
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { readDatabase as databaseConfig } from "../src/config/database-url.ts";
import { readTokenKey } from "../src/config/keys.ts";
import { DataKeys } from "../src/keys/data-keys.ts";
import { load } from "../src/line/load.ts";
import type { Protected } from "../src/login/protect.ts";
import { openDatabase } from "../src/postgres/database.ts";
import { madeUpToken, makeBatch, tokensOf } from "./batches.ts";
import { fillVault } from "./fill-vault.ts";
import { REPEATING_DEVICES } from "./logins.ts";
import { startServers, withConnection } from "./servers.ts";
import { spreadOf } from "./spread.ts";

const { values: given } = parseArgs({
  options: {
    rows: { type: "string", default: "1000" },
    batches: { type: "string", default: "60" },
    rounds: { type: "string", default: "3" },
    vault: { type: "string", default: "0" },
    tombstones: { type: "string", default: "0" },
  },
});
const [ROWS, BATCHES, ROUNDS, VAULT, TOMBSTONES] = [
  ...[given.rows, given.batches, given.rounds, given.vault, given.tombstones],
].map(Number) as [number, number, number, number, number];

/** What the originals of a batch are to the vault. */
const KINDS = {
  "all new": { repeats: false, sent: true },
  "repeating, sent again": { repeats: true, sent: true },
  "repeating, not sent": { repeats: true, sent: false },
};
type Kind = keyof typeof KINDS;

let serial = 0;

function batchOf({ repeats, sent }: (typeof KINDS)[Kind]): Protected {
  const logins = Array.from({ length: ROWS }, () => {
    const n = serial++;
    const who = repeats ? -1 - ((n * 733) % REPEATING_DEVICES) : n;
    const userId = `424cdd21-063a-43a7-b91b-${(who >>> 0).toString(16).padStart(12, "0")}`;
    return { userId, ip: madeUpToken("ip", who), device: madeUpToken("dev", who) };
  });
  return makeBatch(logins, sent ? tokensOf(logins) : []);
}

/** Nanoseconds that a process's first thread ran for: PostgreSQL's backends have one. */
const ranFor = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ")[0]);

/** `wal` in bytes. */
type Cost = Readonly<Record<"backend" | "client" | "wall" | "wal", number>>;

const servers = await startServers();
try {
  // In every copy: what was forgotten, and does not come.
  await withConnection(servers.connect("veil"), (sql) =>
    sql.unsafe(`insert into pii_vault.tombstones (token, erasure)
      select case n % 2 when 0 then 'ip1_' else 'dev1_' end
        || translate(encode(substring(sha256(n::text::bytea) for 12), 'hex'), '0189', 'wxyz') || 'ba',
        '00000000-0000-4000-8000-000000000000'
      from generate_series(1, ${TOMBSTONES}) n`),
  );
  if (VAULT > 0) await fillVault(servers, VAULT, () => {});
  const subkeys = readTokenKey(servers.keys);
  const key = await new DataKeys(subkeys, [servers.keys.VEIL_RECIPIENTS]).take(1);
  const measure = async (name: string, kind: Kind): Promise<Cost> => {
    const database = openDatabase(databaseConfig({ DATABASE_URL: servers.etlUrl(name) }));
    const [backend] = await database.query("select pg_backend_pid() as pid");
    const walOf = async () =>
      Number(
        await withConnection(servers.connect(name), async (sql) => {
          const [row] = await sql`select pg_current_wal_lsn() - '0/0'::pg_lsn as bytes`;
          return row?.bytes;
        }),
      );
    const loadAll = async (batches: readonly Protected[]) => {
      for (const batch of batches) await load(database, subkeys, key, batch);
    };
    const batches = (count: number) => Array.from({ length: count }, () => batchOf(KINDS[kind]));
    // Plans are made, caches filled, and what repeats is there.
    const all = { repeats: KINDS[kind].repeats, sent: true };
    const known = Math.max(12, Math.ceil(REPEATING_DEVICES / ROWS));
    await loadAll(Array.from({ length: known }, () => batchOf(all)));
    const timed = batches(BATCHES);
    const [wal, cpu, ran, started] = [
      ...[await walOf(), process.cpuUsage(), ranFor(Number(backend?.pid)), performance.now()],
    ] as [number, NodeJS.CpuUsage, number, number];
    await loadAll(timed);
    const wall = (performance.now() - started) * 1000;
    const ran2 = ranFor(Number(backend?.pid));
    const { user, system } = process.cpuUsage(cpu);
    const walBytes = (await walOf()) - wal;
    await database.close();
    const rows = BATCHES * ROWS;
    return {
      ...{ backend: (ran2 - ran) / 1000 / rows, client: (user + system) / rows },
      ...{ wall: wall / rows, wal: walBytes / rows },
    };
  };
  const costs = new Map<Kind, Cost[]>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const kind of Object.keys(KINDS) as Kind[]) {
      const cost = await measure(await servers.copy(VAULT > 0 ? "vault" : "veil"), kind);
      costs.set(kind, [...(costs.get(kind) ?? []), cost]);
    }
  }
  console.log(
    `${BATCHES} loads of ${ROWS} rows, ${ROUNDS} rounds, ${VAULT} originals and ${TOMBSTONES} tombstones there; per row, CPU and wall in µs`,
  );
  for (const [kind, list] of costs) {
    const of = (figure: keyof Cost) => {
      const { median, min, max } = spreadOf(list.map((cost) => cost[figure]))!;
      return `${figure} ${median.toFixed(1)} (${min.toFixed(1)}–${max.toFixed(1)})`;
    };
    const figures = (["backend", "client", "wall", "wal"] as const).map(of);
    console.log(`${kind.padEnd(22)} ${figures.join("  ")}`);
  }
} finally {
  servers.stop();
}
