// `bun run torture`: veil under fire, for as many kills as one likes, and whether it kept its promise. The
// seed repeats the messages and the sequence of faults; where exactly in a process's work a fault strikes
// is up to the scheduler, too. `torture steady` and `torture hot`: see there.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { makeOwnFolder } from "../../support/own-folder.ts";
import { bodies } from "../bodies/bodies.ts";
import { hot } from "./hot.ts";
import { buildBinary, fromSource, type Progress, type Result, torture } from "./run.ts";
import { SABOTAGES, sabotagedCopy } from "./sabotage.ts";
import { steady } from "./steady.ts";
import { STRIKES } from "./strikes.ts";

const USAGE = `usage: bun run torture [--kills N] [--messages N] [--redeliver 0.1] [--redeliver-within MS]
                       [--together] [--focus KIND] [--binary] [--sabotage NAME]
       bun run torture steady [--minutes 20] [--rate 500]
       bun run torture hot [--minutes 5]
       bun run torture bodies [--count 300000] [--seed S]
each:  [--seed S] [--workers 1-4] [--visibility SECONDS]
KIND:  ${STRIKES.join(", ")}
NAME:  ${Object.keys(SABOTAGES).join(", ")}
`;

const misused = (): never => {
  process.stderr.write(USAGE);
  process.exit(2);
};

if (process.argv[2] === "bodies") process.exit(await bodies(process.argv.slice(3)));

function parse() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        kills: { type: "string", default: "100" },
        messages: { type: "string" },
        redeliver: { type: "string", default: "0.1" },
        "redeliver-within": { type: "string" },
        together: { type: "boolean", default: false },
        focus: { type: "string" },
        binary: { type: "boolean", default: false },
        sabotage: { type: "string" },
        minutes: { type: "string" },
        rate: { type: "string", default: "500" },
        seed: { type: "string", default: String(Date.now() % 1_000_000) },
        workers: { type: "string", default: "4" },
        visibility: { type: "string", default: "5" },
      },
    });
  } catch {
    return misused();
  }
}

const {
  values,
  positionals: [mode = "torture"],
} = parse();
const number = (text: string | undefined, fallback: number): number => {
  const value = text === undefined ? fallback : Number(text);
  return Number.isFinite(value) && value >= 0 ? value : misused();
};
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));
// Whatever it makes in a temporary folder is gone when it ends, by a kill too.
process.env.TMPDIR = makeOwnFolder("torture").path;

const isTerminal = process.stderr.isTTY === true;
let told = performance.now();
const onProgress = ({ sent, acknowledged, kills, strikes }: Progress) => {
  if (performance.now() - told < (isTerminal ? 500 : 60_000)) return;
  told = performance.now();
  const line = `${sent} sent, ${acknowledged} acknowledged, ${kills} kills, ${strikes} other faults`;
  process.stderr.write(isTerminal ? `\r\x1b[K${line}` : `${line}\n`);
};
const onLine = (line: string) => process.stderr.write(`${line}\n`);

const { sabotage } = values;
const common = {
  program: programOf(),
  seed: number(values.seed, 0),
  workers: number(values.workers, 4),
  visibilitySeconds: number(values.visibility, 5),
  redeliver: number(values.redeliver, 0.1),
};
const result = await run();
if (isTerminal) process.stderr.write("\r\x1b[K");
process.stdout.write(`${result.report}${result.verdict}\n`);
process.exit(result.clean ? 0 : 1);

function programOf(): readonly string[] {
  if (sabotage !== undefined) return fromSource(sabotagedCopy(sabotage));
  if (!values.binary) return fromSource();
  return buildBinary(mkdtempSync(join(tmpdir(), "veil-torture-")));
}

function run(): Promise<Result> {
  if (mode === "steady") {
    const rate = number(values.rate, 500);
    return steady({ ...common, minutes: number(values.minutes, 20), rate, onLine });
  }
  if (mode === "hot") return hot({ ...common, minutes: number(values.minutes, 5), onLine });
  if (mode !== "torture") return misused();
  if (values.focus !== undefined && !STRIKES.includes(values.focus)) return misused();
  const kills = number(values.kills, 100);
  return torture({
    ...common,
    kills,
    messages: number(values.messages, kills * 500),
    redeliverWithinMs: number(values["redeliver-within"], common.visibilitySeconds * 1300),
    together: values.together,
    onProgress,
    ...(values.focus === undefined ? {} : { focus: values.focus }),
    ...(sabotage === undefined ? {} : SABOTAGES[sabotage]?.run),
  });
}
