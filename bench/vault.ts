// `bun run bench:vault`: tokens, seals and wraps per second, beside the same bytes by node:crypto.
// Options: --milliseconds N (how long each is timed in a round, 500), --rounds N (5), --json.
import { parseArgs } from "node:util";
import { native } from "../src/keys/native.ts";
import { generateIdentity } from "../vault/age.ts";
import { generateDataKey, unwrapDataKey, wrapDataKey } from "../vault/data-key.ts";
import { deriveSubkeys, generateTokenKey } from "../vault/keys.ts";
import { open, seal } from "../vault/seal.ts";
import { makeToken } from "../vault/token.ts";
import { loginBody } from "./logins.ts";
import { describeMachine, veilCommit } from "./machine.ts";
import * as node from "./node-crypto.ts";
import { type Spread, spreadOf } from "./spread.ts";

/** Different values in turn: nothing may be gained by remembering one. */
const VALUES = 1000;

const { values: options } = parseArgs({
  options: {
    milliseconds: { type: "string", default: "500" },
    rounds: { type: "string", default: "5" },
    json: { type: "boolean", default: false },
  },
});
const milliseconds = Number(options.milliseconds);
const rounds = Number(options.rounds);

const subkeys = deriveSubkeys(generateTokenKey());
const dataKey = generateDataKey(1);
const { identity, recipient } = await generateIdentity("classic");
const postQuantum = await generateIdentity("post-quantum");
const nodeRecipient = node.readRecipient(recipient);

const originals = Array.from({ length: VALUES }, (_, n) => {
  const { ip, device_id } = JSON.parse(loginBody("new", n + 1));
  const token = makeToken(subkeys, "ip", ip);
  const sealed = seal(dataKey.bytes, { kind: "original", token }, ip);
  return { ip, deviceId: device_id, token, sealed } as {
    ip: string;
    deviceId: string;
    token: string;
    sealed: Uint8Array;
  };
});
const at = (i: number) => originals[i % VALUES]!;
const place = (token: string) => ({ kind: "original", token }) as const;

type Work = (i: number) => unknown;
type Operation = { readonly name: string; readonly veil: Work; readonly node: Work | null };

const OPERATIONS: readonly Operation[] = [
  {
    name: "token of an ip",
    veil: (i) => makeToken(subkeys, "ip", at(i).ip),
    node: (i) => node.makeToken(subkeys, "ip", at(i).ip),
  },
  {
    name: "token of a device_id",
    veil: (i) => makeToken(subkeys, "device_id", at(i).deviceId),
    node: (i) => node.makeToken(subkeys, "device_id", at(i).deviceId),
  },
  {
    name: "seal",
    veil: (i) => seal(dataKey.bytes, place(at(i).token), at(i).ip),
    node: (i) => node.seal(dataKey.bytes, at(i).token, at(i).ip),
  },
  {
    name: "the line's token of an ip",
    veil: (i) => makeToken(subkeys, "ip", at(i).ip, native),
    node: (i) => node.makeToken(subkeys, "ip", at(i).ip),
  },
  {
    name: "the line's seal",
    veil: (i) => seal(dataKey.bytes, place(at(i).token), at(i).ip, undefined, native),
    node: (i) => node.seal(dataKey.bytes, at(i).token, at(i).ip),
  },
  {
    name: "open",
    veil: (i) => open(dataKey.bytes, place(at(i).token), at(i).sealed),
    node: (i) => node.open(dataKey.bytes, at(i).token, at(i).sealed),
  },
  {
    name: "wrap, X25519",
    veil: () => wrapDataKey(dataKey, [recipient], subkeys.verify),
    node: () => node.wrap(dataKey, nodeRecipient, subkeys.verify),
  },
  {
    name: "wrap, post-quantum",
    veil: () => wrapDataKey(dataKey, [postQuantum.recipient], subkeys.verify),
    node: null, // its ML-KEM is too new to be everywhere
  },
];

