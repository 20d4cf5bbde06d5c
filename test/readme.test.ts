// The README's own commands and queries, read out of it and run in their order. (CI runs the two lines of
// its quick start as they stand there.)
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type postgres from "postgres";
import { sampleBodies } from "../src/local/sample.ts";
import { createDatabase, type TestDatabase } from "./support/database.ts";
import { createQueue } from "./support/servers.ts";

const checkout = dirname(dirname(fileURLToPath(import.meta.url)));
const readme = readFileSync(join(checkout, "README.md"), "utf8");

type Block = { readonly language: string; readonly text: string; readonly heading: string };
const blocks: Block[] = [...readme.matchAll(/^```(sh|sql)\n([\s\S]*?)^```$/gm)].map((match) => ({
  language: match[1]!,
  text: match[2]!,
  heading: [...readme.slice(0, match.index).matchAll(/^## (.+)$/gm)].at(-1)?.[1] ?? "",
}));

const TOKEN = "ip1_4tm2gjtiduj7mmfra2j7ke5wx4";
const LOGINS = ["etl_host", "alice", "bob", "carol", "dora", "erin", "frank", "grace", "audit"];

describe("the README", () => {
  const folder = mkdtempSync(join(tmpdir(), "veil-readme-"));
  let database: TestDatabase;
  let owner: postgres.Sql;
  let token = "";
  let env: Record<string, string> = {};
  let queueUrl = "";

  beforeAll(async () => {
    chmodSync(folder, 0o755); // the embedded default's server passes through, where the tests run as root
    database = await createDatabase({ migrated: false });
    owner = database.sql(database.ownerUrl);
    for (const login of LOGINS) await owner.unsafe(`drop role if exists ${login}`);
    const queue = await createQueue();
    for (const body of sampleBodies()) queue.send(body);
    queueUrl = queue.env.QUEUE_URL ?? "";
    // A folder that looks like the checkout, and `veil` as the binary would be.
    for (const name of ["src", "sql", "vault", "package.json"]) {
      cpSync(join(checkout, name), join(folder, name), { recursive: true });
    }
    symlinkSync(join(checkout, "node_modules"), join(folder, "node_modules"));
    writeFileSync(
      join(folder, "veil"),
      `#!/bin/sh\nexec "${process.execPath}" --no-env-file "${join(checkout, "src", "cli.ts")}" "$@"\n`,
    );
    chmodSync(join(folder, "veil"), 0o755);
    // The runtime itself: what npm puts on the path is a script for Node.
    const denoOnly = join(folder, "deno-only");
    mkdirSync(denoOnly);
    const [platform] = readdirSync(join(checkout, "node_modules", "@deno"));
    symlinkSync(join(checkout, "node_modules", "@deno", platform!, "deno"), join(denoOnly, "deno"));
    const { QUEUE_URL: _, ...aws } = queue.env;
    env = {
      ...aws,
      PATH: `${folder}:${join(checkout, "node_modules", ".bin")}:${process.env.PATH}`,
      HOME: folder,
      NO_BUN: `${denoOnly}:/usr/bin:/bin`,
      DENO_DIR: join(folder, "deno"),
      DENO_NO_UPDATE_CHECK: "1",
    };
  });
  afterAll(async () => {
    await database.drop();
    rmSync(folder, { recursive: true, force: true });
  });

  const urlOf = (login: string): string => {
    const url = new URL(database.ownerUrl);
    url.username = login;
    url.password = "change me";
    return url.href;
  };

  /** What a reader would put in the place of the README's made-up names. */
  const filledIn = (text: string): string =>
    text
      .replaceAll("https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue", queueUrl)
      .replaceAll("postgres://owner:secret@db.internal/logins", database.ownerUrl)
      .replaceAll(/postgres:\/\/(\w+):secret@db\.internal\/logins/g, (_, login) => urlOf(login))
      .replaceAll("--allow-net=queue.internal,db.internal", "--allow-net=127.0.0.1,localhost")
      .replaceAll("--allow-net=db.internal", "--allow-net=127.0.0.1,localhost")
      .replaceAll(TOKEN, token);

  async function shell(text: string): Promise<string> {
    const state = join(folder, "env");
    const script = `set -euo pipefail\n${filledIn(text)}\nexport -p > "${state}"\n`;
    const before = existsSync(state) ? `. "${state}"\n` : "";
    const child = Bun.spawn(["bash", "-c", before + script], {
      env,
      cwd: folder,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    expect({ text, code, stderr: code === 0 ? "" : stderr }).toEqual({ text, code: 0, stderr: "" });
    return stdout;
  }

  /** What the drain by Deno named as an example opens by Deno too: no Bun is in it. */
  async function revealWithDeno(text: string, output: string): Promise<void> {
    expect(output).toMatch(/became rows +97/);
    const example = /reveal (ip1_[a-z2-7]{26})/.exec(output)?.[1] ?? "";
    const command = text.split("\n").find((line) => line.startsWith("deno run ")) ?? "";
    const revealed = await shell(
      `export PATH="$NO_BUN"\n${command.replace(/ etl$/, "")} reveal ${example} --json`,
    );
    expect(JSON.parse(revealed)).toMatchObject([{ token: example, field: "ip", verified: true }]);
  }

  async function queries(text: string, sql: postgres.Sql, rows: boolean): Promise<void> {
    for (const statement of text.split(/;\n/).filter((part) => part.trim() !== "")) {
      const answer = await sql.unsafe(statement);
      if (rows) expect({ statement, rows: answer.length > 0 }).toEqual({ statement, rows: true });
    }
  }

  const missing = (text: string): string | null =>
    ["psql", "age", "node"].find(
      (program) => new RegExp(`\\b${program} (-|")`).test(text) && Bun.which(program) === null,
    ) ?? null;

  for (const [i, { language, text, heading }] of blocks.entries()) {
    const first = text.split("\n").find((line) => !/^(export|--)/.test(line)) ?? text;
    const absent = language === "sh" ? missing(text) : null;
    const name = `block ${i + 1}, ${heading}: ${first.slice(0, 60)}`;
    test.skipIf(absent !== null)(
      absent === null ? name : `${name} (skipped without ${absent} on PATH)`,
      async () => {
        if (language === "sh") {
          const output = await shell(heading === "Deno" ? `export PATH="$NO_BUN"\n${text}` : text);
          if (text.includes("--allow-write")) await revealWithDeno(text, output);
          else if (text.includes("reveal")) expect(output).toContain("203.0.113.200");
          if (text.includes("--decrypt")) expect(output).toBe("203.0.113.200\n");
          if (text.includes("veil token")) expect(output).toContain(token);
          if (text.includes("quarantine list")) expect(output).toContain("ip is an array");
          if (text.includes("duplicates")) expect(output).toContain("device_id,dev1_");
        } else if (heading === "For analysts") {
          await queries(text, database.sql(urlOf("alice")), true);
        } else {
          await queries(text, owner, false);
        }
        if (token === "" && text.includes("veil etl\n")) {
          const keys = join(folder, "keys", "token.key");
          const child = Bun.spawn(["veil", "token", "ip"], {
            env: { ...env, VEIL_TOKEN_KEY_FILE: keys },
            stdin: new Blob(["203.0.113.200\n"]),
            stdout: "pipe",
          });
          token = (await new Response(child.stdout).text()).trim();
        }
      },
      60_000,
    );
  }

  test("has the analysts' queries, the story from keys to reveal, and nothing that is not run", () => {
    expect(blocks.length).toBeGreaterThan(12);
    const languages = [...readme.matchAll(/^```(\w*)$/gm)].map((match) => match[1]);
    expect([...new Set(languages)].sort()).toEqual(["", "sh", "sql"]);
  });

  test("links only to files that there are", () => {
    for (const [, target] of readme.matchAll(/\]\(([^)#]+)\)/g)) {
      expect({ target, there: existsSync(join(checkout, target!)) }).toEqual({
        target,
        there: true,
      });
    }
  });

  test("names every command, variable and role that there is", () => {
    const folder = join(checkout, "src", "cli");
    const cli = readdirSync(folder).map((file) => readFileSync(join(folder, file), "utf8"));
    const commands = [...cli.join("\n").matchAll(/\.command\("([\w-]+)"\)/g)];
    expect(commands.length).toBeGreaterThan(30);
    for (const [, command] of commands) {
      expect({ command, named: readme.includes(command!) }).toEqual({ command, named: true });
    }
    const config = readFileSync(join(checkout, "src", "config", "config.ts"), "utf8");
    for (const [variable] of config.matchAll(/\bVEIL_[A-Z_]*[A-Z]\b/g)) {
      expect({ variable, named: readme.includes(variable) }).toEqual({ variable, named: true });
    }
  });
});
