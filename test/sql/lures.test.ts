// Whoever may create in `public` plants functions and operators there that fit veil's calls better than those of
// pg_catalog: no command of veil's runs one, as whatever login.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type postgres from "postgres";
import { createScene, type Scene, type Variables } from "../cli/scene.ts";
import type { Role } from "../support/database.ts";
import { calledFunctions, readTexts } from "../support/queries.ts";
import { type Run, veil } from "../support/veil.ts";

let scene: Scene;
let owner: postgres.Sql;
let token: string;
let rejected: string;

/** What a lure says that runs: an exception, so that the command cannot but fail. */
const LURED = "a lure ran";

/** What veil calls today, and what it called once. */
const called = (): string[] => {
  const root = fileURLToPath(new URL("../../src", import.meta.url));
  const paths = readdirSync(root, { recursive: true, encoding: "utf8" });
  const texts = paths
    .filter((path) => path.endsWith(".ts"))
    .flatMap((path) => readTexts(readFileSync(join(root, path), "utf8")));
  return [...new Set([...texts.flatMap(calledFunctions), "array_position", "lower"])];
};

const TYPES = [
  ...["text", "varchar", "name", "bytea", "date", "timestamptz", "integer", "bigint", "numeric"],
  ...["real", "oid", "regclass", "boolean", "uuid", "json", "text[]", "pii_vault.policies"],
];
const OPERATORS = ["=", "<>", "<", ">", "<=", ">=", "||", "-", "+"];

/** With each of these types in the place of each argument, wherever pg_catalog has nothing of exactly them. */
async function plant(): Promise<number> {
  const [row] = await owner.begin(async (sql) => {
    const literal = (words: readonly string[]) =>
      `'{${words.map((word) => `"${word}"`).join(",")}}'::text[]`;
    await sql.unsafe(`
      create table public.planted (n integer);
      create function pg_temp.plant(name text, types text[]) returns void language plpgsql as $$ begin
        execute format(
          'create function public.%I(%s) returns text language plpgsql as %L',
          name, array_to_string(types, ', '), 'begin raise exception ''${LURED}: ' || name || '''; end'
        );
        insert into public.planted values (1);
      exception when duplicate_function then null;
      end $$;
      do $$
      declare
        called record;
        types text[] := ${literal(TYPES)};
        one text;
        other text;
      begin
        for called in
          select distinct p.proname::text as name, p.pronargs as arguments
          from pg_catalog.pg_proc p
          where p.pronamespace = 'pg_catalog'::regnamespace and p.pronargs in (1, 2)
            and p.proname = any (${literal(called())})
        loop
          foreach one in array types loop
            if called.arguments = 1 then
              perform pg_temp.plant(called.name, array[one]);
            else
              foreach other in array types loop
                perform pg_temp.plant(called.name, array[one, other]);
              end loop;
            end if;
          end loop;
        end loop;
        foreach one in array types loop
          foreach other in array types loop
            execute format(
              'create function public.operator_lure(%s, %s) returns boolean language plpgsql as %L',
              one, other, 'begin raise exception ''${LURED}: operator''; end'
            );
            for called in select unnest(${literal(OPERATORS)}) as name loop
              execute format(
                'create operator public.%s (leftarg = %s, rightarg = %s, function = public.operator_lure)',
                called.name, one, other
              );
            end loop;
          end loop;
        end loop;
      end $$`);
    return await sql`select count(*)::int as n from public.planted`;
  });
  return Number(row?.n);
}

const as = (role: Role): Variables => ({
  ...scene.etl,
  ...scene.recovering("revealer"),
  DATABASE_URL: scene.database.url(role),
});

async function run(role: Role | Variables, ...args: string[]): Promise<Run> {
  const env = typeof role === "string" ? as(role) : role;
  const done = await veil(args, { env });
  expect([args, done.code, done.stderr.includes(LURED)]).toEqual([args, 0, false]);
  return done;
}

beforeAll(async () => {
  scene = await createScene();
  owner = scene.database.sql(scene.database.ownerUrl);
  scene.send({ user_id: "anna", ip: "203.0.113.9", device_id: "device-a" });
  rejected = scene.send({ user_id: "anna", ip: ["203.0.113.9"] });
  expect(await plant()).toBeGreaterThan(1000);
  await run("etl", "etl", "--max-messages", "2");
  const [row] = await owner`select masked_ip from public.user_logins`;
  token = String(row?.masked_ip);
});
afterAll(() => scene.database.drop());

test("what is planted does run where a call leaves its schema open", async () => {
  const sql = scene.database.sql(scene.database.url("policy"));
  for (const query of [
    "select to_json(p) from pii_vault.policies p",
    "select array_position('{ip}'::text[], field) from pii_vault.policies",
    "select quote_ident(session_user)",
    "select from pg_catalog.pg_class where oid = 'pii_vault.originals'::regclass",
  ]) {
    await expect((async () => await sql.unsafe(query))()).rejects.toThrow(LURED);
  }
});

test("no command runs what is planted", async () => {
  const url = await scene.database.addLogin("revealer");
  await owner.unsafe(`grant veil_analyst to ${new URL(url).username}`);
  const investigator = { ...as("revealer"), DATABASE_URL: url };
  await run("policy", "policy", "set", "--field", "ip", "--hourly", "100");
  await Promise.all([
    run(investigator, "reveal", "--user", "anna", "--since", "2020-01-01", "--reason", "why"),
    run("revealer", "reveal", token, "--reason", "why"),
    run("policy", "policy", "show"),
    run("policy", "canary", "list"),
    run("analyst", "duplicates"),
    run("operator", "quarantine", "list"),
    run("operator", "quarantine", "show", rejected, "--reason", "why"),
    run("approver", "approvals"),
    run("auditor", "check"),
  ]);
  await run("policy", "hold", "add", "--user", "anna", "--reason", "why");
  await Promise.all([
    run("policy", "hold", "list"),
    run("eraser", "forget", token, "--dry-run", "--reason", "why"),
    run("eraser", "expire", "--older-than", "400d", "--yes", "--reason", "why"),
  ]);
  await run("auditor", "audit", "verify");
  for (const filter of [[], ["--token", token, "--limit", "1"]]) {
    expect((await run("auditor", "audit", "list", ...filter)).stdout).toContain("reveal.");
  }
  await run({ DATABASE_URL: scene.database.ownerUrl }, "migrate");
});

test("nor does one that is refused for its role", async () => {
  const refused = await veil(["hold", "list"], { env: as("analyst") });
  expect(refused.stderr).toContain(`${scene.database.login("analyst")} may not do this`);
  const lacking = await veil(["reveal", "--user", "anna"], { env: as("revealer") });
  expect(lacking.stderr).toContain("it lacks veil_analyst");
});
