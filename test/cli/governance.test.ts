// Governed recovery as people meet it at the command line: the rules, the one who asks, the one who approves,
// and the decoy that nobody should ask for.
import { afterAll, beforeAll, expect, test } from "bun:test";
import type postgres from "postgres";
import { changePolicies } from "../../src/recovery/policy.ts";
import { type Run, startVeil, veil } from "../support/veil.ts";
import { createScene, type Scene, type Variables } from "./scene.ts";

let scene: Scene;
let owner: postgres.Sql;
let token: string;
let reader: Variables;
let approver: Variables;
let policy: Variables;

const done = (run: Run): Run => {
  expect({ code: run.code, stderr: run.code === 0 ? "" : run.stderr }).toEqual({
    code: 0,
    stderr: "",
  });
  return run;
};

const json = async (args: readonly string[], env: Variables) =>
  JSON.parse(done(await veil([...args, "--json"], { env })).stdout);

beforeAll(async () => {
  scene = await createScene();
  owner = scene.database.sql(scene.database.ownerUrl);
  scene.send({ user_id: "u1", ip: "203.0.113.9", device_id: "device-a" });
  done(await veil(["etl", "--max-messages", "1"], { env: scene.etl }));
  const [row] = await owner`select masked_ip from public.user_logins`;
  token = String(row?.masked_ip);
  reader = scene.recovering("revealer");
  approver = { DATABASE_URL: scene.database.url("approver") };
  policy = { ...scene.etl, DATABASE_URL: scene.database.url("policy") };
});
afterAll(() => scene.database.drop());

test("policy set --preset makes the rules strict and back, and show prints them", async () => {
  const strict = await json(["policy", "set", "--preset", "production"], policy);
  expect(strict).toMatchObject([
    { field: "ip", reasonRequired: true, hourly: 50, approval: true, approvalSeconds: 3600 },
    { field: "device_id", reasonRequired: true, approval: true },
    { field: "body", reasonRequired: true, purposes: [], approval: true, hourly: 1000 },
  ]);
  expect(await json(["policy", "show"], policy)).toEqual(strict);
  const shown = done(await veil(["policy", "show"], { env: approver })).stdout;
  expect(shown).toMatch(/purposes +fraud,security,legal,user-request +fraud/);
  expect(shown).toMatch(/a request is good for +8h +8h +8h/);
  const set = ["policy", "set", "--field", "ip", "--hourly", "none", "--purposes", "any"];
  const [loose] = await json([...set, "--request-valid", "3d"], policy);
  expect(loose).toMatchObject({ hourly: null, daily: 200, purposes: [], requestSeconds: 259_200 });
  await json(["policy", "set", "--preset", "permissive"], policy);
});

test("a change of several fields of which one is refused changes none, and nothing is on record", async () => {
  const before = await json(["policy", "show"], policy);
  const changes = async () =>
    (await owner`select id from pii_vault.audit where action = 'policy.changed'`).length;
  const entries = await changes();
  const database = scene.database.open(scene.database.url("policy"));
  const fields = ["ip", "device_id", "body"] as const;
  const settings = { purposes: ["fraud"] };
  const changing = changePolicies(
    database,
    fields.map((field) => ({ field, settings })),
    null,
  );
  expect(changing).rejects.toThrow("out of its bounds");
  await changing.catch(() => {});
  expect(await json(["policy", "show"], policy)).toEqual(before);
  expect(await changes()).toBe(entries);
});

test("what is refused says which rule it met", async () => {
  await json(["policy", "set", "--field", "ip", "--purposes", "legal,fraud"], policy);
  const purpose = await veil(["reveal", token, "--purpose", "fun"], { env: reader });
  expect([purpose.code, purpose.stdout]).toEqual([1, ""]);
  expect(purpose.stderr).toContain("one of these: fraud, legal;");
  await json(["policy", "set", "--field", "ip", "--purposes", "any", "--hourly", "0"], policy);
  const budget = await veil(["reveal", token], { env: reader });
  expect(budget.stderr).toContain("the budget of this login: 0 tokens of ip an hour");
  await json(["policy", "set", "--preset", "permissive"], policy);
});

test("wrong settings are wrong usage, and another login's change is refused by the role", async () => {
  for (const args of [
    [],
    ["--hourly", "-1"],
    ["--hourly", "many"],
    ["--purposes", "Fraud!"],
    ["--approval", "maybe"],
    ["--request-valid", "soon"],
    ["--preset", "lax"],
    ["--purposes", "fraud"],
    ["--field", "body", "--erased-may-return", "yes"],
    ["--request-valid", "31d"],
  ]) {
    const run = await veil(["policy", "set", ...args], { env: policy });
    expect([args, run.code]).toEqual([args, 2]);
  }
  const refused = await veil(["policy", "set", "--approval", "no"], { env: approver });
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain("it lacks veil_policy");
});

