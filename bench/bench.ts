// `bun run bench`: how fast veil is, and what it costs, beside the least that such a program can do and
// the usual way to do it. bench/README.md says what each figure means.
import { measureExpiry } from "./expire.ts";
import { fillVault } from "./fill-vault.ts";
import { IDLE_MESSAGES, type Idle, type Latency, measureIdle, measureLatency } from "./follow.ts";
import { measureHistory } from "./history.ts";
import { formatStoreReport, type StoreReport } from "./history-report.ts";
import { describeMachine, describeVersions } from "./machine.ts";
import { type Options, readOptions, USAGE } from "./options.ts";
import { hasWorkers, PROGRAMS, type Program, withVault, withWorkers } from "./programs.ts";
import { formatReport, type Place, type Report } from "./report.ts";
import { measure } from "./run.ts";
import { type Numbers, newNumbers, runSeries } from "./series.ts";
import { SETTINGS, type Servers, startServers } from "./servers.ts";

type Work<T> = (
  servers: Servers,
  options: Options,
  onProgress: (text: string) => void,
) => Promise<T>;

/** A store with years in it has the memory of one. */
const settingsOf = ({ history, expire, sharedBuffers }: Options): Record<string, string> =>
  history === null && expire === null ? {} : { shared_buffers: sharedBuffers };

async function bench<T>(work: Work<T>, options: Options): Promise<T> {
  show("starting PostgreSQL and the queue server");
  const servers = await startServers(settingsOf(options));
  try {
    return await work(servers, options, show);
  } finally {
    servers.stop();
  }
}

async function report(
  servers: Servers,
  options: Options,
  onProgress: (text: string) => void,
): Promise<Report> {
  const { messages, rounds, workers, vault } = options;
  const numbers = newNumbers();
  const programs: Program[] = options.only.map((name) => PROGRAMS[name]);
  const skipped: string[] = [];
  if (workers !== null) {
    if (hasWorkers()) programs.push(withWorkers(workers));
    else skipped.push("--workers: this version of veil has no such option");
  }
  if (vault !== null) {
    await fillVault(servers, vault, (done) => onProgress(`vault: ${done} of ${vault} originals`));
    programs.push(withVault(vault));
  }
  const results = await runSeries(servers, { programs, messages, rounds, onProgress }, numbers);
  const isVeilAsked = options.only.some((name) => PROGRAMS[name].isVeil);
  let idle: Idle | null = null;
  if (options.idleSeconds > 0 && isVeilAsked) {
    onProgress(`idling for ${options.idleSeconds} s, twice`);
    idle = await measureIdle(servers, options.idleSeconds, numbers(IDLE_MESSAGES));
  }
  let latency: Latency | null = null;
  if (options.latency) {
    const known = results.find(({ name }) => name === "new")?.figures.messagesPerSecond.median;
    const full = known ?? (await fullRate(servers, messages, numbers));
    onProgress("sending at half of the full rate");
    // A second more than counts warms it up.
    const from = numbers(messages + Math.ceil(full));
    latency = await measureLatency(servers, messages, full / 2, from);
  }
  let memory: Report["memory"] = null;
  if (options.memory !== null) {
    onProgress(`loading ${options.memory} messages in one run`);
    const from = numbers(options.memory + 1);
    const figures = await measure(servers, PROGRAMS.new, options.memory, from);
    memory = { messages: options.memory, ...figures };
  }
  return {
    ...(await placeOf(servers, options)),
    ...{ messages, rounds, programs: results, idle, latency, memory, skipped },
  };
}

async function reportOfStore(
  servers: Servers,
  options: Options,
  onProgress: (text: string) => void,
): Promise<StoreReport> {
  const { messages, rounds, history, expire } = options;
  const asked = history && { ...history, messages, rounds };
  const found = asked && (await measureHistory(servers, asked, newNumbers(), onProgress));
  const ofExpiry = expire !== null && { originals: expire, hasHistory: found !== null };
  const expiry = ofExpiry ? await measureExpiry(servers, ofExpiry, onProgress) : null;
  return { ...(await placeOf(servers, options)), messages, rounds, history: found, expiry };
}

const placeOf = async (servers: Servers, options: Options): Promise<Place> => ({
  machine: describeMachine(),
  versions: await describeVersions(servers),
  settings: { ...SETTINGS, ...settingsOf(options) },
});

async function fullRate(servers: Servers, messages: number, numbers: Numbers): Promise<number> {
  return (await measure(servers, PROGRAMS.new, messages, numbers(messages + 1))).messagesPerSecond;
}

/** One line of a terminal, written over again and again. */
const show = (text: string) => {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
};

// PostgreSQL is no child of this process: only ending in order stops it.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));

let options: Options;
try {
  if (process.argv.includes("--help")) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  options = readOptions(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`error: ${(error as Error).message}\n\n${USAGE}`);
  process.exit(2);
}
async function print<T>(work: Work<T>, format: (done: T) => string): Promise<void> {
  const done = await bench(work, options);
  show("");
  process.stdout.write(options.json ? `${JSON.stringify(done)}\n` : format(done));
}

if (options.history === null && options.expire === null) await print(report, formatReport);
else await print(reportOfStore, formatStoreReport);
