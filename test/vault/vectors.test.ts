// vault/ against the published vectors, and the vectors against three implementations that share no
// code with it: test/vectors/independent.ts, check.py, and the age tool.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isIdentity, recipientKind } from "../../vault/age.ts";
import { type AuditEntry, chainHash, entryBytes, genesisHash } from "../../vault/audit.ts";
import { canonicalBytes } from "../../vault/canonical.ts";
import {
  type AuditKey,
  formatAuditKey,
  parseAuditKey,
  publicKey,
  signCheckpoint,
  verifyCheckpoint,
} from "../../vault/checkpoint.ts";
import { checkProof, proveDataKey, unwrapDataKey } from "../../vault/data-key.ts";
import { deriveSubkeys, formatKey, parseKey } from "../../vault/keys.ts";
import { open, seal } from "../../vault/seal.ts";
import { makeToken, parseToken } from "../../vault/token.ts";
import * as independent from "../vectors/independent.ts";
import { deterministicFiles } from "../vectors/make.ts";
import * as vectors from "../vectors/vectors.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const pathOf = (name: string): string =>
  fileURLToPath(new URL(`../vectors/${name}`, import.meta.url));

describe("the published files", () => {
  test("are what make.ts writes", async () => {
    for (const [name, text] of await deterministicFiles()) {
      expect({ name, text: readFileSync(pathOf(name), "utf8") }).toEqual({ name, text });
    }
  });

  test("say loudly that the identities in them are test keys", () => {
    expect(vectors.wrapped.WARNING).toMatch(/TEST KEYS.*NEVER USE/);
  });

  test("use no nonce twice under one key", () => {
    const nonces = vectors.seals.accept.map((vector) => vector.dataKey + vector.nonce);
    expect(new Set(nonces).size).toBe(nonces.length);
  });
});

describe("subkeys", () => {
  test("are those of the vectors", () => {
    for (const { generation, tokenKey, subkeys } of vectors.keys.keys) {
      const derived = deriveSubkeys({ generation, bytes: bytes(tokenKey) });
      expect({
        generation: derived.generation,
        ip: hex(derived.ip),
        deviceId: hex(derived.deviceId),
        verify: hex(derived.verify),
        check: hex(derived.check),
      }).toEqual({
        generation,
        ip: subkeys["veil/v1/token/ip"],
        deviceId: subkeys["veil/v1/token/device_id"],
        verify: subkeys["veil/v1/data-key"],
        check: subkeys["veil/v1/key-check"],
      });
    }
  });

  test("are those of node:crypto", () => {
    for (const { tokenKey, subkeys } of vectors.keys.keys) {
      for (const [label, subkey] of Object.entries(subkeys)) {
        const length = label === "veil/v1/key-check" ? 8 : 32;
        expect(hex(independent.deriveSubkey(bytes(tokenKey), label, length))).toBe(subkey);
      }
    }
  });
});

describe("canonical bytes", () => {
  test("are those of the vectors", () => {
    for (const { field, value, canonical } of vectors.canonical.accept) {
      expect({ value, canonical: hex(canonicalBytes(field, value)) }).toEqual({ value, canonical });
    }
  });

  test("are those of the platform's own reading of addresses", () => {
    for (const { field, value, canonical } of vectors.canonical.accept) {
      const second = hex(independent.canonicalBytes(field, value));
      expect({ value, canonical: second }).toEqual({ value, canonical });
    }
  });

  test("do not exist for what UTF-8 cannot hold", () => {
    for (const { value } of vectors.canonical.reject) {
      expect(() => canonicalBytes("ip", value)).toThrow("lone surrogate");
      expect(() => canonicalBytes("device_id", value)).toThrow("lone surrogate");
    }
  });
});

describe("tokens", () => {
  test("are those of the vectors", () => {
    for (const { generation, tokenKey, field, value, token } of vectors.tokens.tokens) {
      const subkeys = deriveSubkeys({ generation, bytes: bytes(tokenKey) });
      expect(makeToken(subkeys, field, value)).toBe(token);
      expect(parseToken(token)).toEqual({ field, generation });
    }
  });

  test("are those of node:crypto", () => {
    for (const { generation, tokenKey, field, value, token } of vectors.tokens.tokens) {
      expect(independent.makeToken(bytes(tokenKey), generation, field, value)).toBe(token);
    }
  });

  test("are read where they are well written, and only there", () => {
    for (const { text, field, generation } of vectors.tokens.accept) {
      expect({ text, parts: parseToken(text) }).toEqual({ text, parts: { field, generation } });
    }
    for (const { why, text } of vectors.tokens.reject) {
      expect({ why, text, parts: parseToken(text) }).toEqual({ why, text, parts: null });
    }
  });
});

describe("key lines", () => {
  test("are read where they are well written, and only there", () => {
    for (const { line, generation, bytes: key, written } of vectors.keyLines.accept) {
      const parsed = parseKey(line);
      expect(parsed).toEqual({ generation, bytes: bytes(key) });
      expect(formatKey(parsed!)).toBe(written);
    }
    for (const { why, line } of vectors.keyLines.reject) {
      expect({ why, key: parseKey(line) }).toEqual({ why, key: null });
    }
  });
});

