// A PostgreSQL of one test's own, migrated, that can be stopped and started again on the same port.
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { database as databaseConfig } from "../../../src/config.ts";
import { openDatabase } from "../../../src/database.ts";
import type { Cluster } from "../../../src/local/cluster.ts";
import { migrate } from "../../../src/migrate.ts";
import { startFreshCluster } from "../../database/own-cluster.ts";

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
  readonly restart: (mode: "fast" | "immediate", awayMs: number) => Promise<void>;
  readonly close: () => Promise<void>;
};

export async function startTroubleCluster(
  settings: Readonly<Record<string, string>> = {},
): Promise<OwnCluster> {
  const { cluster, port, url } = await startFreshCluster(settings);
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
  await sql.unsafe("create role trouble_etl login password 'test' in role veil_etl");
  const etlUrl = new URL(url);
  etlUrl.username = "trouble_etl";
  etlUrl.password = "test";
  return {
    ...{ name: "postgres", sql, another, login: "trouble_etl", etlUrl: etlUrl.href },
    restart: async (mode, awayMs) => {
      await control(cluster, ["stop", "--mode", mode]);
      await sleep(awayMs);
      const all = {
        ...{ listen_addresses: "127.0.0.1", port, unix_socket_directories: "" },
        ...settings,
      };
      const options = Object.entries(all).map(([name, value]) => `-c ${name}='${value}'`);
      await control(cluster, ["start", "--log", cluster.log, "--options", options.join(" ")]);
    },
    close: async () => {
      await Promise.all(clients.map((client) => client.end({ timeout: 1 })));
      await control(cluster, ["stop", "--mode", "immediate"]);
    },
  };
}

/** Not waited for in this process's only thread: the queue and the proxies live here. */
function control({ binaries, data, account }: Cluster, args: readonly string[]): Promise<void> {
  const all = [...args, "--wait", "--silent", "--pgdata", data];
  const child = spawn(join(binaries, "pg_ctl"), all, {
    cwd: dirname(data),
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", TZ: "UTC" },
    stdio: "ignore",
    ...(account ?? {}),
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`pg_ctl ${args[0]} failed with ${code}`));
    });
  });
}
