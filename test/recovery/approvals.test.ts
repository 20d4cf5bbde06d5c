// Waiting for a decision on a request, over a database that answers as it is told.
import { describe, expect, test } from "bun:test";
import { Failure } from "../../src/failure.ts";
import type { Database } from "../../src/postgres/database.ts";
import { INSUFFICIENT_PRIVILEGE } from "../../src/postgres/sqlstates.ts";
import { awaitDecision } from "../../src/recovery/approvals.ts";

describe("the wait for a decision", () => {
  const states = (...answers: string[]) => {
    const asked: string[] = [];
    let notify = (_: string) => {};
    let stopped = 0;
    const database = {
      query: async () => {
        const state = answers.shift() ?? "ready";
        asked.push(state);
        if (state === "away") throw new Failure(1, "away", null, "ECONNREFUSED");
        if (state === "denied to ask") throw new Failure(1, "denied", null, INSUFFICIENT_PRIVILEGE);
        return [{ state }];
      },
      listen: async (_: string, onNotify: (payload: string) => void) => {
        notify = onNotify;
        return () => {
          stopped++;
        };
      },
    } as unknown as Database;
    return { database, asked, notify: (id: string) => notify(id), stops: () => stopped };
  };

  test("ends when the request waits no more, also where nothing notifies and the database was away", async () => {
    const { database, asked, stops } = states("waiting", "away", "waiting", "denied");
    await awaitDecision(database, "id", 1);
    expect(asked).toEqual(["waiting", "away", "waiting", "denied"]);
    expect(stops()).toBe(1);
    const deaf = { ...database, listen: () => Promise.reject(new Error("a pooler")) } as Database;
    await awaitDecision(deaf, "id", 1);
  });

  test("asks again at once when it is notified of its own request", async () => {
    const { database, asked, notify } = states("waiting", "ready");
    const waiting = awaitDecision(database, "id", 600_000);
    await Bun.sleep(20);
    notify("another");
    await Bun.sleep(20);
    expect(asked).toEqual(["waiting"]);
    notify("id");
    await waiting;
    expect(asked).toEqual(["waiting", "ready"]);
  });

  test("ends when it may not ask", async () => {
    const { database, stops } = states("denied to ask");
    await expect(awaitDecision(database, "id", 1)).rejects.toThrow("denied");
    expect(stops()).toBe(1);
  });
});
