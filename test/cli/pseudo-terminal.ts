// A command at a pseudo-terminal: what a person would see, and keys pressed when a text appears.
import { fileURLToPath } from "node:url";
import { endsWithUs } from "../support/ends-with-us.ts";
import type { Variables } from "./scene.ts";

const CLI = fileURLToPath(new URL("../../src/cli.ts", import.meta.url));

export type Press = { readonly when: string; readonly keys: string };

/** Runs `veil ARGS` with all three of its streams at one terminal. */
export async function atTerminal(
  args: readonly string[],
  env: Variables,
  presses: readonly Press[] = [],
): Promise<{ readonly code: number; readonly screen: string }> {
  const waiting = [...presses];
  const decoder = new TextDecoder();
  let screen = "";
  let seen = 0;
  const child = Bun.spawn(endsWithUs([process.execPath, "--no-env-file", CLI, ...args]), {
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/", TERM: "xterm", ...env },
    cwd: "/",
    terminal: {
      cols: 120,
      rows: 40,
      data: (terminal, bytes) => {
        screen += decoder.decode(bytes, { stream: true });
        const next = waiting[0];
        const at = next === undefined ? -1 : screen.indexOf(next.when, seen);
        if (next === undefined || at < 0) return;
        seen = at + next.when.length;
        waiting.shift();
        terminal.write(next.keys);
      },
    },
  });
  const code = await child.exited;
  // What it wrote last may still be on its way.
  await Bun.sleep(50);
  child.terminal?.close();
  return { code, screen };
}
