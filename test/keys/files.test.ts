import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Environment } from "../../src/config/environment.ts";
import {
  readIdentities,
  readRecipients,
  readTokenKey,
  readVerifyKey,
} from "../../src/config/keys.ts";
import { Failure } from "../../src/failure.ts";
import { ensureKeyFiles, KEY_FILES, writeKeyFiles } from "../../src/keys/files.ts";
import { identityRecipients, isIdentity, recipientKind } from "../../vault/age.ts";

const base = mkdtempSync(join(tmpdir(), "veil-keys-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

let folders = 0;
const newPath = () => join(base, `out-${folders++}`);
const modeOf = (path: string): number => statSync(path).mode & 0o7777;

const envOf = (folder: string): Environment => ({
  VEIL_TOKEN_KEY_FILE: join(folder, "token.key"),
  VEIL_VERIFY_KEY_FILE: join(folder, "verify.key"),
  VEIL_IDENTITY_FILE: join(folder, "identity.txt"),
  VEIL_RECIPIENTS_FILE: join(folder, "recipients.txt"),
});

async function refusal(folder: string): Promise<Failure> {
  try {
    await writeKeyFiles(folder, "classic");
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.exitCode).toBe(1);
    expect(error.message).toContain("nothing was written");
    expect(error.message + error.hint).not.toMatch(/SECRET|[A-Za-z0-9+/]{43}=/);
    return error;
  }
  throw new Error("expected a refusal, the files were written");
}

describe("key files", () => {
  test("are four, and readable to their owner only", async () => {
    const folder = newPath();
    const written = await writeKeyFiles(folder, "classic");
    expect(KEY_FILES).toEqual(["token.key", "verify.key", "identity.txt", "recipients.txt"]);
    expect(written).toEqual(KEY_FILES.map((name) => join(folder, name)));
    expect(readdirSync(folder).sort()).toEqual([...KEY_FILES].sort());
    expect(modeOf(folder)).toBe(0o700);
    for (const path of written) expect(modeOf(path)).toBe(0o600);
  });

  test("have these modes whatever the umask is", async () => {
    for (const mask of [0o000, 0o022, 0o077, 0o177]) {
      const folder = newPath();
      // A umask that takes the owner's own rights would lock the folder as well.
      if (mask === 0o177) mkdirSync(folder, { mode: 0o700 });
      const before = process.umask(mask);
      try {
        for (const path of await writeKeyFiles(folder, "classic")) {
          expect(modeOf(path)).toBe(0o600);
        }
      } finally {
        process.umask(before);
      }
      expect(modeOf(folder)).toBe(0o700);
    }
  });

  test("may go into a folder that exists, whose mode and other files stay", async () => {
    const folder = newPath();
    mkdirSync(folder);
    chmodSync(folder, 0o755);
    writeFileSync(join(folder, "notes.txt"), "mine");
    await writeKeyFiles(folder, "classic");
    expect(modeOf(folder)).toBe(0o755);
    expect(readFileSync(join(folder, "notes.txt"), "utf8")).toBe("mine");
    expect(readdirSync(folder)).toHaveLength(5);
  });

  test("may go into folders that are still to be made", async () => {
    const folder = join(newPath(), "a", "b");
    await writeKeyFiles(folder, "classic");
    expect(modeOf(folder)).toBe(0o700);
  });

  test("are one line each, or as age-keygen writes them", async () => {
    const folder = newPath();
    await writeKeyFiles(folder, "classic");
    const read = (name: string) => readFileSync(join(folder, name), "utf8");
    expect(read("token.key")).toMatch(/^1:[A-Za-z0-9+/]{43}=\n$/);
    expect(read("verify.key")).toMatch(/^1:[A-Za-z0-9+/]{43}=\n$/);
    expect(read("recipients.txt")).toMatch(/^age1[a-z0-9]{58}\n$/);
    expect(read("identity.txt")).toMatch(
      /^# created: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n# public key: age1[a-z0-9]{58}\nAGE-SECRET-KEY-1[A-Z0-9]{58}\n$/,
    );
    expect(read("identity.txt")).toContain(`# public key: ${read("recipients.txt")}`);
  });

  test.each(["classic", "post-quantum"] as const)(
    "are read as they stand, and belong together: %s",
    async (kind) => {
      const folder = newPath();
      await writeKeyFiles(folder, kind);
      const env = envOf(folder);
      const subkeys = readTokenKey(env);
      expect(subkeys.generation).toBe(1);
      expect(readVerifyKey(env)).toEqual({ generation: 1, bytes: subkeys.verify });
      const recipients = readRecipients(env);
      const identities = readIdentities(env);
      expect(recipients.map(recipientKind)).toEqual([kind]);
      expect(identities).toHaveLength(1);
      expect(identities.every(isIdentity)).toBe(true);
      expect(await identityRecipients(identities)).toEqual([...recipients]);
    },
  );

  test("hold new secrets every time", async () => {
    const [one, other] = [newPath(), newPath()];
    await writeKeyFiles(one, "classic");
    await writeKeyFiles(other, "classic");
    for (const name of KEY_FILES) {
      expect(readFileSync(join(one, name), "utf8")).not.toBe(
        readFileSync(join(other, name), "utf8"),
      );
    }
  });

  test("of the token key and the verify key are not the same secret", async () => {
    const folder = newPath();
    await writeKeyFiles(folder, "classic");
    const [token, verify] = ["token.key", "verify.key"].map((name) =>
      readFileSync(join(folder, name), "utf8"),
    );
    expect(token).not.toBe(verify);
  });
});

describe("nothing is written", () => {
  test.each([...KEY_FILES])("where %s exists already", async (name) => {
    const folder = newPath();
    mkdirSync(folder);
    writeFileSync(join(folder, name), "mine");
    const failure = await refusal(folder);
    expect(failure.message).toContain(name);
    expect(readdirSync(folder)).toEqual([name]);
    expect(readFileSync(join(folder, name), "utf8")).toBe("mine");
  });

  test("over keys that were generated before", async () => {
    const folder = newPath();
    await writeKeyFiles(folder, "classic");
    const read = () => KEY_FILES.map((name) => readFileSync(join(folder, name), "utf8"));
    const before = read();
    const { message } = await refusal(folder);
    for (const name of KEY_FILES) expect(message).toContain(name);
    expect(read()).toEqual(before);
  });

  // A link to nowhere does not exist to `existsSync`, and is found only when it is written to.
  test.each([...KEY_FILES])("where %s is a link to nowhere", async (name) => {
    const folder = newPath();
    const target = join(base, "elsewhere");
    mkdirSync(folder);
    symlinkSync(target, join(folder, name));
    await refusal(folder);
    expect(readdirSync(folder)).toEqual([name]);
    expect(existsSync(target)).toBe(false);
  });

  test("where the folder is a file, or below one", async () => {
    const file = newPath();
    writeFileSync(file, "mine");
    for (const folder of [file, join(file, "keys")]) {
      expect((await refusal(folder)).message).toContain(folder);
    }
    expect(readFileSync(file, "utf8")).toBe("mine");
  });

  test("where the folder may not be written to", async () => {
    const folder = newPath();
    mkdirSync(folder);
    chmodSync(folder, 0o555);
    chmodSync(base, 0o755);
    await asOrdinaryUser(async () => {
      expect((await refusal(folder)).message).toContain("EACCES");
      expect((await refusal(join(folder, "keys"))).message).toContain("EACCES");
    });
    expect(readdirSync(folder)).toEqual([]);
  });
});

/** Root may write anywhere: for as long as `work` takes, this process is somebody else. */
async function asOrdinaryUser(work: () => Promise<void>): Promise<void> {
  if (process.geteuid?.() !== 0) return work();
  process.seteuid?.(65_534);
  try {
    await work();
  } finally {
    process.seteuid?.(0);
  }
}

describe("a folder of our own", () => {
  test("is completed after an interrupted run, and keeps what may be in use", async () => {
    const own = mkdtempSync(join(tmpdir(), "veil-own-"));
    const read = (name: string) => readFileSync(join(own, name), "utf8");
    try {
      // Interrupted before there was an identity: all anew.
      writeFileSync(join(own, "token.key"), "1:");
      await ensureKeyFiles(own);
      expect(read("token.key")).toMatch(/^1:[A-Za-z0-9+/]{43}=\n$/);
      const before = KEY_FILES.map(read);
      await ensureKeyFiles(own);
      expect(KEY_FILES.map(read)).toEqual(before);
      // Interrupted at the last one: only that one is written, as it was.
      for (const leave of [
        () => rmSync(join(own, "recipients.txt")),
        () => writeFileSync(join(own, "recipients.txt"), ""),
      ]) {
        leave();
        await ensureKeyFiles(own);
        expect(KEY_FILES.map(read)).toEqual(before);
      }
    } finally {
      rmSync(own, { recursive: true });
    }
  });
});
