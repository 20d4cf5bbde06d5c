// The commands that are named where requests wait: to be copied as they stand, into any POSIX shell.
import { expect, test } from "bun:test";
import { wayBack } from "../../src/commands/await-approval.ts";

const commands = (text: string) => [...text.matchAll(/`([^`]+)`/g)].map(([, command]) => command);

test("every request that waits is named, to approve it and to come back to it", () => {
  const { waits, approve, reveal } = wayBack("veil", ["a-1", "b-2"], ["--csv"]);
  expect(waits).toBe("requests a-1, b-2 wait");
  expect(commands(approve)).toEqual(["veil approve a-1", "veil approve b-2"]);
  expect(commands(reveal)).toEqual(["veil reveal --csv --request a-1 --request b-2"]);
  expect(wayBack("npx bun run", ["a-1"], []).reveal).toBe("`npx bun run reveal --request a-1`");
});

test("a shell reads back what the command was given", async () => {
  const words = [
    "--user",
    'it\'s; $HOME \\ "*"',
    "--tokens",
    "/a b/t.txt",
    "--since",
    "2026-01-01",
  ];
  const [command = ""] = commands(wayBack("veil", ["a-1"], words).reveal);
  const shell = Bun.spawn(["sh", "-c", `veil() { printf '%s\\n' "$@"; }; ${command}`]);
  const read = (await new Response(shell.stdout).text()).split("\n");
  expect(read).toEqual(["reveal", ...words, "--request", "a-1", ""]);
});

test("what came from stdin has to come again", () => {
  const said = (...again: string[]) => wayBack("veil", ["a-1"], again).reveal;
  expect(said("--values", "ip")).toEndWith("` with the same values on stdin");
  expect(said("--tokens", "-")).toEndWith("` with the same tokens on stdin");
  expect(said("--tokens", "tokens.txt")).toEndWith("`");
});
