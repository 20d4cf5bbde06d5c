// What `veil --version` says: which version of which commit, on which runtime.

/** The same as in package.json (a test holds them together), which a binary need not carry. */
export const VERSION = "0.1.0";

// Put in by scripts/build.ts; a checkout runs what its files say, whatever commit that is.
declare const VEIL_COMMIT: string | undefined;

export function describeVersion(): string {
  const commit = typeof VEIL_COMMIT === "string" ? VEIL_COMMIT : "checkout";
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  const runtime = bun ? `bun ${bun}` : deno ? `deno ${deno}` : `node ${node}`;
  return `veil ${VERSION} (${commit}, ${runtime})`;
}
