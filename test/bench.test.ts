// The benchmarks run to the end and say all that they are to say. What they say of speed is no verdict.
import { describe, expect, test } from "bun:test";
import { fileURLToPath } from "node:url";
import { fillHistory } from "../bench/fill-history.ts";
import { type LoginKind, loginBody, REPEATING_DEVICES } from "../bench/logins.ts";
import { PROGRAMS } from "../bench/programs.ts";
import { measure } from "../bench/run.ts";
import { startServers, veil } from "../bench/servers.ts";
import { spreadOf } from "../bench/spread.ts";

async function run(script: string, ...argv: string[]) {
  const path = fileURLToPath(new URL(`../bench/${script}`, import.meta.url));
  const child = Bun.spawn([process.execPath, "--no-env-file", path, ...argv], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, code };
}

const spread = { median: expect.any(Number), min: expect.any(Number), max: expect.any(Number) };
const rest = { requests: expect.any(Number), cpuMillis: expect.any(Number) };
const machine = {
  date: expect.stringMatching(/^\d{4}-\d\d-\d\d$/),
  cpu: expect.any(String),
  cores: expect.any(Number),
  memoryGiB: expect.any(Number),
  system: expect.any(String),
};

describe("bun run bench", () => {
  test("gives every figure of every program, and nothing on stderr", async () => {
    const { stdout, stderr, code } = await run(
      "bench.ts",
      ...["--messages", "30", "--rounds", "2", "--idle", "1", "--workers", "2"],
      ...["--vault", "1000", "--latency", "--memory", "40", "--json"],
    );
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    // Parsed twice: toMatchObject puts its matchers into what it is given.
    expect(JSON.parse(stdout)).toMatchObject({
      machine,
      versions: {
        bun: expect.any(String),
        postgres: expect.any(String),
        fauxqs: expect.any(String),
        "sqs-consumer": expect.any(String),
        pg: expect.any(String),
      },
      messages: 30,
      rounds: 2,
      idle: { seconds: 1, fromStart: rest, afterLoad: rest },
      latency: { messages: expect.any(Number), medianMs: expect.any(Number) },
      memory: { messages: 40, peakRssMiB: expect.any(Number), peakRssMiBAt100k: null },
    });
    const report = JSON.parse(stdout);
    expect(report.latency.messages).toBeGreaterThan(0);
    expect(report.latency.p99Ms).toBeGreaterThanOrEqual(report.latency.medianMs);
    const names = report.programs.map(({ name }: { name: string }) => name);
    const workers = report.skipped.length === 0 ? ["workers"] : [];
    expect(names).toEqual(["limit", "consumer", "new", "repeating", ...workers, "vault"]);
    for (const { name, figures, ratios, requests, rounds } of report.programs) {
      expect(figures, name).toEqual({
        messagesPerSecond: spread,
        cpuMicros: spread,
        wholeCpuMicros: spread,
        startCpuMillis: spread,
        peakRssMiB: spread,
        requestsPer1000: spread,
        queueCores: spread,
        postgresMicros: spread,
        walBytes: spread,
        fullPageImages: spread,
      });
      expect(Object.keys(ratios), name).toEqual([...bases(name)]);
      for (const ratio of Object.values(ratios)) {
        expect(ratio, name).toEqual({ messagesPerSecond: spread, cpuMicros: spread });
      }
      expect(rounds, name).toHaveLength(2);
      // At least one of each, of ten messages at most.
      expect(requests.ReceiveMessage, name).toBeGreaterThanOrEqual(3);
      expect(requests.DeleteMessageBatch, name).toBeGreaterThanOrEqual(3);
      expect(figures.peakRssMiB.median, name).toBeGreaterThan(10);
      expect(figures.messagesPerSecond.median, name).toBeGreaterThan(0);
    }
  });

  test("prints a table of what was asked for", async () => {
    const argv = ["--messages", "10", "--rounds", "1", "--only", "new,limit", "--idle", "0"];
    const { stdout, code } = await run("bench.ts", ...argv);
    expect(code).toBe(0);
    expect(stdout).toContain("CPU µs/message");
    expect(stdout).toMatch(/^limit: .+ \d/m);
    expect(stdout).toMatch(/^veil, all originals new \/ limit +\d/m);
    expect(stdout).not.toContain("sqs-consumer + pg  ");
    expect(stdout).not.toContain("idle");
  });

  test.each([
    [["--only", "fastest"]],
    [["--messages", "0"]],
    [["--rounds", "many"]],
    [["--history", "10", "--current-share", "11"]],
    [["--expire", "0"]],
    [["--quickly"]],
  ])("refuses %p with exit code 2", async (argv) => {
    const { stdout, stderr, code } = await run("bench.ts", ...argv);
    expect({ stdout, code }).toEqual({ stdout: "", code: 2 });
    expect(stderr).toStartWith("error: ");
  });

  test("compares a database with years in it with an empty one", async () => {
    const { stdout, stderr, code } = await run(
      "bench.ts",
      ...["--history", "20000", "--current-share", "2000"],
      ...["--messages", "2000", "--rounds", "1", "--expire", "4000", "--json"],
    );
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    const besides = { loads: expect.any(Number), longestMs: expect.any(Number) };
    expect(report).toMatchObject({
      ...{ machine, messages: 2000, rounds: 1 },
      expiry: { originals: 4000, seconds: expect.any(Number), beside: besides, alone: besides },
    });
    expect(report.expiry.walBytes).toBeGreaterThan(0);
    const { history } = report;
    expect(history).toMatchObject({ logins: 20_000, inCurrent: 2000 });
    const ofLoads = {
      ...{ rowsPerSecond: spread, postgresMicros: spread, walBytes: spread },
      ...{ fullPageImages: spread, medianMs: spread, p99Ms: spread, longestMs: spread },
    };
    for (const name of ["empty", "history"]) {
      expect(history.line[name].figures.messagesPerSecond.median, name).toBeGreaterThan(0);
      expect(history.line[name].figures.walBytes.median, name).toBeGreaterThan(0);
      expect({ ...history.loads[name].figures }, name).toEqual(ofLoads);
    }
    expect({ ...history.ratios.line }).toEqual({
      ...{ messagesPerSecond: spread, cpuMicros: spread, postgresMicros: spread, walBytes: spread },
    });
    // Both tables and each of their indexes: the rows of today's period are a part of all of them.
    const tables = history.sizes.map(({ table, index }: Record<string, string>) => [table, index]);
    expect(tables).toEqual([
      ["pii_vault.originals", null],
      ["pii_vault.originals", "btree (token, period)"],
      ["user_logins", null],
      ["user_logins", "btree (user_id)"],
      ["user_logins", "btree (masked_ip)"],
      ["user_logins", "btree (masked_device_id)"],
      ["user_logins", "brin (create_date)"],
    ]);
    for (const { table, index, bytes, currentBytes } of history.sizes) {
      expect(currentBytes, `${table} ${index}`).toBeGreaterThan(0);
      expect(bytes, `${table} ${index}`).toBeGreaterThan(currentBytes);
    }
  });

  test("makes a history that breaks no invariant, again after today's period was made anew", async () => {
    const servers = await startServers();
    try {
      const history = await fillHistory(servers, { logins: 3001, inCurrent: 501 }, () => {});
      await history.reset();
      const { exitCode, stderr } = Bun.spawnSync(veil("check"), {
        cwd: "/",
        env: {
          ...{ PATH: process.env.PATH ?? "", HOME: "/" },
          DATABASE_URL: servers.superuserUrl(history.database),
        },
        stdout: "ignore",
      });
      expect(stderr.toString()).toBe("");
      expect(exitCode).toBe(0);
    } finally {
      servers.stop();
    }
  });

  test("says of a history what was asked for, and what is met", async () => {
    const argv = ["--history", "2000", "--messages", "10", "--rounds", "1"];
    const { stdout, code } = await run("bench.ts", ...argv);
    expect(code).toBe(0);
    expect(stdout).toContain("2,000 logins and originals there, 67 of them in today's period");
    expect(stdout).toMatch(/^the whole line, with history +\d/m);
    expect(stdout).toMatch(
      /^throughput against an empty database +[\d.]+ +≥ 0.85 +(?:met|missed)$/m,
    );
    expect(stdout).not.toContain("expiring");
    expect(stdout).toMatch(/^WAL a login +[\d,]+ B +≤ 4,000 B +(?:met|missed)$/m);
  });

  test("takes a program that does not load its messages for a failure, not a figure", async () => {
    const servers = await startServers();
    try {
      const idler = { ...PROGRAMS.limit, command: () => [process.execPath, "-e", ""] };
      await expect(measure(servers, idler, 10, 0)).rejects.toThrow(
        "0 rows and 0 deletions of 1 messages",
      );
      const half = {
        ...PROGRAMS.limit,
        command: (messages: number) => PROGRAMS.limit.command(Math.ceil(messages / 2)),
      };
      await expect(measure(servers, half, 40, 20)).rejects.toThrow(
        "20 rows and 20 deletions of 40 messages",
      );
    } finally {
      servers.stop();
    }
  });
});

