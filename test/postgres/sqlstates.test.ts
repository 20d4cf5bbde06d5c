// Every SQLSTATE of veil's own has a name, and every name is of a state that the SQL raises.
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as states from "../../src/postgres/sqlstates.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const textOf = (folder: string, ending: string): string =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(ending))
    .map((path) => readFileSync(join(root, folder, path), "utf8"))
    .join("\n");

const codes: readonly string[] = Object.values(states);
const OF_VEIL = /'(VL[0-9A-Z]{3})'/g;

test("the states that the SQL raises, and those that have a name, are the same", () => {
  const raised = new Set([...textOf("sql", ".sql").matchAll(OF_VEIL)].map(([, code]) => code!));
  expect(raised.size).toBeGreaterThan(20);
  raised.add(states.MADE_BY_OLD_VEIL); // such a database has no function of ours that could say so
  expect(codes.filter((code) => code.startsWith("VL")).sort()).toEqual([...raised].sort());
});

test("no two names are of one state", () => {
  expect(new Set(codes).size).toBe(codes.length);
});

test("the program says them by name", () => {
  const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && path !== join("postgres", "sqlstates.ts"))
    .map((path) => [path, readFileSync(join(root, "src", path), "utf8")] as const);
  const literal = ([, text]: readonly [string, string]) =>
    codes.some((code) => text.includes(`"${code}"`));
  expect(sources.filter(literal).map(([path]) => path)).toEqual([]);
});
