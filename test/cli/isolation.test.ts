// A database whose default is another isolation level than the one that veil's functions need: no command
// minds, whatever an administrator has set.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { veil } from "../support/veil.ts";
import { createScene, type Scene, type Variables } from "./scene.ts";

let scene: Scene;

beforeAll(async () => {
  scene = await createScene();
  const owner = scene.database.sql(scene.database.ownerUrl);
  await owner.unsafe(
    `alter database ${scene.database.name} set default_transaction_isolation = 'serializable'`,
  );
});
afterAll(() => scene.database.drop());

const run = async (args: readonly string[], env: Variables, stdin = ""): Promise<string> => {
  const { code, stdout, stderr } = await veil(args, { env, stdin });
  expect({ args, code, stderr: code === 0 ? "" : stderr }).toEqual({ args, code: 0, stderr: "" });
  return stdout;
};

test("every command that writes works at a default of serializable", async () => {
  for (const user of ["u1", "u2"]) scene.send({ user_id: user, ip: `203.0.113.${user[1]}` });
  const broken = scene.send({ user_id: "u3", ip: ["192.0.2.1"] });
  const as = (role: Parameters<Scene["recovering"]>[0]): Variables => ({
    ...scene.etl,
    ...scene.recovering(role),
  });
  await run(["etl", "--max-messages", "3"], scene.etl);
  const token = (await run(["token", "ip"], scene.etl, "203.0.113.1\n")).trim();
  expect(await run(["reveal", token], as("revealer"))).toContain("203.0.113.1");
  await run(["quarantine", "show", broken], as("operator"));
  await run(["policy", "set", "--field", "ip", "--approval", "yes"], as("policy"));
  expect((await veil(["reveal", token], { env: as("revealer") })).code).toBe(1);
  const [open] = JSON.parse(await run(["approvals", "--json"], as("approver")));
  await run(["approve", open.request], as("approver"));
  expect(await run(["reveal", "--request", open.request], as("revealer"))).toContain("203.0.113.1");
  await run(["canary", "add", "ip"], as("policy"), "198.51.100.9\n");
  const hold = JSON.parse(
    await run(["hold", "add", token, "--reason", "court", "--json"], as("policy")),
  );
  expect((await veil(["forget", token, "--reason", "x"], { env: as("eraser") })).code).toBe(1);
  await run(["hold", "release", hold.id, "--reason", "over"], as("policy"));
  await run(["forget", token, "--reason", "asked"], as("eraser"));
  await run(["expire", "--older-than", "400d", "--reason", "retention"], as("eraser"));
  await run(["audit", "verify"], as("auditor"));
  await run(["check"], as("auditor"));
});
