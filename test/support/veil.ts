// The command line as a user meets it: a process of its own, with an environment of its own.
import { fileURLToPath } from "node:url";
import { endsWithUs } from "./ends-with-us.ts";

const CLI = fileURLToPath(new URL("../../src/cli.ts", import.meta.url));

export type Run = {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
};

export type RunOptions = {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  readonly cwd?: string;
  /** In place of veil's own command line: its path. */
  readonly program?: string;
};

const baseEnv = (env: Readonly<Record<string, string>> = {}): Record<string, string> => ({
  PATH: process.env.PATH ?? "",
  HOME: process.env.HOME ?? "/",
  // No profile and no metadata service of the machine that the tests run on.
  AWS_EC2_METADATA_DISABLED: "true",
  ...env,
});

/** Runs `veil ARGS` to its end. Nothing of the test's own environment is passed on. */
export async function veil(args: readonly string[], options: RunOptions = {}): Promise<Run> {
  const child = startVeil(args, options);
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

/** Starts `veil ARGS`; for a test that sends signals or reads along. */
export function startVeil(args: readonly string[], options: RunOptions = {}) {
  return Bun.spawn(
    endsWithUs([process.execPath, "--no-env-file", options.program ?? CLI, ...args]),
    {
      env: baseEnv(options.env),
      cwd: options.cwd ?? "/",
      stdin: new Blob([options.stdin ?? ""]),
      stdout: "pipe",
      stderr: "pipe",
    },
  );
}
