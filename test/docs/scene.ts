// A machine on which the pages' commands run as they stand there: an empty database, a queue of samples, a
// folder that looks like the checkout, and `veil` on the path as the binary would be.
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type postgres from "postgres";
import { sampleBodies } from "../../src/local/sample.ts";
import { createDatabase } from "../support/database.ts";
import { createQueue } from "../support/servers.ts";
import { checkout } from "./pages.ts";

/** The token that pages show, and the value that it stands for there. */
const TOKEN = "ip1_4tm2gjtiduj7mmfra2j7ke5wx4";
export const ORIGINAL = "203.0.113.200";

/** The people of the pages. */
const LOGINS = ["etl_host", "alice", "bob", "carol", "dora", "erin", "frank", "grace", "audit"];

export type Scene = {
  /** The plain driver as one of these logins, or as the database's owner. */
  readonly sql: (login: string | null) => postgres.Sql;
  /** Forgets what earlier blocks have exported: a page may be read without the others. */
  readonly turnPage: () => void;
  readonly shell: (
    text: string,
    options?: { readonly isDeno?: boolean; readonly inCheckout?: boolean },
  ) => Promise<ShellResult>;
  /** What the keys of this scene make of the value that pages show. */
  readonly token: () => Promise<string>;
  readonly end: () => Promise<void>;
};

export type ShellResult = {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
};

export async function openScene(): Promise<Scene> {
  const folder = mkdtempSync(join(tmpdir(), "veil-docs-"));
  chmodSync(folder, 0o755); // the embedded default's server passes through, where the tests run as root
  const database = await createDatabase({ migrated: false });
  for (const login of LOGINS) {
    await database.sql(database.ownerUrl).unsafe(`drop role if exists ${login}`);
  }
  const queue = await createQueue();
  for (const body of sampleBodies()) queue.send(body);
  const { QUEUE_URL: queueUrl = "", ...aws } = queue.env;
  furnish(folder);
  const env: Record<string, string> = {
    ...aws,
    PATH: `${folder}:${join(checkout, "node_modules", ".bin")}:${process.env.PATH}`,
    HOME: folder,
    NO_BUN: `${join(folder, "deno-only")}:/usr/bin:/bin`,
    DENO_DIR: join(folder, "deno"),
    DENO_NO_UPDATE_CHECK: "1",
  };

  const urlOf = (login: string): string => {
    const url = new URL(database.ownerUrl);
    url.username = login;
    url.password = "change me";
    return url.href;
  };
  let found: string | null = null;
  const token = async (): Promise<string> => {
    if (found !== null || !existsSync(join(folder, "keys"))) return found ?? TOKEN;
    const made = Bun.spawn(["veil", "token", "ip"], {
      env: { ...env, VEIL_TOKEN_KEY_FILE: join(folder, "keys", "token.key") },
      stdin: new Blob([`${ORIGINAL}\n`]),
      stdout: "pipe",
    });
    found = (await new Response(made.stdout).text()).trim();
    return found;
  };
  /** With what a reader would put in the place of the pages' made-up names. */
  const filledIn = async (text: string): Promise<string> =>
    text
      .replaceAll("https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue", queueUrl)
      .replaceAll("postgres://owner:secret@db.internal/logins", database.ownerUrl)
      .replaceAll(/postgres:\/\/(\w+):secret@db\.internal\/logins/g, (_, login) => urlOf(login))
      .replaceAll("--allow-net=queue.internal,db.internal", "--allow-net=127.0.0.1,localhost")
      .replaceAll("--allow-net=db.internal", "--allow-net=127.0.0.1,localhost")
      .replaceAll(TOKEN, await token());

  const exported = join(folder, "exported");
  const shell: Scene["shell"] = async (text, { isDeno = false, inCheckout = false } = {}) => {
    const before = existsSync(exported) ? `. "${exported}"\n` : "";
    const path = isDeno ? `export PATH="$NO_BUN"\n` : "";
    const script = `set -euo pipefail\n${path}${await filledIn(text)}\nexport -p > "${exported}"\n`;
    const child = Bun.spawn(["bash", "-c", before + script], {
      env,
      cwd: inCheckout ? checkout : folder,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { code, stdout, stderr };
  };

  return {
    ...{ shell, token },
    sql: (login) => database.sql(login === null ? database.ownerUrl : urlOf(login)),
    turnPage: () => rmSync(exported, { force: true }),
    end: async () => {
      const owner = database.sql(database.ownerUrl);
      for (const login of LOGINS) {
        await owner.unsafe(`drop role if exists ${login}`).catch(() => {}); // it may be connected
      }
      await database.drop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Programs that are not everywhere, as far as the pages use them. */
const STAND_INS: Readonly<Record<string, string>> = {
  // psql URL -c STATEMENT, and -Atc, which prints values alone
  psql: `import postgres from "postgres";
    const [url, , statement] = process.argv.slice(2);
    const sql = postgres(url);
    for (const row of await sql.unsafe(statement).values()) console.log(row.join("|"));
    await sql.end();`,
  // age --decrypt --identity FILE
  age: `import { Decrypter } from "age-encryption";
    import { readFileSync, writeSync } from "node:fs";
    const decrypter = new Decrypter();
    const lines = readFileSync(process.argv.at(-1), "utf8").split("\\n");
    for (const line of lines) if (line.startsWith("AGE-")) decrypter.addIdentity(line);
    writeSync(1, await decrypter.decrypt(readFileSync(0)));`,
};

/** Those of them that this machine lacks. */
export const standIns = (): readonly string[] =>
  Object.keys(STAND_INS).filter((name) => Bun.which(name) === null);

function furnish(folder: string): void {
  for (const name of ["src", "sql", "vault", "package.json"]) {
    cpSync(join(checkout, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(checkout, "node_modules"), join(folder, "node_modules"));
  const cli = join(checkout, "src", "cli.ts");
  writeProgram(join(folder, "veil"), `exec "${process.execPath}" --no-env-file "${cli}" "$@"`);
  for (const [name, script] of Object.entries(STAND_INS)) {
    if (Bun.which(name) !== null) continue;
    // In the checkout's modules, through the link above.
    writeFileSync(join(folder, `${name}.ts`), script);
    writeProgram(join(folder, name), `exec "${process.execPath}" "${folder}/${name}.ts" "$@"`);
  }
  // The runtime itself: the one that npm puts on the path is a script for Node.
  mkdirSync(join(folder, "deno-only"));
  const [platform = ""] = readdirSync(join(checkout, "node_modules", "@deno"));
  symlinkSync(
    join(checkout, "node_modules", "@deno", platform, "deno"),
    join(folder, "deno-only", "deno"),
  );
}

function writeProgram(path: string, line: string): void {
  writeFileSync(path, `#!/bin/sh\n${line}\n`);
  chmodSync(path, 0o755);
}
