// A real PostgreSQL that is restarted, runs out of disk, or forgets: each on a cluster of its own.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { hasOwnServer } from "../../support/servers.ts";
import { type OwnCluster, startTroubleCluster } from "./trouble-cluster.ts";
import { mountDisk } from "./trouble-disk.ts";
import { AWAY, expectOneOutage } from "./trouble-run.ts";
import { everyKind, MORE_THAN_LOADS_TAKE, type Scene, withScene } from "./trouble-scene.ts";
import { KEPT } from "./trouble-verdict.ts";

setDefaultTimeout(900_000);

/** Time for several attempts to connect. */
const AWAY_MS = 2000;

/** Made one after the other and before anything else: initdb keeps this process from answering. */
const clusters = new Map<string, OwnCluster>();
const disk = hasOwnServer ? mountDisk(48) : null;
beforeAll(async () => {
  if (!hasOwnServer) return;
  const names = ["full", "follow", ...(everyKind ? ["drain"] : [])];
  for (const name of names) clusters.set(name, await startTroubleCluster());
  clusters.set("forgetful", await startTroubleCluster({ fsync: "off" }));
});
afterAll(async () => {
  for (const cluster of clusters.values()) await cluster.close();
  disk?.remove();
});
const onCluster = (
  name: string,
  work: (scene: Scene, cluster: OwnCluster) => Promise<void>,
): Promise<void> => {
  const database = clusters.get(name)!;
  return withScene({ database }, (scene) => work(scene, database));
};

test.concurrent.skipIf(!hasOwnServer)(
  "a full disk is waited for, until there is room",
  async () => {
    if (disk === null) return; // its SQLSTATE is among the proxy's
    await onCluster("full", async (scene) => {
      const { sql } = scene.database;
      await sql.unsafe(`create tablespace small location '${disk.folder}'`);
      for (const { name } of await sql`
        select t.relid::regclass::text as name
        from unnest('{public.user_logins,pii_vault.originals}'::regclass[]) p (root)
        cross join lateral pg_partition_tree(p.root) t where t.isleaf`) {
        await sql.unsafe(`alter table ${name} set tablespace small`);
      }
      scene.send(300);
      const run = scene.start(["etl", "--follow", "--json"]);
      await scene.settled();
      disk.fill();
      scene.send(1500);
      await run.says(AWAY);
      await scene.keptHidden();
      expect(scene.mostReceived()).toBe(1);
      disk.free();
      await scene.settled();
      run.signal("SIGTERM");
      const ended = await expectOneOutage(run);
      expect(ended.said[0]).toContain("error 53100");
      expect(scene.deliveredOtherThanOnce()).toBe(0);
      expect(await scene.verdict()).toEqual(KEPT);
    });
  },
);

for (const [how, mode] of [
  ["follow", "fast"],
  ["drain", "immediate"],
] as const) {
  if (!everyKind && how === "drain") continue;
  test.concurrent.skipIf(!hasOwnServer)(
    `a ${how} outlives a server that is stopped (${mode}) and started again`,
    () =>
      onCluster(how, async (scene, cluster) => {
        scene.send(MORE_THAN_LOADS_TAKE);
        // The server has these loads, and gets no others before it is gone.
        const loads = scene.pg.pauseAll("load-forwarded");
        const run = scene.start(["etl", "--json", ...(how === "follow" ? ["--follow"] : [])]);
        await loads.reached;
        const restarted = cluster.restart(mode, AWAY_MS);
        await run.says(AWAY);
        loads.resume();
        await restarted;
        if (how === "follow") {
          await scene.settled();
          run.signal("SIGTERM");
        }
        const ended = await expectOneOutage(run);
        expect(ended.summary()).toMatchObject({
          received: MORE_THAN_LOADS_TAKE,
          acknowledged: MORE_THAN_LOADS_TAKE,
        });
        expect(scene.deliveredOtherThanOnce()).toBe(0);
        expect(await scene.verdict()).toEqual(KEPT);
      }),
  );
}

test.concurrent.skipIf(!hasOwnServer)(
  "a server that forgets what it has committed is warned of, once",
  () =>
    onCluster("forgetful", async (scene) => {
      scene.send(10);
      const { code, said, summary } = await scene.start(["etl", "--json"]).ended;
      expect({ code, said }).toEqual({
        code: 0,
        said: [
          expect.stringMatching(/^warning: the database runs with fsync=off: .*set fsync=on$/),
        ],
      });
      expect(summary()).toMatchObject({ received: 10, acknowledged: 10 });
    }),
);
