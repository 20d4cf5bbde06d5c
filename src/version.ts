// What `veil --version` prints: the version, its commit, and the runtime.

/** As in package.json; a test holds the two together. */
export const VERSION = "0.1.0";

// Put in by scripts/build.ts. A checkout runs whatever stands in its files.
declare const VEIL_COMMIT: string | undefined;

export function describeVersion(): string {
  const commit = typeof VEIL_COMMIT === "string" ? VEIL_COMMIT : "checkout";
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  const runtime = bun ? `bun ${bun}` : deno ? `deno ${deno}` : `node ${node}`;
  return `veil ${VERSION} (${commit}, ${runtime})`;
}
