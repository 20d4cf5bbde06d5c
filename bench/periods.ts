// What many periods cost whoever reads or loads: reveals of tokens that stand in each of them, loads, an analyst's
// query by token; on a connection's first call and on later ones. And what a returning device costs in each period.
// Run: bun bench/periods.ts [--periods 1,60,400] [--json]
import { parseArgs } from "node:util";
import postgres from "postgres";
import { load } from "../src/line/load.ts";
import { SCRATCH_PASSWORD } from "../test/support/scratch-cluster.ts";
import { madeUpToken, makeBatch, newLogins, tokensOf } from "./batches.ts";
import { tokenSql } from "./fill-history.ts";
import { describeMachine, veilCommit } from "./machine.ts";
import {
  keysOf,
  median,
  openEtl,
  RETURNING_PERIODS,
  type Returning,
  returnOverPeriods,
  subkeysOf,
  timed,
} from "./returning.ts";
import { type Servers, startServers, withConnection } from "./servers.ts";
import { number, table, text } from "./table.ts";

const { values: options } = parseArgs({
  options: {
    periods: { type: "string", default: "1,60,400" },
    json: { type: "boolean", default: false },
  },
});

/** Of each period: tokens that stand in all of them, and others. */
const RETURNING = 1000;
const OTHERS = 2000;
/** The first call on a connection of its own, so often, and as many later ones. */
const TIMES = 9;

const returning = Array.from({ length: RETURNING }, (_, n) =>
  madeUpToken(n % 2 === 0 ? "ip" : "dev", n),
);

/** Milliseconds on a new connection, and on the same one again. */
type ColdAndWarm = { readonly coldMs: number; readonly warmMs: number };

type Costs = Readonly<
  Record<
    | "ask for one"
    | "fetch one"
    | "ask for 1,000"
    | "fetch 1,000"
    | "load of 1"
    | "load of 1,000"
    | "query by token, planned"
    | "query by token, run",
    ColdAndWarm
  >
>;

/** Daily ones, before those that housekeeping made. */
async function makePeriods(servers: Servers, name: string, periods: number): Promise<void> {
  await withConnection(servers.connect(name), async (sql) => {
    await sql.unsafe("set role veil_owner");
    const [oldest] = await sql`select min(first)::text as first from etl.periods`;
    for (let back = periods; back > 0; back--) {
      const day = `('${oldest?.first}'::date - ${back})`;
      await sql.unsafe(`select etl.make_period(${day}, ${day} + 1)`);
      await sql.unsafe(
        `insert into pii_vault.originals (token, period, data_key, sealed, sealed_at)
         select t.token, ${day}, '00000000-0000-4000-8000-000000000000',
           sha256(t.token::bytea) || substr(sha256(t.token::bytea), 1, 12), ${day}
         from (
           select unnest($1::text[]) union all
           select ${tokenSql("n % 2 = 0", "2000-01-01", `n + ${back * OTHERS}`)}
           from generate_series(1, ${OTHERS}) n
         ) t (token)`,
        [returning],
      );
      await sql.unsafe(
        `insert into public.user_logins (user_id, masked_ip, masked_device_id, create_date)
         select t.token, t.token, null, ${day} from unnest($1::text[]) t (token)`,
        [returning],
      );
    }
    // Otherwise autovacuum would look at all of them once more, beside what is measured.
    await sql.unsafe("select pg_stat_force_next_flush()");
    await sql.unsafe("vacuum analyze pii_vault.originals, public.user_logins");
  });
}

/** `work` gives the milliseconds of each of its steps. */
async function coldAndWarm<Step extends string>(
  connect: () => postgres.Sql,
  work: (sql: postgres.Sql) => Promise<Record<Step, number>>,
): Promise<Record<Step, ColdAndWarm>> {
  const [cold, warm]: [Record<Step, number>[], Record<Step, number>[]] = [[], []];
  for (let i = 0; i < TIMES; i++) {
    await withConnection(connect(), async (sql) => {
      await sql`select 1`; // connected
      cold.push(await work(sql));
      await work(sql);
      warm.push(await work(sql));
    });
  }
  const steps = Object.keys(cold[0]!) as Step[];
  const of = (all: readonly Record<Step, number>[], step: Step) => median(all.map((m) => m[step]));
  return Object.fromEntries(
    steps.map((step) => [step, { coldMs: of(cold, step), warmMs: of(warm, step) }]),
  ) as Record<Step, ColdAndWarm>;
}

