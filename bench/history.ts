// What is left of the speed with years in the database, beside an empty one in the same run: the whole line and
// loads alone, each right after a checkpoint, and what lies on disk.
import { fillHistory, type History } from "./fill-history.ts";
import { type LoadFigures, measureLoads } from "./loads.ts";
import { PROGRAMS, type Program } from "./programs.ts";
import { type Numbers, type Result, runSeries } from "./series.ts";
import { type Servers, withConnection } from "./servers.ts";
import { type Spread, spreadOf } from "./spread.ts";

export type HistoryAsked = {
  /** Logins, and as many originals. */
  readonly logins: number;
  /** How many of them are in today's period. */
  readonly inCurrent: number;
  /** Of each run. */
  readonly messages: number;
  readonly rounds: number;
};

type Loads = {
  readonly figures: Readonly<Record<keyof LoadFigures, Spread>>;
  readonly rounds: readonly LoadFigures[];
};

export type HistoryReport = Omit<HistoryAsked, "messages" | "rounds"> & {
  readonly fillSeconds: number;
  readonly line: { readonly empty: Result; readonly history: Result };
  readonly loads: { readonly empty: Loads; readonly history: Loads };
  /** With history against empty, of the same round. */
  readonly ratios: {
    readonly line: Ratios<"messagesPerSecond" | "cpuMicros" | "postgresMicros" | "walBytes">;
    readonly loads: Ratios<"rowsPerSecond" | "postgresMicros" | "walBytes" | "p99Ms">;
  };
  readonly sizes: readonly Size[];
};
type Ratios<Key extends string> = Readonly<Record<Key, Spread>>;

/** Before the first round, in all partitions and in that of today's period alone. */
export type Size = {
  readonly table: string;
  /** Null for the rows themselves. */
  readonly index: string | null;
  readonly bytes: number;
  readonly currentBytes: number;
};

export async function measureHistory(
  servers: Servers,
  { logins, inCurrent, messages, rounds }: HistoryAsked,
  numbers: Numbers,
  onProgress: (text: string) => void,
): Promise<HistoryReport> {
  const begun = performance.now();
  const history = await fillHistory(servers, { logins, inCurrent }, (done) =>
    onProgress(`history: ${done} of ${logins} logins`),
  );
  const fillSeconds = (performance.now() - begun) / 1000;
  const sizes = await sizesOf(servers, history);
  const checkpoint = () =>
    withConnection(servers.connect("postgres"), (sql) => sql.unsafe("checkpoint"));
  const prepare = async (database: string) => {
    if (database === history.database) await history.reset();
    await checkpoint();
  };
  const program = (name: "empty" | "history", title: string): Program => ({
    ...{ ...PROGRAMS.new, name, title, prepare, logins: "scattered", bases: [] },
    template: name === "empty" ? "veil" : "history",
  });
  const programs = [program("empty", "empty"), program("history", "with history")];
  const line = await runSeries(servers, { programs, messages, rounds, onProgress }, numbers);
  const loads: Record<"empty" | "history", LoadFigures[]> = { empty: [], history: [] };
  for (let round = 1; round <= rounds; round++) {
    for (const { name, title, template } of programs) {
      onProgress(`round ${round} of ${rounds}: loads alone, ${title}`);
      const database = await servers.copy(template);
      await prepare(database);
      loads[name as "empty" | "history"].push(await measureLoads(servers, database, messages));
    }
  }
  const [empty, full] = line as [Result, Result];
  return {
    ...{ logins, inCurrent, fillSeconds, sizes },
    line: { empty, history: full },
    loads: { empty: spreadsOf(loads.empty), history: spreadsOf(loads.history) },
    ratios: {
      line: ratiosOf(full.rounds, empty.rounds, [
        ...(["messagesPerSecond", "cpuMicros", "postgresMicros", "walBytes"] as const),
      ]),
      loads: ratiosOf(loads.history, loads.empty, [
        ...(["rowsPerSecond", "postgresMicros", "walBytes", "p99Ms"] as const),
      ]),
    },
  };
}

function spreadsOf(rounds: readonly LoadFigures[]): Loads {
  const keys = Object.keys(rounds[0]!) as (keyof LoadFigures)[];
  const figures = keys.map((key) => [key, spreadOf(rounds.map((round) => round[key]))!]);
  return { rounds, figures: Object.fromEntries(figures) as Loads["figures"] };
}

function ratiosOf<Key extends string>(
  rounds: readonly Readonly<Record<Key, number>>[],
  bases: readonly Readonly<Record<Key, number>>[],
  keys: readonly Key[],
): Ratios<Key> {
  const spreads = keys.map((key) => [
    key,
    spreadOf(rounds.map((round, i) => round[key] / bases[i]![key]))!,
  ]);
  return Object.fromEntries(spreads) as Ratios<Key>;
}

function sizesOf(servers: Servers, { database, current }: History): Promise<Size[]> {
  const suffix = current.first.replaceAll("-", "");
  return withConnection(servers.connect(database), async (sql) => {
    const rows = await sql`
      with leaves as (
        select r.root::text as name, r.root, t.relid, t.relid::text like ${`%_${suffix}`} as is_current
        from (values ('public.user_logins'::regclass), ('pii_vault.originals'::regclass)) r (root)
        cross join lateral pg_partition_tree(r.root) t
        where t.isleaf
      ),
      parts as (
        select l.name, 0 as position, null as index, l.is_current, pg_table_size(l.relid) as bytes
        from leaves l
        union all
        -- The same index in each partition, by its columns.
        select l.name, i.indkey[0], regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', ''),
          l.is_current, pg_relation_size(i.indexrelid)
        from leaves l join pg_index i on i.indrelid = l.relid
      )
      select p.name as table, p.index, sum(p.bytes)::float8 as bytes,
        coalesce(sum(p.bytes) filter (where p.is_current), 0)::float8 as current
      from parts p group by p.name, p.index, p.position order by p.name, p.position`;
    return rows.map(({ table, index, bytes, current: ofCurrent }) => ({
      ...{ table: String(table), index: index === null ? null : String(index) },
      ...{ bytes: Number(bytes), currentBytes: Number(ofCurrent) },
    }));
  });
}
