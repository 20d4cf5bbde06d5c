// `bun run build`: the compiled binary for linux-x64; with --only NAME for another kind of machine, with
// --all for every one that veil is released for. Writes dist/veil-* and dist/SHA256SUMS. The same commit gives the same sums.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** Name of the binary → Bun's name of the target. `baseline`: processors without AVX2. */
const TARGETS = {
  "linux-x64": "bun-linux-x64",
  "linux-x64-baseline": "bun-linux-x64-baseline",
  "linux-x64-musl": "bun-linux-x64-musl",
  "linux-x64-musl-baseline": "bun-linux-x64-musl-baseline",
  "linux-arm64": "bun-linux-arm64",
  "linux-arm64-musl": "bun-linux-arm64-musl",
  "macos-arm64": "bun-darwin-arm64",
  "macos-x64": "bun-darwin-x64",
  "windows-x64.exe": "bun-windows-x64",
  "windows-x64-baseline.exe": "bun-windows-x64-baseline",
} as const;

const checkout = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
  options: {
    all: { type: "boolean", default: false },
    only: { type: "string", default: "linux-x64" },
    out: { type: "string", default: join(checkout, "dist") },
  },
});
const out = resolve(options.out);

const git = (...args: string[]): string | null => {
  const { exitCode, stdout } = Bun.spawnSync(["git", ...args], { cwd: checkout, stderr: "ignore" });
  return exitCode === 0 ? stdout.toString().trim() : null;
};

/** What the binary says it was made of. */
function commit(): string {
  const given = process.env.VEIL_COMMIT; // a build context without .git, a container's for one
  if (given) return given;
  const head = git("rev-parse", "--short=12", "HEAD");
  if (head === null) return "unknown";
  return git("status", "--porcelain") === "" ? head : `${head}+changes`;
}

function build(name: string, target: string): string {
  const file = `veil-${name}`;
  const { exitCode, stderr } = Bun.spawnSync(
    [
      ...[process.execPath, "build", "src/cli.ts", "--compile", `--target=${target}`],
      // Identifiers as they are: the driver's errors are known by the name of their class, and a report of
      // a defect names functions.
      ...["--minify-syntax", "--minify-whitespace"],
      // A start parses nothing: half of its time (bench/README.md). Not --splitting, which would save a
      // few milliseconds more: its files are named by where node_modules really is, and the sum with them.
      ...["--bytecode", "--format=esm"],
      // Otherwise the binary runs a bunfig.toml's preload and reads .env from wherever it is started,
      // before the first line of ours. The last two are Bun's defaults, stated so that they stay.
      "--no-compile-autoload-bunfig",
      "--no-compile-autoload-dotenv",
      "--no-compile-autoload-tsconfig",
      "--no-compile-autoload-package-json",
      `--define=VEIL_COMMIT=${JSON.stringify(commit())}`,
      `--outfile=${join(out, file)}`,
    ],
    { cwd: checkout, stdout: "ignore" },
  );
  if (exitCode !== 0) {
    process.stderr.write(`error: ${file} was not built\n${stderr.toString()}`);
    process.exit(1);
  }
  const sum = createHash("sha256")
    .update(readFileSync(join(out, file)))
    .digest("hex");
  process.stdout.write(`${sum}  ${file}\n`);
  return `${sum}  ${file}\n`;
}

const chosen = Object.entries(TARGETS).filter(([name]) => options.all || name === options.only);
if (chosen.length === 0) {
  process.stderr.write(`error: no such target\nhint: one of ${Object.keys(TARGETS).join(", ")}\n`);
  process.exit(2);
}
mkdirSync(out, { recursive: true });
for (const file of readdirSync(out)) if (/^(veil-|SHA256SUMS$)/.test(file)) rmSync(join(out, file));
writeFileSync(
  join(out, "SHA256SUMS"),
  chosen.map(([name, target]) => build(name, target)).join(""),
);