describe("recipients", () => {
  test("are told apart from everything else", () => {
    for (const { text, kind } of vectors.recipients.accept) {
      expect({ text, kind: recipientKind(text) }).toEqual({ text, kind });
    }
    for (const { why, text } of vectors.recipients.reject) {
      expect({ why, text, kind: recipientKind(text) }).toEqual({ why, text, kind: null });
    }
  });
});

describe("seals", () => {
  test("are those of the vectors, byte by byte, and open to their text", () => {
    for (const { dataKey, place, nonce, text, sealed } of vectors.seals.accept) {
      expect(hex(seal(bytes(dataKey), place, text, bytes(nonce)))).toBe(sealed);
      expect(open(bytes(dataKey), place, bytes(sealed))).toBe(text);
    }
  });

  test("are those of node:crypto", () => {
    for (const vector of vectors.seals.accept) {
      const { dataKey, place, nonce, text, sealed } = vector;
      const data = independent.additionalData(place);
      const padded = independent.pad(text);
      expect(hex(data)).toBe(vector.additionalData);
      expect(hex(padded)).toBe(vector.padded);
      expect(hex(independent.encrypt(bytes(dataKey), bytes(nonce), data, padded))).toBe(sealed);
      expect(independent.open(bytes(dataKey), place, bytes(sealed))).toBe(text);
    }
  });

  test("open to nothing where any part was tampered with", () => {
    for (const { why, dataKey, place, sealed } of vectors.seals.reject) {
      const opened = open(bytes(dataKey), place, bytes(sealed));
      const second = independent.open(bytes(dataKey), place, bytes(sealed));
      expect({ why, opened, second }).toEqual({ why, opened: null, second: null });
    }
  });

  test("with a forged plaintext are refused for it, and not for their tag", () => {
    const forged = vectors.seals.reject.filter(({ why }) => /padding|plaintext|UTF-8/.test(why));
    expect(forged.length).toBe(14);
    for (const { why, dataKey, place, sealed } of forged) {
      const decrypted = independent.decrypt(bytes(dataKey), place, bytes(sealed));
      expect({ why, decrypts: decrypted !== null }).toEqual({ why, decrypts: true });
    }
  });
});

describe("proofs", () => {
  test("are those of the vectors and of node:crypto", () => {
    for (const { verifyKey, id, dataKey, proof } of vectors.proofs.accept) {
      expect(hex(proveDataKey(bytes(verifyKey), id, bytes(dataKey)))).toBe(proof);
      expect(checkProof(bytes(verifyKey), id, bytes(dataKey), bytes(proof))).toBe(true);
      expect(hex(independent.prove(bytes(verifyKey), id, bytes(dataKey)))).toBe(proof);
    }
  });

  test("are refused where any part is another", () => {
    for (const { why, verifyKey, id, dataKey, proof } of vectors.proofs.reject) {
      const good = checkProof(bytes(verifyKey), id, bytes(dataKey), bytes(proof));
      const second = hex(independent.prove(bytes(verifyKey), id, bytes(dataKey))) === proof;
      expect({ why, good, second }).toEqual({ why, good: false, second: false });
    }
  });
});

describe("wrapped data keys", () => {
  test("open with each of their identities, alone or among others", async () => {
    for (const { kind, recipients, identities, dataKey, wrapped } of vectors.wrapped.files) {
      expect(recipients.map(recipientKind)).toEqual(recipients.map(() => kind));
      expect(identities.every(isIdentity)).toBe(true);
      for (const identity of identities) {
        expect(hex((await unwrapDataKey(bytes(wrapped), [identity]))!)).toBe(dataKey);
      }
      expect(hex((await unwrapDataKey(bytes(wrapped), identities))!)).toBe(dataKey);
    }
  });

  test("hold the key of the seals and proofs, so that a chain can be followed to its end", () => {
    const keys = new Set(vectors.wrapped.files.map((file) => file.dataKey));
    expect([...keys]).toEqual([vectors.seals.accept[0]!.dataKey]);
    expect([...keys]).toEqual([vectors.proofs.accept[0]!.dataKey]);
  });
});

