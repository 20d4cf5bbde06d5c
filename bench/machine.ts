// The machine and the versions that figures belong to.
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { type Servers, withConnection } from "./servers.ts";

export type Machine = {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly system: string;
};

export const describeMachine = (): Machine => ({
  date: new Date().toISOString().slice(0, 10),
  cpu: cpus()[0]?.model.trim() ?? "unknown",
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  system: `${process.platform} ${release()}`,
});

const root = fileURLToPath(new URL("..", import.meta.url));

const packageVersion = (name: string): string =>
  JSON.parse(readFileSync(`${root}/node_modules/${name}/package.json`, "utf8")).version;

/** The commit, with a `+` where the sources differ from it; null outside of a checkout. */
export function veilCommit(): string | null {
  const git = (...argv: string[]) => {
    const { exitCode, stdout } = Bun.spawnSync(["git", "-C", root, ...argv], { stderr: "ignore" });
    return exitCode === 0 ? stdout.toString().trim() : null;
  };
  try {
    const commit = git("rev-parse", "--short", "HEAD");
    const changed = git("status", "--porcelain", "--", "src", "vault", "sql", "package.json");
    return commit === null ? null : `${commit}${changed ? "+" : ""}`;
  } catch {
    return null; // no git
  }
}

export async function describeVersions(servers: Servers) {
  const [row] = await withConnection(
    servers.connect("postgres"),
    async (sql) => await sql`select current_setting('server_version') as version`,
  );
  return {
    bun: Bun.version,
    postgres: String(row?.version),
    fauxqs: packageVersion("fauxqs"),
    "sqs-consumer": packageVersion("sqs-consumer"),
    pg: packageVersion("pg"),
    veil: veilCommit(),
  };
}