/** Whom a program is compared with. */
function bases(name: string): readonly string[] {
  if (name === "limit") return [];
  if (name === "consumer") return ["limit"];
  const others = ["limit", "consumer"];
  return name === "vault" || name === "workers" ? ["new", ...others] : others;
}

test("bun run bench:vault compares the same bytes, and gives a rate for each operation", async () => {
  const { stdout, stderr, code } = await run(
    "vault.ts",
    ...["--milliseconds", "1", "--rounds", "1", "--json"],
  );
  expect(stderr).toBe("");
  expect(code).toBe(0);
  const { operations, ...rest } = JSON.parse(stdout);
  expect(rest).toMatchObject({ machine, versions: { bun: expect.any(String) }, rounds: 1 });
  for (const name of ["token of an ip", "token of a device_id", "seal", "open", "wrap, X25519"]) {
    expect(operations).toContainEqual({ name, veil: spread, node: spread, ratio: spread });
  }
});

describe("the logins", () => {
  const originals = (kind: LoginKind, count: number) => {
    const values = { ip: new Set<string>(), device_id: new Set<string>() };
    for (let n = 0; n < count; n++) {
      const { ip, device_id } = JSON.parse(loginBody(kind, n));
      values.ip.add(ip);
      values.device_id.add(device_id);
    }
    return [values.ip.size, values.device_id.size];
  };

  test("that are new share no address and no device", () => {
    expect(originals("new", 100_000)).toEqual([100_000, 100_000]);
  });

  test("that are scattered are new, and their users come in no order", () => {
    expect(originals("scattered", 100_000)).toEqual([100_000, 100_000]);
    const users = Array.from(
      { length: 1000 },
      (_, n) => JSON.parse(loginBody("scattered", n)).user_id,
    );
    expect(new Set(users).size).toBe(1000);
    const rising = users.filter((user, n) => n > 0 && user > users[n - 1]).length;
    expect(rising).toBeGreaterThan(300);
    expect(rising).toBeLessThan(700);
  });

  test("that repeat are of 2,000 devices", () => {
    expect(originals("repeating", 10_000)).toEqual([REPEATING_DEVICES, REPEATING_DEVICES]);
    expect(originals("repeating", REPEATING_DEVICES)).toEqual([2000, 2000]);
  });
});