describe("the audit's chain", () => {
  test("is that of the vectors and of node:crypto, entry by entry", () => {
    expect(hex(genesisHash(vectors.audit.chain))).toBe(vectors.audit.genesis);
    expect(independent.auditGenesis(vectors.audit.chain)).toBe(vectors.audit.genesis);
    let previous = vectors.audit.genesis;
    for (const vector of vectors.audit.entries) {
      const entry: AuditEntry = {
        ...vector,
        id: BigInt(vector.id),
        at: vector.at === null ? null : BigInt(vector.at),
      };
      expect(hex(entryBytes(entry))).toBe(vector.bytes);
      expect(independent.auditBytes(vector)).toBe(vector.bytes);
      const { position, hash } = vector;
      expect(hex(chainHash(bytes(previous), BigInt(position), entry))).toBe(hash);
      expect(independent.auditHash(previous, position, vector.bytes)).toBe(hash);
      previous = hash;
    }
  });

  const read = (vector: (typeof vectors.audit.accept)[number]) => ({
    ...vector,
    position: BigInt(vector.position),
    entry: BigInt(vector.entry),
    hash: bytes(vector.hash),
    marks: vector.marks.map(([position, hash]) => ({
      position: BigInt(position!),
      hash: bytes(hash!),
    })),
  });
  const keyOf = (line: string): AuditKey => parseAuditKey(line)!;

  test("is signed as in the vectors", async () => {
    for (const vector of vectors.audit.accept) {
      const { secretKey, signature } = vector;
      expect(formatAuditKey(await publicKey(keyOf(secretKey)))).toBe(vector.publicKey);
      expect(hex(await signCheckpoint(keyOf(secretKey), read(vector)))).toBe(signature);
      expect(independent.checkpointBytes(vector)).toBe(vector.bytes);
      for (const line of [secretKey, vector.publicKey]) {
        expect(await verifyCheckpoint(keyOf(line), read(vector), bytes(signature))).toBe(true);
      }
      expect(independent.checkpointHolds(vector)).toBe(true);
    }
  });

  test("is refused where anything that is signed is another", async () => {
    for (const vector of vectors.audit.reject) {
      const { why, signature } = vector;
      const good = await verifyCheckpoint(keyOf(vector.publicKey), read(vector), bytes(signature));
      const second = independent.checkpointHolds(vector);
      expect({ why, good, second }).toEqual({ why, good: false, second: false });
    }
  });

  test("has keys whose lines say which is the secret one, and near misses are none", async () => {
    const { secretKey, publicKey: line } = vectors.audit.accept[0]!;
    expect([keyOf(secretKey).kind, keyOf(line).kind]).toEqual(["secret", "public"]);
    for (const wrong of [
      ...["", "audit-secret:", "audit-secret", secretKey.slice(6), ` ${secretKey}`],
      ...[secretKey.toUpperCase(), `${secretKey}\n`, secretKey.replace("=", ""), `${line}=`],
      ...[line.replace("public", "private"), line.slice(0, -2), `1:${line.split(":")[1]}`],
    ]) {
      expect([wrong, parseAuditKey(wrong)]).toEqual([wrong, null]);
    }
    await expect(signCheckpoint(keyOf(line), read(vectors.audit.accept[0]!))).rejects.toThrow(
      "secret",
    );
  });
});

const python = Bun.which("python3");

describe("other tools", () => {
  const folder = mkdtempSync(join(tmpdir(), "veil-vectors-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const run = (command: string[]) => {
    const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd: folder });
    return { exitCode, stdout, stderr: stderr.toString() };
  };
  const pythonRuns = (program: string): boolean =>
    python !== null && run([python, "-c", program]).exitCode === 0;

  test.skipIf(!pythonRuns("import sys; sys.exit(sys.version_info < (3, 9, 5))"))(
    "Python's standard library agrees with every vector (skipped without python3 3.9.5)",
    () => {
      const { exitCode, stdout, stderr } = run([python!, "-B", pathOf("check.py")]);
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
      expect(stdout.toString().trim().split("\n").length).toBe(8);
    },
  );

  test.skipIf(!pythonRuns("import cryptography.hazmat.primitives.asymmetric.mlkem"))(
    "the age format by hand opens every wrapped key (skipped without Python's cryptography 48)",
    () => {
      const { exitCode, stdout } = run([python!, "-B", pathOf("check_wrapped.py")]);
      expect({ exitCode, opened: stdout.toString().match(/: opens$/gm)?.length }).toEqual({
        exitCode: 0,
        opened: vectors.wrapped.files.flatMap((file) => file.identities).length,
      });
    },
  );

  const age = Bun.which("age");
  const version = age === null ? "" : run([age, "--version"]).stdout.toString();
  const [, major = "0", minor = "0"] = /([0-9]+)\.([0-9]+)/.exec(version) ?? [];
  const knowsPostQuantum = Number(major) > 1 || Number(minor) >= 3;
  for (const [index, file] of vectors.wrapped.files.entries()) {
    const isPossible = age !== null && (file.kind === "classic" || knowsPostQuantum);
    const needed = file.kind === "classic" ? "age" : "age 1.3";
    test.skipIf(!isPossible)(
      `the age tool opens wrapped key ${index}, ${file.kind} (skipped without ${needed} on PATH)`,
      () => {
        const sealed = join(folder, `${index}.age`);
        writeFileSync(sealed, bytes(file.wrapped));
        for (const identity of file.identities) {
          const identities = join(folder, "identity.txt");
          writeFileSync(identities, `# TEST KEY\n${identity}\n`);
          const { exitCode, stdout } = run([age!, "--decrypt", "-i", identities, sealed]);
          expect({ exitCode, dataKey: hex(stdout) }).toEqual({
            exitCode: 0,
            dataKey: file.dataKey,
          });
        }
      },
    );
  }
});
