// `veil reveal` as governed recovery: logins with their originals beside them, requests that wait for somebody
// else, and answers that are whole in their form wherever they end.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tokensOf } from "../line/expected.ts";
import { makeHost } from "../sql/host.ts";
import { makeKeys } from "../support/keys.ts";
import { type Run, startVeil, veil } from "../support/veil.ts";
import { atTerminal } from "./pseudo-terminal.ts";
import { createScene, type Scene, type Variables } from "./scene.ts";

let scene: Scene;
let folder: string;
/** Of a login that is an analyst and a revealer. */
let env: Variables;
let token: Record<"ip" | "otherIp" | "device" | "formula", string>;
const [ip, otherIp] = ["192.0.2.71", "2001:db8::71"];
const device = "device-71";
const formula = '=HYPERLINK("http://192.0.2.9")';
const day = "2026-03-05";

const sql = (statement: string) =>
  scene.database.sql(scene.database.ownerUrl).unsafe(statement) as Promise<
    Record<string, unknown>[]
  >;
const requests = async () =>
  Number((await sql("select count(*) as n from pii_vault.requests"))[0]?.n);

const investigator = async (...roles: string[]): Promise<Variables> => {
  const url = await scene.database.addLogin("revealer");
  for (const role of roles) await sql(`grant ${role} to ${new URL(url).username}`);
  return { ...scene.recovering("revealer"), DATABASE_URL: url };
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "veil-join-"));
  scene = await createScene();
  env = await investigator("veil_analyst");
  const tokens = tokensOf(scene.keys.VEIL_TOKEN_KEY);
  token = {
    ...{ ip: tokens.ip(ip), otherIp: tokens.ip(otherIp) },
    ...{ device: tokens.device_id(device), formula: tokens.device_id(formula) },
  };
  const app = { app_version: "2.3.0", device_type: "ios", locale: "en_US" };
  scene.send({ user_id: "anna", ip, device_id: device, ...app });
  scene.send({ user_id: "anna", ip: otherIp, device_id: null });
  scene.send({ user_id: "=bert", ip, device_id: formula });
  const run = await veil(["etl", "--json", "--max-messages", "3"], { env: scene.etl });
  expect(JSON.parse(run.stdout)).toMatchObject({ loaded: 3, newOriginals: 4 });
  // A login and its originals stand in one period. No period has these days: each is one of its own.
  const later = "2026-03-07";
  await sql(`update public.user_logins set create_date = '${day}'`);
  await sql(
    `update public.user_logins set create_date = '${later}' where masked_device_id is null`,
  );
  await sql(`update pii_vault.originals set period = '${day}'`);
  await sql(`update pii_vault.originals set period = '${later}' where token = '${token.otherIp}'`);
});
afterAll(async () => {
  await scene.database.drop();
  rmSync(folder, { recursive: true, force: true });
});

const done = (run: Run): Run => {
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
  return run;
};
const lines = (run: Run): Record<string, unknown>[] =>
  run.stdout
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const reveal = (args: readonly string[], options: { env?: Variables; stdin?: string } = {}) =>
  veil(["reveal", ...args], { env, ...options });

