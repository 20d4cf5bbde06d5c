// The end of a run: no more faults, everything comes to rest, every process stops cleanly.
import { setTimeout as sleep } from "node:timers/promises";
import { depthOf } from "./feeder.ts";
import { judge, type Posts, type Scene, terminate, unclean } from "./posts.ts";

const STANDSTILL_MS = 120_000;

/** No more faults; until nothing waits any more, nothing is in flight, and nothing is to come again. */
export async function settle({ servers, shared, tally }: Scene, posts: Posts): Promise<void> {
  for (const { worker } of posts.list) {
    worker.signal("SIGCONT");
    worker.pg.disarm();
    worker.sqs.disarm();
    await worker.pg.set({ kind: "pass" });
    await worker.sqs.set({ kind: "pass" });
  }
  shared.settle();
  let moved = performance.now();
  let total = shared.total();
  for (let empty = 0; empty < 3; await sleep(200)) {
    shared.hurry();
    const { waiting, inFlight } = await depthOf(servers.queue);
    empty = waiting + inFlight + shared.waiting() === 0 ? empty + 1 : 0;
    if (shared.total() !== total) {
      total = shared.total();
      moved = performance.now();
    }
    if (performance.now() - moved > STANDSTILL_MS) {
      tally.complaints.push(
        `the line stands still with ${waiting + inFlight} messages in the queue`,
      );
      return;
    }
  }
}

/** Each process stops cleanly, and a drain then finds nothing. */
export async function stopAll({ servers, tally }: Scene, posts: Posts): Promise<void> {
  posts.close();
  await Promise.all(
    posts.list.map(async (post) => {
      const running = post.worker.pid() !== null;
      const { end } = post;
      await terminate(post, tally);
      if (running) judge(post, await end, tally);
    }),
  );
  const last = posts.list[0]?.worker.run(["etl", "--json"]);
  if (last === undefined) return;
  const complaint = unclean(await last);
  if (complaint !== null) tally.complaints.push(`the last drain: ${complaint}`);
  const { waiting, inFlight } = await depthOf(servers.queue);
  if (waiting + inFlight > 0) {
    tally.complaints.push(`${waiting + inFlight} messages are left in the queue`);
  }
}