/** Both give the same bytes, or open each other's. */
async function requireSame(): Promise<void> {
  for (const { ip, deviceId, token, sealed } of originals.slice(0, 10)) {
    if (token !== node.makeToken(subkeys, "ip", ip)) throw new Error("tokens of ips differ");
    const deviceToken = makeToken(subkeys, "device_id", deviceId);
    if (deviceToken !== node.makeToken(subkeys, "device_id", deviceId)) {
      throw new Error("tokens of device ids differ");
    }
    const byNode = node.seal(dataKey.bytes, token, ip);
    if (open(dataKey.bytes, place(token), byNode) !== ip) throw new Error("veil cannot open");
    if (node.open(dataKey.bytes, token, sealed) !== ip) throw new Error("node:crypto cannot open");
  }
  const { wrapped, proof } = node.wrap(dataKey, nodeRecipient, subkeys.verify);
  const unwrapped = await unwrapDataKey(wrapped, [identity]);
  if (!unwrapped || !dataKey.bytes.every((byte, i) => byte === unwrapped[i])) {
    throw new Error("veil cannot unwrap");
  }
  const made = await wrapDataKey(dataKey, [recipient], subkeys.verify);
  if (!made.proof.every((byte, i) => byte === proof[i])) throw new Error("proofs differ");
}

async function perSecond(work: Work, duration: number): Promise<number> {
  const started = performance.now();
  let times = 0;
  for (;;) {
    for (let i = 0; i < 10; i++) {
      const done = work(times++);
      if (done instanceof Promise) await done;
    }
    const elapsed = performance.now() - started;
    if (elapsed >= duration) return times / (elapsed / 1000);
  }
}

type Row = {
  readonly name: string;
  readonly veil: Spread;
  readonly node: Spread | null;
  /** Of the same round. */
  readonly ratio: Spread | null;
};

async function measure({ name, veil, node }: Operation): Promise<Row> {
  const rates: { veil: number; node: number | null }[] = [];
  for (let round = 0; round <= rounds; round++) {
    const measured = {
      veil: await perSecond(veil, milliseconds),
      node: node && (await perSecond(node, milliseconds)),
    };
    if (round > 0) rates.push(measured); // the first one warms up
  }
  const compared = rates.filter((rate) => rate.node !== null) as { veil: number; node: number }[];
  return {
    name,
    veil: spreadOf(rates.map((rate) => rate.veil))!,
    node: spreadOf(compared.map((rate) => rate.node)),
    ratio: spreadOf(compared.map((rate) => rate.veil / rate.node)),
  };
}

function format(rows: readonly Row[]): string {
  const { date, cpu, cores } = machine;
  const count = (rate: Spread | null) =>
    (rate === null ? "–" : Math.round(rate.median).toLocaleString("en")).padStart(12);
  const lines = rows.map(({ name, veil, node, ratio }) => {
    const ratioText = ratio === null ? "–" : ratio.median.toFixed(2);
    return `${name.padEnd(28)}${count(veil)}${count(node)}${ratioText.padStart(8)}`;
  });
  return [
    `${date}: ${cpu}, ${cores} cores; bun ${versions.bun}, veil ${versions.veil ?? "unknown"}`,
    `per second, medians of ${rounds} rounds of ${milliseconds} ms`,
    "",
    `${"".padEnd(28)}${"veil".padStart(12)}${"node:crypto".padStart(12)}${"ratio".padStart(8)}`,
    ...lines,
    "",
  ].join("\n");
}

const machine = describeMachine();
const versions = { bun: Bun.version, veil: veilCommit() };
await requireSame();
const rows: Row[] = [];
for (const operation of OPERATIONS) rows.push(await measure(operation));
process.stdout.write(
  options.json
    ? `${JSON.stringify({ machine, versions, rounds, milliseconds, operations: rows })}\n`
    : format(rows),
);