const revealing = (count: number) => async (sql: postgres.Sql) => {
  const tokens = returning.slice(0, count);
  const ask = await timed(() => sql`select pii_vault.request_reveal(${tokens}, 'benchmark') as id`);
  const fetch = await timed(
    () => sql`select token, sealed_at from pii_vault.fetch_reveal(${ask.done[0]?.id})`,
  );
  if (fetch.done.length !== count) throw new Error(`${fetch.done.length} of ${count} revealed`);
  return { ask: ask.ms, fetch: fetch.ms };
};

async function querying(sql: postgres.Sql): Promise<{ planned: number; run: number }> {
  const [row] = await sql.unsafe(
    `explain (analyze, format json) select * from public.user_logins where masked_ip = '${returning[0]}'`,
  );
  const [plan] = (row?.["QUERY PLAN"] ?? []) as Record<string, number>[];
  return { planned: plan?.["Planning Time"] ?? 0, run: plan?.["Execution Time"] ?? 0 };
}

async function loading(servers: Servers, name: string, rows: number): Promise<ColdAndWarm> {
  const keys = keysOf(servers);
  const [cold, warm]: [number[], number[]] = [[], []];
  for (let i = 0; i < TIMES; i++) {
    const etl = openEtl(servers, name);
    await etl.query("select 1"); // connected
    const one = async () => {
      const logins = newLogins(rows);
      const batch = makeBatch(logins, tokensOf(logins));
      const key = await keys.take(2 * rows);
      return (await timed(() => load(etl, subkeysOf(servers), key, batch))).ms;
    };
    cold.push(await one());
    await one();
    warm.push(await one());
    await etl.close();
  }
  return { coldMs: median(cold), warmMs: median(warm) };
}

async function costsOf(servers: Servers, name: string): Promise<Costs> {
  const connectRevealer = () =>
    postgres(servers.etlUrl(name).replace("bench_etl", "bench_revealer"), { max: 1 });
  const one = await coldAndWarm(connectRevealer, revealing(1));
  const thousand = await coldAndWarm(connectRevealer, revealing(1000));
  const query = await coldAndWarm(() => servers.connect(name), querying);
  return {
    ...{ "ask for one": one.ask, "fetch one": one.fetch },
    ...{ "ask for 1,000": thousand.ask, "fetch 1,000": thousand.fetch },
    "load of 1": await loading(servers, name, 1),
    "load of 1,000": await loading(servers, name, 1000),
    ...{ "query by token, planned": query.planned, "query by token, run": query.run },
  };
}

const counts = options.periods.split(",").map(Number);
const servers = await startServers();
try {
  const all: { periods: number; costs: Costs }[] = [];
  let returned: Returning | null = null;
  for (const periods of counts) {
    const name = await servers.copy("veil");
    await makePeriods(servers, name, periods);
    await withConnection(servers.connect(name), async (sql) => {
      if (all.length > 0) return;
      await sql.unsafe(
        `create role bench_revealer login password '${SCRATCH_PASSWORD}' in role veil_revealer`,
      );
    });
    all.push({ periods, costs: await costsOf(servers, name) });
    if (periods >= RETURNING_PERIODS) returned ??= await returnOverPeriods(servers, name);
  }
  const report = { machine: describeMachine(), veil: veilCommit(), all, returned };
  process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : format(report));
} finally {
  servers.stop();
}

function format(report: {
  readonly machine: ReturnType<typeof describeMachine>;
  readonly all: readonly { readonly periods: number; readonly costs: Costs }[];
  readonly returned: Returning | null;
}): string {
  const { machine, all, returned } = report;
  const steps = Object.keys(all[0]!.costs) as (keyof Costs)[];
  return text([
    `${machine.date}: ${machine.cpu}, ${machine.cores} cores; veil ${veilCommit() ?? "unknown"}`,
    `${RETURNING} tokens in every period and ${OTHERS} others; medians of ${TIMES}`,
    "",
    ...table([
      ["ms, a connection's first call / later", ...all.map(({ periods }) => `${periods} periods`)],
      ...steps.map((step) => [
        step,
        ...all.map(({ costs }) => {
          const { coldMs, warmMs } = costs[step];
          return `${number(coldMs, 1)} / ${number(warmMs, 1)}`;
        }),
      ]),
    ]),
    "",
    ...(returned === null
      ? []
      : [
          `a device that returns in each of ${RETURNING_PERIODS} periods: its first login of a period ` +
            `${number(returned.microsFirst, 1)} µs and ${number(returned.walFirst, 0)} bytes of WAL, a later one ` +
            `${number(returned.microsAgain, 1)} µs and ${number(returned.walAgain, 0)}; on disk ` +
            `${number(returned.bytesOnDisk, 0)} bytes an original and period`,
        ]),
  ]);
}