test("a spread is the median between the smallest and the largest", () => {
  expect(spreadOf([])).toBeNull();
  expect(spreadOf([7])).toEqual({ median: 7, min: 7, max: 7 });
  expect(spreadOf([9, 1, 10])).toEqual({ median: 9, min: 1, max: 10 });
  expect(spreadOf([4, 1, 10, 2])).toEqual({ median: 3, min: 1, max: 10 });
});

describe("bench/cold.ts", () => {
  test("starts the binary and the sources, and gives what each took", async () => {
    const { stdout, stderr, code } = await run("cold.ts", "--runs", "2", "--json");
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const { programs, ...report } = JSON.parse(stdout);
    expect(report).toMatchObject({ machine, runs: 2, versions: { bun: expect.any(String) } });
    expect(programs.map(({ name }: { name: string }) => name)).toEqual([
      "a Bun binary that does nothing",
      "--version, binary",
      "--version, source",
      "reveal, binary",
      "reveal, source",
      "the same in a process that runs",
    ]);
    for (const { millis, cpuMillis } of programs) {
      expect({ millis, cpuMillis }).toMatchObject({ millis: spread, cpuMillis: spread });
    }
  });
});

test("bench/periods.ts gives the price of many periods, and of a device that returns", async () => {
  const { stdout, stderr, code } = await run("periods.ts", "--periods", "1,13", "--json");
  expect(stderr).toBe("");
  expect(code).toBe(0);
  const { all, returned } = JSON.parse(stdout);
  expect(all.map(({ periods }: { periods: number }) => periods)).toEqual([1, 13]);
  for (const { periods, costs } of all) {
    for (const [step, { coldMs, warmMs }] of Object.entries<Record<string, number>>(costs)) {
      expect(coldMs, `${step}, ${periods} periods`).toBeGreaterThan(0);
      expect(warmMs, `${step}, ${periods} periods`).toBeGreaterThan(0);
    }
  }
  // Less than a row and its index entry would be no original; twelve times a whole page no price.
  expect(returned.bytesOnDisk).toBeGreaterThan(100);
  expect(returned.bytesOnDisk).toBeLessThan(1000);
});