test("what needs approval waits, is approved by somebody else, and is fetched then", async () => {
  await json(["policy", "set", "--field", "ip", "--approval", "yes"], policy);
  const asked = await veil(["reveal", token, "--reason", "case 1"], { env: reader });
  expect(asked.code).toBe(1);
  expect(asked.stdout).toBe("");
  const [open] = await json(["approvals"], approver);
  expect(open).toMatchObject({
    waitsFor: "approval",
    login: scene.database.login("revealer"),
    items: 1,
    reason: "case 1",
    subjects: [token],
  });
  expect(asked.stderr).toContain(open.request);
  const own = await veil(["approve", open.request], { env: reader });
  expect([own.code, own.stderr.includes("GRANT veil_approver TO")]).toEqual([1, true]);
  const approved = await json(["approve", open.request, "--reason", "seen it"], approver);
  expect(approved).toEqual({ request: open.request, outcome: "approved" });
  const again = await veil(["deny", open.request], { env: approver });
  expect([again.code, again.stdout]).toEqual([1, ""]);
  expect(again.stderr).toContain("has had its verdict");
  expect(await json(["reveal", "--request", open.request], reader)).toMatchObject([
    { token, original: "203.0.113.9", verified: true },
  ]);
  expect(done(await veil(["approvals"], { env: approver })).stdout).toBe("");
});

test("a denied request stays denied, and a malformed id is wrong usage", async () => {
  await veil(["reveal", token], { env: reader });
  const [open] = await json(["approvals"], approver);
  await json(["deny", open.request, "--reason", "no case"], approver);
  const run = await veil(["reveal", "--request", open.request], { env: reader });
  expect(run.code).toBe(1);
  expect(run.stderr).toContain("was denied");
  expect((await veil(["approve", "yes"], { env: approver })).code).toBe(2);
});

test("approvers are told as requests come, and reveal --wait goes on when one is approved", async () => {
  const following = startVeil(["approvals", "--follow", "--json"], { env: approver });
  const lines = following.stdout.getReader();
  const waiting = startVeil(["reveal", token, "--wait", "--json"], { env: reader });
  const { value } = await lines.read();
  const { request } = JSON.parse(new TextDecoder().decode(value));
  await json(["approve", request], approver);
  expect(JSON.parse(await new Response(waiting.stdout).text())).toMatchObject([
    { token, original: "203.0.113.9" },
  ]);
  expect(await waiting.exited).toBe(0);
  following.kill("SIGTERM");
  expect(await following.exited).toBe(0);
});

test("bodies in the quarantine wait for approval where the policy says so", async () => {
  const id = scene.send({ user_id: "u2", ip: ["192.0.2.1"] });
  done(await veil(["etl", "--max-messages", "1"], { env: scene.etl }));
  await json(["policy", "set", "--field", "body", "--approval", "yes"], policy);
  const operator = scene.recovering("operator");
  const refused = await veil(["quarantine", "show", id], { env: operator });
  expect([refused.code, refused.stdout]).toEqual([1, ""]);
  expect(refused.stderr).toContain("ask again with --wait");
  const [left] = /[0-9a-f-]{36}/.exec(refused.stderr) ?? [];
  await json(["deny", String(left)], approver);
  const waiting = startVeil(["quarantine", "show", id, "--wait"], { env: operator });
  const errors = waiting.stderr.getReader();
  const { value } = await errors.read();
  const [request] = /[0-9a-f-]{36}/.exec(new TextDecoder().decode(value)) ?? [];
  await json(["approve", String(request)], approver);
  expect(await new Response(waiting.stdout).text()).toContain("192.0.2.1");
  await json(["policy", "set", "--field", "body", "--approval", "no"], policy);
});

test("break-glass needs no approval, and stays listed until it is reviewed", async () => {
  const glass = scene.recovering("breakglass");
  const revealing = ["reveal", token, "--break-glass"];
  expect((await veil(revealing, { env: glass })).code).toBe(2);
  expect((await veil([...revealing, "--reason", "urgent"], { env: reader })).code).toBe(1);
  expect(await json([...revealing, "--reason", "urgent"], glass)).toMatchObject([{ token }]);
  const [open] = await json(["approvals"], approver);
  expect(open).toMatchObject({ waitsFor: "review", reason: "urgent", expiresAt: null });
  expect((await veil(["review", open.request], { env: approver })).code).toBe(2);
  await json(["review", open.request, "--reason", "fine"], approver);
  expect(await json(["approvals"], approver)).toEqual([]);
  await json(["policy", "set", "--preset", "permissive"], policy);
});

