// How the SQL is kept: every function, view and trigger once, in sql/current; tables in sql/steps; nothing else, and
// nothing that grows too long to read.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type postgres from "postgres";
import { schemaHash, TEXTS } from "../../sql/texts.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";

setDefaultTimeout(60_000);

const root = fileURLToPath(new URL("../../sql", import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const list = (folder: string): string[] =>
  readdirSync(join(root, folder))
    .sort()
    .map((name) => `${folder}/${name}`);
const own = ["roles.sql", "open.sql", "sweep-relations.sql", "sweep-routines.sql", "close.sql"];
const files = [...list("current"), ...list("steps"), ...list("copy"), ...own];

/** Without comments, and without what stands between `$$`. */
const outside = (text: string): string => text.replace(/\$\$.*?\$\$/gs, "").replace(/--.*/g, "");

const CREATED = /create or replace (function|procedure|view|trigger) ([\w.]+)/g;
const created = (kinds: RegExp): string[] =>
  list("current")
    .flatMap((path) => [...outside(read(path)).matchAll(CREATED)])
    .filter(([, kind = ""]) => kinds.test(kind))
    .map(([, , name]) => name!)
    .sort();

let database: TestDatabase;
let owner: postgres.Sql;
beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
});
afterAll(() => database.drop());

describe("sql/current", () => {
  test("has every function and procedure of the database once", async () => {
    const there = await owner`
      select format('%s.%s', n.nspname, p.proname) as name from pg_catalog.pg_proc p
      join pg_catalog.pg_namespace n on n.oid = p.pronamespace
      where n.nspname in ('etl', 'pii_vault') order by 1`;
    const names = created(/function|procedure/);
    expect(there.map(({ name }) => String(name)).sort()).toEqual(names);
    // Two of one name differ in what they take.
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([
      "pii_vault.request_reveal",
    ]);
  });

  test("has every view and trigger of the database once", async () => {
    const views = await owner`
      select format('%s.%s', schemaname, viewname) as name from pg_catalog.pg_views
      where viewowner = 'veil_owner'`;
    expect(views.map(({ name }) => String(name)).sort()).toEqual(created(/view/));
    const triggers = await owner`
      select t.tgname as name from pg_catalog.pg_trigger t
      join pg_catalog.pg_class c on c.oid = t.tgrelid
      where not t.tgisinternal and c.relowner = 'veil_owner'::regrole`;
    expect(triggers.map(({ name }) => String(name)).sort()).toEqual(created(/trigger/));
  });

  test("makes and alters no table, and grants in one file alone", () => {
    for (const path of list("current")) {
      const statements = outside(read(path));
      expect([path, /\b(create|alter) (table|index|type|sequence)\b/.exec(statements)]).toEqual([
        path,
        null,
      ]);
      expect([path, /^create (?!or replace)/m.exec(statements)]).toEqual([path, null]);
      const grants = /^\s*(grant|revoke)\b/m.test(statements);
      expect([path, grants]).toEqual([path, path === "current/grants.sql"]);
    }
  });

  test("is run whole, and its hash is of each letter of it", () => {
    const run = [TEXTS.views, ...TEXTS.routines, TEXTS.triggers, TEXTS.grants].sort();
    expect(run).toEqual(list("current").map(read).sort());
    const hash = schemaHash(TEXTS);
    expect(hash).toMatch(/^[0-9a-f]{64}$/);
    expect(schemaHash({ ...TEXTS, steps: [] })).toBe(hash);
    for (const other of [
      { ...TEXTS, roles: `${TEXTS.roles} ` },
      { ...TEXTS, grants: `${TEXTS.grants} ` },
      { ...TEXTS, routines: [...TEXTS.routines].reverse() },
      { ...TEXTS, routines: [TEXTS.routines.join("")] },
    ]) {
      expect(schemaHash(other)).not.toBe(hash);
    }
  });
});

test("sql/steps makes tables, in the order of their numbers, and nothing that runs", () => {
  expect(TEXTS.steps.map(({ sql }) => sql)).toEqual(list("steps").map(read));
  const names = TEXTS.steps.map(
    ({ name }, i) => `steps/${String(i + 1).padStart(3, "0")}_${name}.sql`,
  );
  expect(names).toEqual(list("steps"));
  for (const path of list("steps")) {
    const statements = outside(read(path));
    expect([path, /\b(function|procedure|trigger|view|grant)\b/.exec(statements)]).toEqual([
      path,
      null,
    ]);
    // Nor calls anything of sql/current, which a fresh database does not have yet.
    expect([path, /\b(etl|pii_vault)\.\w+\s*\(\s*\)/.exec(statements)]).toEqual([path, null]);
  }
});

test("no file and no body is too long to be read", () => {
  for (const path of files) {
    const lines = read(path).split("\n");
    expect([path, lines.length <= 251]).toEqual([path, true]);
    for (const [, body = ""] of read(path).matchAll(/\$\$(.*?)\$\$/gs)) {
      expect([path, body.split("\n").length - 2 <= 120]).toEqual([path, true]);
    }
    for (const line of lines) expect([path, line, line.length <= 200]).toEqual([path, line, true]);
  }
});

test("every definer function has the safe search path in its own text", () => {
  for (const path of list("current")) {
    const heads = read(path).split(/create or replace (?:function|procedure) /);
    for (const head of heads.slice(1)) {
      const settings = head.slice(0, head.search(/\bas \$\$|\n {2}return /));
      if (/^(etl\.app_version_text|pii_vault\.chain_audit)\(/.test(head)) continue;
      expect([
        head.slice(0, 60),
        settings.includes("set search_path = pg_catalog, pg_temp"),
      ]).toEqual([head.slice(0, 60), true]);
    }
  }
});
