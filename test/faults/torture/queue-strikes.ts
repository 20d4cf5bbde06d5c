// The faults of a queue that pass, as strikes on one worker's way to it.
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../bodies/hostile-random.ts";
import { SQS_FAULTS } from "../proxies/sqs-faults.ts";
import { spent, type Target } from "./target.ts";

/** The faults of SQS that pass; after the others a process is right to end. */
const PASSING = SQS_FAULTS.filter(
  (fault) => fault !== "access-denied" && fault !== "queue-deleted",
);

export function queueFault(r: Random) {
  const fault = r.pick(PASSING);
  const onDelete = fault === "lose" || fault === "partial";
  const action = onDelete
    ? "delete"
    : fault === "empty"
      ? "receive"
      : r.pick(["receive", "delete", "visibility", "any"] as const);
  const times = fault === "silence" ? 1 : r.pick([1, 1, 3, 10]);
  return {
    name: `queue: ${fault}`,
    run: async ({ worker }: Target) => {
      worker.sqs.failNext(fault, action, times);
      await spent(() => !worker.sqs.armed());
      worker.sqs.disarm();
    },
  };
}

export function queueAway(r: Random) {
  const kind = r.pick(["refuse", "reset", "hold", "slow"] as const);
  const how = r.pick(["closed", "accepted"] as const);
  const milliseconds = r.between(100, 2000);
  return {
    name: `queue: ${kind === "refuse" ? "refused" : kind === "reset" ? "connections reset" : kind === "hold" ? "held" : "slow"}`,
    run: async ({ worker }: Target) => {
      if (kind === "reset") {
        worker.sqs.dropAll();
        return;
      }
      if (kind === "refuse") {
        await worker.sqs.set({ kind, how });
        worker.sqs.dropAll();
      } else await worker.sqs.set(kind === "hold" ? { kind } : { kind, milliseconds: 150 });
      await sleep(milliseconds);
      await worker.sqs.set({ kind: "pass" });
    },
  };
}
