// Databases of former schema versions, restored from dumps (test/sql/dumps): this version brings each to its own schema.
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { SCHEMA_VERSION } from "../../sql/texts.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { requireSchema } from "../../src/postgres/schema.ts";
import { createDatabase } from "../support/database.ts";
import { usePostgres } from "../support/servers.ts";
import { veil } from "../support/veil.ts";
import { dumpSchema } from "./dump-schema.ts";
import { countRows } from "./host.ts";
import { brokenInvariants } from "./old-table.ts";

const folder = fileURLToPath(new URL("./dumps", import.meta.url));
const dumps = readdirSync(folder).filter((name) => name.endsWith(".sql"));
const SNAPSHOT = new URL("../schema.sql", import.meta.url);

/** Housekeeping, with which each migration ends, changes them as days go by. */
const KEPT_HOUSE_IN = ["etl.migrations", "etl.periods", "etl.ledger", "etl.ledger_totals"];

test("there is one of this schema version", () => {
  expect(dumps).toContain(`step-${SCHEMA_VERSION}.sql`);
});

for (const dump of dumps) {
  test(`${dump} is brought to this version's schema, with all that it holds`, async () => {
    // The roles belong to the cluster, and are there with its first migrated database.
    await usePostgres();
    const database = await createDatabase({ migrated: false });
    try {
      const restoring = database.sql(database.ownerUrl);
      await restoring.unsafe(readFileSync(`${folder}/${dump}`, "utf8"));
      await restoring.end();
      const sql = database.sql(database.ownerUrl);
      const before = await countRows(sql);
      // None of them is empty by oversight: only a lock's table is.
      const empty = Object.entries(before).filter(([, rows]) => rows === 0);
      expect(empty.map(([name]) => name)).toEqual(["pii_vault.erasure_gate"]);

      const { from, to } = await migrate(database.open(database.ownerUrl));
      expect([from, to]).toEqual([Number(/\d+/.exec(dump)?.[0]), SCHEMA_VERSION]);
      await requireSchema(database.open(database.ownerUrl));
      expect(await dumpSchema(sql)).toBe(readFileSync(SNAPSHOT, "utf8"));
      const after = await countRows(sql);
      for (const [name, rows] of Object.entries(before)) {
        if (!KEPT_HOUSE_IN.includes(name)) expect([name, after[name]]).toEqual([name, rows]);
      }
      expect(await brokenInvariants(database)).toEqual([]);
      await sql`select etl.housekeep_on('2200-01-01'::date)`;
      expect(await brokenInvariants(database)).toEqual([]);
      const env = { DATABASE_URL: await database.addLogin("auditor") };
      const verified = await veil(["audit", "verify", "--json"], { env });
      expect({ code: verified.code, stderr: verified.stderr }).toEqual({ code: 0, stderr: "" });
    } finally {
      await database.drop();
    }
  });
}