describe("a join", () => {
  test.concurrent("prints a user's logins with originals beside their tokens, an object a line", async () => {
    const run = done(await reveal(["--user", "anna", "--json", "--reason", "case 7"]));
    const first = {
      ...{ user_id: "anna", create_date: day, device_type: "ios", locale: "en_US" },
      ...{ app_version: "2.3.0", masked_ip: token.ip, ip },
      ...{ masked_device_id: token.device, device_id: device, verified: true },
    };
    const second = {
      ...{ user_id: "anna", create_date: "2026-03-07", device_type: null, locale: null },
      ...{ app_version: null, masked_ip: token.otherIp, ip: otherIp },
      ...{ masked_device_id: null, device_id: null, verified: true },
    };
    expect(lines(run)).toEqual([first, second]);
    expect(Object.keys(lines(run)[0]!)).toEqual(Object.keys(first));
    const entries = await sql(
      "select tokens, items from pii_vault.audit where reason = 'case 7' and action = 'reveal.request'",
    );
    expect(entries.map(({ items }) => items)).toEqual([3]);
    expect((entries[0]!.tokens as string[]).sort()).toEqual(
      [token.ip, token.otherIp, token.device].sort(),
    );
  });

  test.concurrent("finds by day, by value and by token, and by all of them together", async () => {
    const file = join(folder, "tokens.txt");
    writeFileSync(file, `\n${token.ip}\r\n${token.ip}\n`);
    const found = async (args: string[], stdin?: string) =>
      lines(done(await reveal([...args, "--json"], stdin === undefined ? {} : { stdin }))).map(
        (row) => `${row.user_id} ${row.ip} ${row.device_id}`,
      );
    const [anna, later, bert] = [
      `anna ${ip} ${device}`,
      `anna ${otherIp} null`,
      `=bert ${ip} ${formula}`,
    ] as const;
    expect(await found(["--since", "2026-03-06"])).toEqual([later]);
    expect(await found(["--until", day])).toEqual([bert, anna]);
    expect(await found(["--since", day, "--until", day])).toEqual([bert, anna]);
    expect(await found(["--since", day])).toEqual([bert, anna, later]);
    expect(await found(["--values", "device_id"], `${device}\n`)).toEqual([anna]);
    // Another spelling of the same address.
    expect(await found(["--values", "ip"], "2001:DB8:0::71\n198.51.100.1\n")).toEqual([later]);
    expect(await found(["--tokens", file])).toEqual([bert, anna]);
    expect(await found(["--tokens", file, "--user", "anna"])).toEqual([anna]);
    expect(await found(["--tokens", "-", "--since", day], token.formula)).toEqual([bert]);
  });

  test.concurrent("as CSV leaves nothing for a spreadsheet to run, and as a table has its columns aligned", async () => {
    const csv = done(await reveal(["--user", "=bert", "--csv"]));
    expect(csv.stdout).toBe(
      "user_id,create_date,device_type,locale,app_version,masked_ip,ip,masked_device_id,device_id,verified\n" +
        `'=bert,${day},,,,${token.ip},${ip},${token.formula},"'=HYPERLINK(""http://192.0.2.9"")",verified\n`,
    );
    const table = done(await reveal(["--user", "anna"]));
    expect(table.stdout.split("\n")[0]).toMatch(
      new RegExp(
        `^anna  ${day}  ios  en_US  2\\.3\\.0  ${token.ip}  ${ip} +${token.device}  ${device}  verified$`,
      ),
    );
    const plain = done(await reveal([token.formula, "--csv"]));
    expect(plain.stdout).toMatch(
      /^token,field,verified,sealed_at,original\ndev1_\w{26},device_id,verified,[^,]+Z,"'=HYPERLINK/,
    );
  });

  test.concurrent("of no logins requests nothing, says so, and is no failure", async () => {
    const own = await createScene();
    try {
      const [url] = [await own.database.addLogin("revealer")];
      await own.database
        .sql(own.database.ownerUrl)
        .unsafe(`grant veil_analyst to ${new URL(url).username}`);
      const nobody = { ...own.recovering("revealer"), DATABASE_URL: url };
      for (const [format, stdout] of [
        [[], ""],
        [["--json"], ""],
        [["--csv"], expect.stringMatching(/^user_id,[^\n]+\n$/)],
      ] as const) {
        const run = await veil(["reveal", "--user", "nobody", ...format], { env: nobody });
        expect(run).toEqual({
          code: 0,
          stdout,
          stderr: "there are no such logins; nothing was requested\n",
        });
      }
      const [row] = await own.database.sql(own.database.ownerUrl)`
        select count(*)::integer as n from pii_vault.requests`;
      expect(row?.n).toBe(0);
    } finally {
      await own.database.drop();
    }
  });

  test.concurrent("names the role that its login lacks, and the grant", async () => {
    const login = (url: string) => new URL(url).username;
    for (const [role, lacking] of [
      ["revealer", "veil_analyst"],
      ["analyst", "veil_revealer"],
      ["auditor", "veil_analyst and veil_revealer"],
    ] as const) {
      const run = await reveal(["--user", "anna"], { env: scene.recovering(role) });
      expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 1, stdout: "" });
      expect(run.stderr).toContain(`it lacks ${lacking}\n`);
      const grant = `GRANT ${lacking.replace(" and", ",")} TO ${login(scene.database.url(role))};`;
      expect(run.stderr).toContain(grant);
    }
    const broken = await reveal(["--user", "anna", "--break-glass", "--reason", "now"]);
    expect(broken.stderr).toContain("it lacks veil_breakglass\n");
    expect(broken.code).toBe(1);
  });

  test.concurrent("prints tokens without an original with none, counts them, and fails unless they stand for nothing", async () => {
    const own = await createScene();
    try {
      const owner = own.database.sql(own.database.ownerUrl);
      const url = await own.database.addLogin("revealer");
      await owner.unsafe(`grant veil_analyst to ${new URL(url).username}`);
      const gone = `ip1_${"b".repeat(25)}a`;
      await owner.unsafe(
        `insert into public.user_logins (user_id, masked_ip, masked_device_id)
         values ('erased', 'ip0_${"a".repeat(26)}', 'somebody else''s'), ('gone', '${gone}', null)`,
      );
      const as = { ...own.recovering("revealer"), DATABASE_URL: url };
      const erased = await veil(["reveal", "--user", "erased", "--json"], { env: as });
      expect(erased.code).toBe(0);
      expect(lines(erased)).toMatchObject([{ ip: null, device_id: null, verified: null }]);
      expect(erased.stderr).toMatch(/^2 tokens stand for nothing that could be revealed/);
      const lost = await veil(["reveal", "--user", "gone", "--json"], { env: as });
      expect(lines(lost)).toMatchObject([{ masked_ip: gone, ip: null, verified: null }]);
      expect(lost.code).toBe(1);
      expect(lost.stderr).toMatch(
        /^error: the vault does not hold the originals of 1 token; 1 login was printed without/,
      );
    } finally {
      await own.database.drop();
    }
  });

  test.concurrent("refuses loudly what does not open, and prints the rest", async () => {
    const { VEIL_IDENTITY } = await makeKeys();
    const run = await reveal(["--user", "anna", "--json"], { env: { ...env, VEIL_IDENTITY } });
    expect(lines(run)).toMatchObject([{ ip: null, device_id: null }, { ip: null }]);
    expect(run.stderr).toContain(`error: ${token.ip}: REFUSED`);
    expect(run.code).toBe(1);
  });

  test.concurrent("keeps values off the command line and out of messages", async () => {
    const { VEIL_TOKEN_KEY: _, ...without } = env;
    const run = await reveal(["--values", "ip"], { env: without, stdin: `${ip}\n` });
    expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 2, stdout: "" });
    expect(run.stderr).toContain("VEIL_TOKEN_KEY is not set");
    const file = join(folder, "values.txt");
    writeFileSync(file, `${token.ip}\n${ip}\n`);
    const wrong = await reveal(["--tokens", file]);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("line 2 of the file is not a token; nothing was requested");
    for (const { stderr } of [run, wrong]) expect(stderr).not.toContain(ip);
    const missing = await reveal(["--tokens", join(folder, "no-such")]);
    expect(missing.code).toBe(2);
    expect(missing.stderr).toContain("ENOENT");
  });
});

