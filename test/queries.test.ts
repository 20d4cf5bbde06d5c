// What veil asks the database for means pg_catalog's functions and veil's own, whatever somebody has put into
// `public`: each call says which schema it is of.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are sources, for the scanner to read
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { calledFunctions, findUnqualified, readTexts } from "./support/queries.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
/** SQLite's, which knows no schemas of functions. */
const NOT_POSTGRES = ["src/local/lease.ts"];
const sources = ["src", "deploy"].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .map((path) => join(folder, path))
    .filter((path) => path.endsWith(".ts") && !NOT_POSTGRES.includes(path))
    .map((path) => ({ path, source: readFileSync(join(root, path), "utf8") })),
);

const check = (path: string, source: string): string[] =>
  readTexts(source)
    .flatMap(findUnqualified)
    .map((call) => `${path}: ${call}`);

describe("the queries of veil", () => {
  test("leave no function, and no operator that could be another, to the search path", () => {
    expect(sources.flatMap(({ path, source }) => check(path, source))).toEqual([]);
  });

  test("are all read, to the end of every file", () => {
    const last = "\nconst last = `select ${column}, lure(${column}) from pii_vault.policies`;\n";
    for (const { path, source } of sources) {
      expect(check(path, source + last)).toEqual([`${path}: lure(`]);
    }
    const texts = sources.flatMap(({ source }) => readTexts(source));
    expect(new Set(texts.flatMap(calledFunctions)).size).toBeGreaterThan(15);
    for (const text of ["call pii_vault.chain_audit()", "select etl.schema_version() as version"]) {
      expect(texts).toContain(text);
    }
  });
});

describe("a query is found out", () => {
  test.each([
    ['"select to_json(p)::text as settings from pii_vault.policies p"', ["to_json("]],
    ["`select token from t\n order by array_position($1::text[], field)`", ["array_position("]],
    ['"select quote_ident (session_user) as login"', ["quote_ident ("]],
    ["`select public.lower(x)`", ["public.lower("]],
    ["`select x.lower(x)`", ["x.lower("]],
    ['`select "lower"(x)`', ['"lower"(']],
    ["`SELECT COUNT(*)`", ["COUNT("]],
    // A part that another text takes in.
    ["const part = (column) => `encode(${column}, 'base64') as ${column}`", ["encode("]],
    ["`select ${name}(x), ${wrap(`sum(y)`)}`", ["$x(", "sum("]],
    ["`select 'a''b(c)', pg_catalog.min(lower(x))`", ["lower("]],
    ["`select pg_catalog.now() -- as of now(\n, random()`", ["random("]],
    ["`select from t where tokens @> $1 and a && b`", ["@>", "&&"]],
    ["`select from t where oid = 't'::regclass`", ["::regclass"]],
  ])("%s", (source, found) => {
    expect(check("f", source)).toEqual(found.map((call) => `f: ${call}`));
  });

  test.each([
    '"call pii_vault.chain_audit()"',
    "`select pg_catalog . count(*), coalesce(x, 0), greatest(x, 1) from ${table} where x = any (y)`",
    "`select pii_vault.${name}($1::text[]) as id`",
    "`insert into etl.migrations (step, hash) values ($1, $2)`",
    "`select from t where oid = 't'::regclass::oid and exists (select from u)`",
    '// "select lower(x)"\nconst a = /"`select lower(x)/;\nlower("from this day (UTC) on");',
  ])("only where it should be: %s", (source) => {
    expect(check("f", source)).toEqual([]);
  });
});
