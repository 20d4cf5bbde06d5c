// What an owner of the table may add to it later, against the advice: no message is lost to it.
import { expect, test } from "bun:test";
import { createDatabase } from "../support/database.ts";
import { makeKeys } from "../support/keys.ts";
import { createQueue } from "../support/servers.ts";
import { veil } from "../support/veil.ts";
import { remaining } from "./stored.ts";

/** Drains ten messages into a table whose trigger does this to the row of u3. */
async function drain(action: string) {
  const database = await createDatabase();
  try {
    const owner = database.sql(database.ownerUrl);
    await owner.unsafe(`
      create function public.meddle() returns trigger language plpgsql as $$
        begin
          if new.user_id = 'u3' then ${action}; end if;
          return new;
        end $$;
      create trigger meddle before insert on public.user_logins
        for each row execute function public.meddle()`);
    const queue = await createQueue();
    for (let i = 0; i < 10; i++) queue.send(JSON.stringify({ user_id: `u${i}` }));
    const env = { ...queue.env, ...(await makeKeys()), DATABASE_URL: database.url("etl") };
    const { code, stdout, stderr } = await veil(["etl", "--json"], { env });
    const [rows] = await owner`select count(*)::int as n from public.user_logins`;
    return {
      ...{ code, stderr, rows: Number(rows?.n), left: await remaining(queue.name) },
      summary: JSON.parse(stdout),
    };
  } finally {
    await database.drop();
  }
}

test("a table that drops a row silently ends the run, and nothing is acknowledged", async () => {
  const { code, stderr, rows, left, summary } = await drain("return null");
  expect(stderr).toMatch(/^error: public\.user_logins took 9 of 10 rows\nhint: a trigger /);
  expect({ code, rows, left }).toEqual({ code: 1, rows: 0, left: 10 });
  expect(summary).toMatchObject({ received: 0, acknowledged: 0, handedBack: 10 });
});

for (const [name, action] of [
  ["raises an exception", "raise exception 'no u3'"],
  ["raises a check violation of no constraint", "raise check_violation using message = 'no u3'"],
] as const) {
  test(`a trigger that ${name} for a row sends that one to the quarantine`, async () => {
    const { code, stderr, rows, left, summary } = await drain(action);
    expect({ code, stderr, rows, left }).toEqual({ code: 0, stderr: "", rows: 9, left: 0 });
    expect(summary).toMatchObject({ received: 10, loaded: 9, quarantined: 1, acknowledged: 10 });
  });
}
