// The file of checkpoints, outside of the database: a line of JSON each, the oldest first. A line
// is added when the whole chain has been verified against the lines before it.
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { decodeBase64, encodeBase64 } from "../../vault/bytes.ts";
import {
  type AuditKey,
  type Checkpoint,
  type Mark,
  MOST_MARKS,
  publicKey,
  signCheckpoint,
  verifyCheckpoint,
} from "../../vault/checkpoint.ts";
import { failed, misuse } from "../failure.ts";

const FORMAT = "veil/v1/audit-checkpoint";

/** As one line. */
export async function writeLine(key: AuditKey, checkpoint: Checkpoint): Promise<string> {
  const { chain, position, entry, hash, madeAt, marks } = checkpoint;
  const signature = await signCheckpoint(key, checkpoint);
  const signer = await publicKey(key);
  return `${JSON.stringify({
    format: FORMAT,
    chain,
    position: String(position),
    entry: String(entry),
    hash: hex(hash),
    madeAt,
    publicKey: encodeBase64(signer.bytes),
    marks: marks.map((mark) => [String(mark.position), hex(mark.hash)]),
    signature: encodeBase64(signature),
  })}\n`;
}

/**
 * Every checkpoint of the file. Throws unless this key has signed each of them, and they are in
 * order.
 */
export async function readCheckpoints(path: string, key: AuditKey): Promise<readonly Checkpoint[]> {
  const lines = readText(path).split("\n");
  // A line is complete only with its end: half a line means that the file was cut short.
  if (lines.pop() !== "") {
    throw refused(path, lines.length + 1, "is not whole: the file was cut short");
  }
  const signer = await publicKey(key);
  const checkpoints: Checkpoint[] = [];
  for (const [i, line] of lines.entries()) {
    const parsed = parseLine(line);
    if (parsed === null) throw refused(path, i + 1, "is no checkpoint");
    if (hex(parsed.signer) !== hex(signer.bytes)) {
      const hint = `is VEIL_AUDIT_KEY of the pair that signs these? If it is, ${UNTOUCHED}`;
      throw refused(path, i + 1, "is signed with another key than VEIL_AUDIT_KEY", hint);
    }
    if (!(await verifyCheckpoint(signer, parsed.checkpoint, parsed.signature))) {
      throw refused(path, i + 1, "is forged: its signature does not fit what it says");
    }
    checkpoints.push(parsed.checkpoint);
    const before = checkpoints.at(-2);
    if (before !== undefined && before.position > parsed.checkpoint.position) {
      throw refused(path, i + 1, "signs less than the one before it");
    }
  }
  return checkpoints;
}

const UNTOUCHED =
  "take the file from where nobody else can write, as `veil audit checkpoint` left it";

const refused = (path: string, line: number, what: string, hint = UNTOUCHED) =>
  failed(`checkpoint ${line} of ${path} ${what}`, hint);

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw misuse(
      `cannot read the checkpoints of ${path} (${codeOf(error)})`,
      "check path and mode",
    );
  }
}

type Parsed = {
  readonly checkpoint: Checkpoint;
  readonly signer: Uint8Array;
  readonly signature: Uint8Array;
};

/** Null for whatever `writeLine` does not write. */
function parseLine(line: string): Parsed | null {
  const json = parseJson(line);
  if (json?.format !== FORMAT) return null;
  const { chain, madeAt } = json;
  const position = readPosition(json.position);
  const entry = readPosition(json.entry);
  const hash = readHash(json.hash);
  const marks = readMarks(json.marks);
  const signer = readBase64(json.publicKey, 32);
  const signature = readBase64(json.signature, 64);
  if (typeof chain !== "string" || !UUID.test(chain)) return null;
  if (typeof madeAt !== "string" || !TIME.test(madeAt)) return null;
  if (position === null || entry === null || hash === null || marks === null) return null;
  if (signer === null || signature === null) return null;
  return { checkpoint: { chain, position, entry, hash, madeAt, marks }, signer, signature };
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

function parseJson(line: string): Readonly<Record<string, unknown>> | null {
  try {
    const json: unknown = JSON.parse(line);
    return typeof json === "object" ? (json as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

const readPosition = (value: unknown): bigint | null =>
  typeof value === "string" && /^(?:0|[1-9][0-9]{0,17})$/.test(value) ? BigInt(value) : null;

const readHash = (value: unknown): Uint8Array | null =>
  typeof value === "string" && /^[0-9a-f]{64}$/.test(value)
    ? new Uint8Array(Buffer.from(value, "hex"))
    : null;

function readBase64(value: unknown, length: number): Uint8Array | null {
  const bytes = typeof value === "string" ? decodeBase64(value) : null;
  return bytes?.length === length ? bytes : null;
}

function readMarks(value: unknown): readonly Mark[] | null {
  if (!Array.isArray(value) || value.length > MOST_MARKS) return null;
  const marks: Mark[] = [];
  for (const pair of value) {
    const position = readPosition(pair?.[0]);
    const hash = readHash(pair?.[1]);
    if (position === null || hash === null) return null;
    marks.push({ position, hash });
  }
  return marks;
}

/**
 * The line is on disk when this returns, or not in the file. It is appended, so that the file may
 * be one that nothing can be taken away from.
 */
export function addLine(path: string, line: string): void {
  try {
    append(path, line);
  } catch (error) {
    throw failed(
      `cannot write to ${path} (${codeOf(error)}); no checkpoint was added`,
      "check path and mode",
    );
  }
}

function append(path: string, line: string): void {
  const isNew = !existsSync(path);
  const file = openSync(path, "a", 0o644);
  try {
    const { size } = fstatSync(file);
    try {
      if (writeSync(file, line) !== Buffer.byteLength(line)) throw new Error("short write");
      fsyncSync(file);
    } catch (error) {
      ftruncateSync(file, size);
      throw error;
    }
  } finally {
    closeSync(file);
  }
  if (isNew) syncFolder(dirname(path));
}

/** A new file's name is part of its folder, and has to be on disk too. */
function syncFolder(folder: string): void {
  if (process.platform === "win32") return; // opens no folders
  const opened = openSync(folder, "r");
  try {
    fsyncSync(opened);
  } finally {
    closeSync(opened);
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : "unknown";