test("a canary is unknown to who asks for it, and an alarm to everybody else", async () => {
  const add = (value: string, field = "ip") =>
    veil(["canary", "add", field, "--json"], { env: policy, stdin: `${value}\n` });
  const used = await add("203.0.113.9");
  expect([used.code, used.stderr.includes("in use")]).toEqual([1, true]);
  const planted = done(await add("198.51.100.254"));
  const canary = JSON.parse(planted.stdout).token;
  expect(planted.stdout + planted.stderr).not.toContain("198.51.100.254");
  expect((await add("198.51.100.254")).code).toBe(1);

  const alarm = Promise.withResolvers<string>();
  const listener = scene.database.sql(scene.database.url("auditor"));
  await listener.listen("veil_audit", alarm.resolve);
  const run = await veil(["reveal", token, canary, "--json"], { env: reader });
  expect(run.code).toBe(1);
  expect(JSON.parse(run.stdout)).toMatchObject([{ token }]);
  const unknown = `ip1_${"a".repeat(26)}`;
  const other = await veil(["reveal", token, unknown, "--json"], { env: reader });
  expect(other.stderr.replaceAll(unknown, "T")).toBe(run.stderr.replaceAll(canary, "T"));
  const [entry] = await listener`
    select login, tokens from pii_vault.audit where action = 'canary.alarm'`;
  // Anybody may listen, so that something was chained is all that is said.
  expect(await alarm.promise).toBe("");
  expect(entry).toEqual({
    login: scene.database.login("revealer"),
    tokens: [canary],
  });
  const [waiting] = await listener`select count(*)::int as n from pii_vault.audit_waiting`;
  expect(waiting?.n).toBe(0);

  expect(await json(["canary", "list"], policy)).toMatchObject([{ token: canary }]);
  await json(["canary", "remove", canary], policy);
  expect(await json(["canary", "list"], policy)).toEqual([]);
  expect((await veil(["canary", "remove", canary], { env: policy })).code).toBe(1);
});

test("a canary cannot be told from an unknown token by whoever rolls back", async () => {
  const run = await veil(["canary", "add", "ip", "--json"], {
    env: policy,
    stdin: "198.51.100.1\n",
  });
  const canary = JSON.parse(done(run).stdout).token;
  const sql = scene.database.sql(scene.database.url("revealer"));
  const before = await owner`select count(*)::int as n from pii_vault.audit`;
  await sql.unsafe("begin");
  await sql.unsafe("select pii_vault.request_reveal($1::text[], null)", [`{${canary}}`]);
  await sql.unsafe("rollback");
  const [row] = await sql.unsafe("select pii_vault.request_reveal($1::text[], null) as id", [
    `{${canary}}`,
  ]);
  expect([...(await sql.unsafe("select * from pii_vault.fetch_reveal($1)", [row?.id]))]).toEqual(
    [],
  );
  // Nobody has chained it: the next one who chains anything sets the alarm off.
  const alarms = async () =>
    (await owner`select request from pii_vault.audit where action = 'canary.alarm'`).map(
      ({ request }) => request,
    );
  expect(await alarms()).not.toContain(row?.id);
  await json(["policy", "set", "--approval", "no"], policy);
  await json(["reveal", token], reader);
  expect(await alarms()).toContain(row?.id);
  // Nor by how much there is to chain afterwards.
  const chained = async (asked: string): Promise<unknown[]> => {
    await sql.unsafe("select pii_vault.request_reveal($1::text[], null)", [`{${asked}}`]);
    const steps: unknown[] = [];
    for (let i = 0; i < 3; i++) {
      const [step] = await sql.unsafe("call pii_vault.chain_audit()");
      steps.push(step?.chained);
    }
    return steps;
  };
  expect(await chained(canary)).toEqual([1, 0, 0]);
  expect(await chained(`ip1_${"a".repeat(26)}`)).toEqual([1, 0, 0]);
  const after = await owner`select count(*)::int as n from pii_vault.audit`;
  // The committed request, its fetch and its alarm; the reveal and its fetch; two more requests, one alarm.
  expect(after[0]?.n - before[0]?.n).toBe(8);
});
