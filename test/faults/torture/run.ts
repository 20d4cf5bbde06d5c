// One whole run: servers, workers under fire, and the verdict. What `torture` and the tests call.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { random } from "../bodies/hostile-random.ts";
import { type SharedQueue, shareQueue } from "../proxies/sqs-shared.ts";
import { message, sentAtOf } from "./messages.ts";
import { Oracle } from "./oracle.ts";
import type { Scene } from "./posts.ts";
import { type Servers, startServers } from "./servers.ts";
import { runUnderFire } from "./supervisor.ts";
import { section, sum, Tally } from "./tally.ts";

export type TortureOptions = {
  readonly program: readonly string[];
  readonly kills: number;
  readonly messages: number;
  readonly workers: number;
  readonly seed: number;
  readonly redeliver: number;
  readonly visibilitySeconds: number;
  /** How long after its first delivery a message may be handed out once more. */
  readonly redeliverWithinMs?: number;
  /** A kind of strike that comes as often as all others together. */
  readonly focus?: string;
  /** Loads of several workers go off together, so that they get in each other's way. */
  readonly together?: boolean;
  readonly onProgress?: (now: Progress) => void;
};

export type Progress = {
  readonly sent: number;
  readonly acknowledged: number;
  readonly kills: number;
  readonly strikes: number;
};

export type Result = {
  readonly clean: boolean;
  /** In one line what was lost, twice, wrong; then what else went wrong. */
  readonly verdict: string;
  /** The run's table. */
  readonly report: string;
  readonly kills: number;
};

const CHECKOUT = fileURLToPath(new URL("../../../", import.meta.url));

/** Bun and the command line's file, of this checkout or of a copy. */
export const fromSource = (checkout = CHECKOUT): readonly string[] => [
  process.execPath,
  "--no-env-file",
  join(checkout, "src", "cli.ts"),
];

/** The compiled binary, built into this folder. */
export function buildBinary(folder: string): readonly string[] {
  mkdirSync(folder, { recursive: true });
  const { exitCode, stderr } = Bun.spawnSync(
    [process.execPath, "scripts/build.ts", "--only", "linux-x64", "--out", folder],
    { cwd: CHECKOUT, stdout: "ignore" },
  );
  if (exitCode !== 0) throw new Error(`the binary was not built: ${stderr.toString()}`);
  return [join(folder, "veil-linux-x64")];
}

/** What an oracle and the proxies of one queue need, on servers that are running. */
export function prepare(
  servers: Servers,
  options: Pick<
    TortureOptions,
    "seed" | "redeliver" | "redeliverWithinMs" | "visibilitySeconds"
  > & { readonly hot?: number },
) {
  const generate = (n: number) => message(options, n);
  const sentAt = sentAtOf(Date.now());
  // Each delete is looked up in every partition by its key; never mind what the planner would like.
  const connection = {
    enable_hashjoin: false,
    enable_mergejoin: false,
    enable_seqscan: false,
    jit: false,
  };
  const oracle = new Oracle({
    message: generate,
    sentAt,
    keys: servers.keys,
    sql: servers.connect({ max: 2, connection: { jit: false } }),
    watch: servers.connect({ connection }),
  });
  const shared: SharedQueue = shareQueue({
    address: servers.queue.address,
    redeliver: options.redeliver,
    random: random(options.seed ^ 0x4ed, 0).float,
    // Sooner, later, and after the queue's own next delivery would come.
    redeliverWithinMs: options.redeliverWithinMs ?? options.visibilitySeconds * 1300,
    sentAt,
    onDelete: (messages) => oracle.onDelete(messages),
  });
  return { oracle, shared, message: generate };
}

export async function torture(options: TortureOptions): Promise<Result> {
  const startedAt = performance.now();
  const servers = await startServers(options);
  try {
    const { oracle, shared, message: generate } = prepare(servers, options);
    const tally = new Tally();
    await runUnderFire({
      ...options,
      ...{ servers, shared, oracle, tally, message: generate },
      focus: options.focus ?? null,
      together: options.together ?? false,
      onProgress: (sent) =>
        options.onProgress?.({
          sent,
          acknowledged: shared.deleted.size,
          kills: tally.totalKills(),
          strikes: sum(tally.strikes),
        }),
    });
    return await resultOf(
      { ...options, servers, shared, oracle, tally, message: generate },
      startedAt,
    );
  } finally {
    servers.stop();
  }
}

/** After the last delivery: the oracle's comparison, and the table of what the run did and saw. */
export async function resultOf(scene: Scene, startedAt: number): Promise<Result> {
  const { oracle, shared, servers, tally } = scene;
  await oracle.compare();
  const deadlocks = await deadlocksOf(servers);
  if (deadlocks > 0) tally.complaints.push(`${deadlocks} deadlocks in pg_stat_database`);
  const verdict = [oracle.findings.text(), ...tally.complaints.map((one) => `  ${one}`)].join("\n");
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  const { totals } = oracle;
  let most = 0;
  for (const times of shared.deliveries.values()) most = Math.max(most, times);
  const report = [
    section("kills", tally.kills),
    section("other faults", tally.strikes),
    section("ended by themselves", tally.deaths),
    `restarts: ${tally.restarts}; kills while recovering: ${tally.whileRecovering}\n`,
    `messages: ${oracle.messages()}; deliveries: ${shared.total()}, of them ${shared.redelivered()} `,
    `repeated by the proxies; at most ${most} of one message\n`,
    `rows: ${totals.rows}; quarantined: ${totals.quarantined}; ledger: ${totals.ledger}; `,
    `originals: ${totals.originals}; data keys: ${totals.dataKeys}\n`,
    `deadlocks: ${deadlocks}; loads retried: ${tally.retries ?? "not told"}; `,
    `seed: ${scene.seed}; ${seconds} s\n`,
  ].join("");
  return {
    clean: oracle.findings.list().length === 0 && tally.complaints.length === 0,
    verdict,
    report,
    kills: tally.totalKills(),
  };
}

async function deadlocksOf(servers: Servers): Promise<number> {
  const [row] = await servers.sql`
    select sum(deadlocks)::integer as deadlocks from pg_stat_database`;
  return Number(row?.deadlocks ?? 0);
}
