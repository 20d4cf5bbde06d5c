// A PostgreSQL of one test's own, migrated, that can be stopped and started again on the same port.
import postgres from "postgres";
import { readDatabase as databaseConfig } from "../../../src/config/database-url.ts";
import { openDatabase } from "../../../src/postgres/database.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { SCRATCH_PASSWORD, type ScratchCluster } from "../../support/scratch-cluster.ts";
import { startOwnCluster } from "../../support/servers.ts";

export type TroubleDatabase = {
  readonly name: string;
  /** A superuser's, not by way of the proxy. */
  readonly sql: postgres.Sql;
  /** One more session of it. */
  readonly another: () => postgres.Sql;
  /** The name of the login that veil uses. */
  readonly login: string;
  readonly etlUrl: string;
};

export type OwnCluster = TroubleDatabase & {
  readonly restart: ScratchCluster["restart"];
  readonly close: () => Promise<void>;
};

export async function startTroubleCluster(
  settings: Readonly<Record<string, string>> = {},
): Promise<OwnCluster> {
  const { url, urlOf, restart, stop } = await startOwnCluster(settings);
  const owner = openDatabase(databaseConfig({ DATABASE_URL: url }));
  await migrate(owner);
  await owner.close();
  const clients: postgres.Sql[] = [];
  const another = () => {
    const client = postgres(url, { max: 2, onnotice: () => {} });
    clients.push(client);
    return client;
  };
  const sql = another();
  await sql.unsafe(`create role trouble_etl login password '${SCRATCH_PASSWORD}' in role veil_etl`);
  return {
    ...{ name: "postgres", sql, another, login: "trouble_etl", etlUrl: urlOf("trouble_etl") },
    restart,
    close: async () => {
      await Promise.all(clients.map((client) => client.end({ timeout: 1 })));
      stop();
    },
  };
}