test("what does not go together, or is not written as it should be, is exit code 2", async () => {
  const id = crypto.randomUUID();
  const before = await requests();
  for (const args of [
    [token.ip, "--user", "anna"],
    ["-", "--since", day],
    [token.ip, "--request", id],
    ["--values", "ip", "--tokens", "-"],
    ["--values", "user_id"],
    ["--since", "2026-03-08", "--until", "2026-03-07"],
    ["--since", "2026-02-30"],
    ["--since", "yesterday"],
    ["--user", ""],
    ["--user", "anna", "--json", "--csv"],
    ["--request", "4711"],
    ["--request", id, "--reason", "again"],
    ["--request", id, "--break-glass"],
    [token.ip, "--break-glass", "--wait"],
    [token.ip, "--purpose", "Two words"],
  ]) {
    const run = await reveal(args);
    expect({ args, code: run.code, stdout: run.stdout }).toEqual({ args, code: 2, stdout: "" });
    expect(run.stderr).toMatch(/^error: [^\n]+\nhint: [^\n]+\n$/);
  }
  expect(await requests()).toBe(before);
});

describe("a request that needs approval", () => {
  let governed: Scene;
  let asking: Variables;
  let owner: ReturnType<Scene["database"]["sql"]>;
  let approver: ReturnType<Scene["database"]["sql"]>;
  beforeAll(async () => {
    governed = await createScene();
    const { database } = governed;
    owner = database.sql(database.ownerUrl);
    approver = database.sql(database.url("approver"));
    const url = await database.addLogin("revealer");
    await owner.unsafe(`grant veil_analyst to ${new URL(url).username}`);
    asking = { ...governed.recovering("revealer"), DATABASE_URL: url };
    governed.send({ user_id: "carl", ip, device_id: device });
    await veil(["etl", "--max-messages", "1"], { env: governed.etl });
    const policy = database.sql(database.url("policy"));
    await policy.unsafe(`select pii_vault.set_policy('ip', '{"approval": true}', 'two people')`);
    await policy.unsafe(
      `select pii_vault.set_policy('device_id', '{"hourly": 10000, "purposes": ["fraud"]}', 'less')`,
    );
  });
  afterAll(() => governed.database.drop());

  const ipToken = () => tokensOf(governed.keys.VEIL_TOKEN_KEY).ip(ip);
  const deviceToken = () => tokensOf(governed.keys.VEIL_TOKEN_KEY).device_id(device);
  const ask = (...args: string[]) => veil(["reveal", ...args], { env: asking });
  const decide = (request: string, approved: boolean) =>
    approver`select pii_vault.decide(${request}, ${approved}, 'a test')`;
  /** All of a stream, and `told` once this has stood in it. */
  const reading = (stream: ReadableStream<Uint8Array>, text: string) => {
    const told = Promise.withResolvers<void>();
    const whole = (async () => {
      let read = "";
      const decoder = new TextDecoder();
      for await (const chunk of stream) {
        read += decoder.decode(chunk, { stream: true });
        if (read.includes(text)) told.resolve();
      }
      told.resolve();
      return read;
    })();
    return { told: told.promise, whole };
  };
  /** The arguments of the commands that are told to be run. */
  const commandsOf = (text: string): string[][] =>
    [...text.matchAll(/`veil ([^`]+)`/g)].map(([, command = ""]) => command.split(/\s+/));
  /** What waits for this reason, once it does. */
  const waitingFor = async (reason: string): Promise<string> => {
    for (;;) {
      const rows = await approver`
        select request from pii_vault.waiting_requests() where reason = ${reason}`;
      if (rows.length > 0) return String(rows[0]!.request);
      await Bun.sleep(20);
    }
  };

  test("is named with the way back to it, and shown once somebody has approved", async () => {
    const run = await ask(ipToken(), "--reason", "later", "--json");
    expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 1, stdout: "[]\n" });
    const [, id = ""] = /^error: request (\S+) waits for approval/.exec(run.stderr) ?? [];
    expect(commandsOf(run.stderr)).toEqual([
      ...[
        ["approve", id],
        ["reveal", "--json", "--request", id],
      ],
    ]);
    expect(run.stderr).toContain("veil_approver");
    const early = await ask("--request", id);
    expect({ code: early.code, stdout: early.stdout }).toEqual({ code: 1, stdout: "" });
    await decide(id, true);
    const shown = done(await veil(commandsOf(run.stderr)[1]!, { env: asking }));
    expect(JSON.parse(shown.stdout)).toMatchObject([{ token: ipToken(), original: ip }]);
    expect(done(await ask("--request", id.toUpperCase())).stdout).toContain(ip);
    const foreign = await veil(["reveal", "--request", id], {
      env: governed.recovering("revealer"),
    });
    expect({ code: foreign.code, stdout: foreign.stdout }).toEqual({ code: 1, stdout: "" });
    expect(foreign.stderr).toMatch(/^error: no such request of this login\nhint: is DATABASE_URL /);
  });

  test("of a join holds it up as a whole, and its originals come back beside the logins", async () => {
    const join = ["--user", "carl", "--purpose", "fraud", "--json"];
    const run = await ask(...join, "--reason", "a join");
    expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 1, stdout: "" });
    const id = await waitingFor("a join");
    const again = ["reveal", "--user", "carl", "--json", "--request", id];
    expect(commandsOf(run.stderr)).toEqual([["approve", id], again]);
    await decide(id, true);
    const shown = done(await veil(again, { env: asking }));
    expect(lines(shown)).toMatchObject([
      { user_id: "carl", ip, device_id: device, verified: true },
    ]);
  });

  test.each([[[] as string[]], [["--user", "carl", "--purpose", "fraud"]]])(
    "is waited for with --wait (%p)",
    async (search) => {
      const reason = `waiting ${search.length}`;
      const args = search.length > 0 ? search : [ipToken()];
      const child = startVeil(["reveal", ...args, "--json", "--wait", "--reason", reason], {
        env: asking,
      });
      // Approved any sooner, it would have nothing to wait for.
      const { told, whole } = reading(child.stderr, "waiting; Ctrl-C");
      await told;
      const id = await waitingFor(reason);
      await decide(id, true);
      const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), whole]);
      expect(await child.exited).toBe(0);
      expect(stdout).toContain(ip);
      expect(stderr).toContain(`request ${id} waits for approval`);
    },
  );

  test("that is denied while it is waited for is refused", async () => {
    const child = startVeil(["reveal", ipToken(), "--json", "--wait", "--reason", "no"], {
      env: asking,
    });
    await decide(await waitingFor("no"), false);
    expect(await child.exited).toBe(1);
    expect(await new Response(child.stdout).text()).toBe("");
    expect(await new Response(child.stderr).text()).toMatch(
      /error: request \S+ was denied\nhint: /,
    );
  });

  test("stays open after Ctrl-C, which says how to come back", async () => {
    const args = ["reveal", ipToken(), "--wait", "--reason", "not now"];
    const run = await atTerminal(args, asking, [{ when: "Ctrl-C leaves it open", keys: "\u0003" }]);
    expect(run.code).toBe(130);
    const id = await waitingFor("not now");
    const [waiting = "", end = ""] = run.screen.split("waits on:");
    for (const said of [waiting, end]) {
      expect(commandsOf(said.replaceAll("\r\n", "\n"))).toEqual([
        ...[
          ["approve", id],
          ["reveal", "--request", id],
        ],
      ]);
    }
    await decide(id, true);
    expect(done(await ask("--request", id)).stdout).toContain(ip);
  });

  test("goes without it by break-glass, and is marked", async () => {
    const breaking = { ...asking, DATABASE_URL: governed.database.url("breakglass") };
    const args = ["reveal", ipToken(), "--break-glass", "--json"];
    const run = done(await veil([...args, "--reason", "a fire"], { env: breaking }));
    expect(JSON.parse(run.stdout)).toMatchObject([{ original: ip }]);
    const open = await approver`select reason from pii_vault.unreviewed_requests()`;
    expect(open.map(({ reason }) => reason)).toEqual(["a fire"]);
    const before = await governed.database.sql(governed.database.ownerUrl)`
      select count(*)::int as n from pii_vault.requests`;
    for (const silent of [args, [...args, "--reason", " "]]) {
      const refused = await veil(silent, { env: breaking });
      expect({ code: refused.code, stdout: refused.stdout }).toEqual({ code: 2, stdout: "" });
      expect(refused.stderr).toStartWith("error: break-glass wants a reason\n");
    }
    const typed = await atTerminal(args, breaking, [{ when: "(", keys: "\r" }]);
    expect(typed.code).toBe(2);
    expect(typed.screen).toContain("break-glass wants a reason");
    const after = await governed.database.sql(governed.database.ownerUrl)`
      select count(*)::int as n from pii_vault.requests`;
    expect(after[0]?.n).toBe(before[0]?.n);
  });

  test("a purpose that the policy does not list, or none, is refused", async () => {
    for (const purpose of [[], ["--purpose", "marketing"]]) {
      const run = await ask(deviceToken(), ...purpose);
      expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 1, stdout: "" });
      expect(run.stderr).toMatch(/^error: the policy does not allow the purpose/);
    }
  });

  test("a budget that ends half-way leaves a whole array of what came before, and exit code 1", async () => {
    const url = await governed.database.addLogin("revealer");
    const filler = Array.from(
      { length: 10_050 },
      (_, n) =>
        `dev1_${"a".repeat(21)}${n
          .toString(32)
          .padStart(4, "a")
          .replace(/[0189]/g, (d) => "wxyz"["0189".indexOf(d)]!)}a`,
    );
    const tokens = [deviceToken(), ...new Set(filler)];
    expect(tokens.length).toBeGreaterThan(10_000);
    const run = await veil(["reveal", "-", "--json", "--purpose", "fraud"], {
      env: { ...asking, DATABASE_URL: url },
      stdin: tokens.join("\n"),
    });
    expect(run.code).toBe(1);
    expect(run.stdout.endsWith("]\n")).toBe(true);
    expect(JSON.parse(run.stdout)).toMatchObject([{ token: deviceToken(), original: device }]);
    expect(run.stderr).toContain(
      "error: this request would exceed the budget of this login: 10000 tokens of device_id",
    );
  });
});

describe("a token that came again in other periods", () => {
  const SPELLINGS = [
    // The first day has no period, and so is one.
    ["2023-06-05", "2001:0db8::17"],
    ["2024-01-15", "2001:DB8::17"],
    ["2024-02-15", "2001:db8:0::17"],
    ["2024-03-15", "2001:db8:0:0::17"],
  ] as const;
  let own: Scene;
  let as: Variables;
  let owner: ReturnType<Scene["database"]["sql"]>;
  let token: string;

  beforeAll(async () => {
    own = await createScene();
    const { database } = own;
    owner = database.sql(database.ownerUrl);
    const url = await database.addLogin("revealer");
    await owner.unsafe(`grant veil_analyst to ${new URL(url).username}`);
    as = { ...own.recovering("revealer"), DATABASE_URL: url };
    await owner.unsafe(`set role veil_owner;
      select etl.make_period('2024-01-01', '2024-02-01'), etl.make_period('2024-02-01', '2024-03-01'),
        etl.make_period('2024-03-01', '2024-04-01');
      reset role`);
    const host = await makeHost(own.keys);
    const etl = database.open(database.url("etl"));
    for (const [day, spelling] of SPELLINGS) {
      const body = { user_id: "dora", ip: spelling };
      await host.load(etl, [{ id: day, body, sentAt: new Date(`${day}T12:00:00Z`) }]);
    }
    token = host.token("ip", SPELLINGS[0][1]);
    await owner`insert into public.user_logins (user_id, masked_ip) values ('dora', ${token})`;
  });
  afterAll(() => own.database.drop());

  const shown = (run: Run) =>
    lines(run).map((row): readonly unknown[] => [row.create_date, row.ip]);
  const revealed = async () => {
    const run = done(await veil(["reveal", token, "--json"], { env: as }));
    return JSON.parse(run.stdout)[0].original;
  };
  const join = (...args: string[]) =>
    veil(["reveal", "--user", "dora", "--json", ...args], { env: as });

  test("opens beside each login to what was sent in its period, and alone to the earliest", async () => {
    const run = done(await join("--reason", "all of them"));
    expect(shown(run)).toEqual([...SPELLINGS.map((one) => [...one]), [null, SPELLINGS[0][1]]]);
    expect(await revealed()).toBe(SPELLINGS[0][1]);
    const entries = await owner`
      select tokens from pii_vault.audit where reason = 'all of them' and action = 'reveal.request'`;
    expect(entries.map(({ tokens }) => tokens)).toEqual([[token]]);
  });

  test("does so, too, where its request was approved meanwhile", async () => {
    const policy = own.database.sql(own.database.url("policy"));
    const approver = own.database.sql(own.database.url("approver"));
    await policy.unsafe(`select pii_vault.set_policy('ip', '{"approval": true}', 'two people')`);
    try {
      expect((await join("--reason", "governed")).code).toBe(1);
      const [row] = await approver`select request from pii_vault.waiting_requests()`;
      await approver`select pii_vault.decide(${row?.request}, true, 'a test')`;
      const run = done(await join("--request", String(row?.request)));
      expect(shown(run)).toEqual([...SPELLINGS.map((one) => [...one]), [null, SPELLINGS[0][1]]]);
    } finally {
      await policy.unsafe(`select pii_vault.set_policy('ip', '{"approval": false}', 'one person')`);
    }
  });

  test("is counted as lost where its period's original is gone, whatever later ones hold", async () => {
    for (const [n, [, next]] of [...SPELLINGS.slice(1), ["", undefined]].entries()) {
      const [gone] = SPELLINGS[n]!;
      await owner`
        delete from pii_vault.originals
        where token = ${token} and period = etl.period_of(${gone})`;
      const run = await join();
      expect(run.code).toBe(1);
      expect(run.stderr).toMatch(
        /^error: the vault does not hold the originals of 1 token; 5 logins were printed without/,
      );
      expect(shown(run)).toEqual([
        ...SPELLINGS.map(([day, ip], i): [string, string | null] => [day, i > n ? ip : null]),
        [null, next ?? null],
      ]);
      if (next !== undefined) expect(await revealed()).toBe(next);
    }
    expect((await veil(["reveal", token, "--json"], { env: as })).stdout).toBe("[]\n");
  });
});
