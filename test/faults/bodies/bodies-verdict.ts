// The verdict on a run of hostile bodies: what the database holds, against what each body has to become
// by a second reading of the rules (hostile-verdict.ts) and a second computation of tokens and seals.
import { createHash } from "node:crypto";
import type postgres from "postgres";
import { expectedRow, openSeal, tokensOf, unwrap } from "../../line/expected.ts";
import type { Summary } from "../../line/stored.ts";
import type { TestKeys } from "../../support/keys.ts";
import type { Front } from "./bodies-front.ts";
import { hostile } from "./hostile.ts";
import { judge } from "./hostile-verdict.ts";

export type Run = {
  readonly seed: number;
  readonly count: number;
  readonly sql: postgres.Sql;
  readonly keys: TestKeys;
  readonly front: Front;
  readonly summary: Summary;
};

export type Verdict = {
  readonly rows: number;
  readonly quarantined: number;
  readonly neighbours: number;
  /** Empty: all is as it has to be. Each names bodies by their number, and quotes none. */
  readonly findings: readonly string[];
};

/** All that a reason may say: names of fields and types. Nothing of a body fits in. */
const REASONS = new RegExp(
  `^(?:${[
    "(?:the body|the message in its SNS envelope) is (?:not JSON|(?:null|an? (?:array|string|number|boolean)), expected an object)",
    "this is another type of message: it has none of a login's fields",
    "user_id is (?:missing|empty)",
    "FIELD is (?:an? (?:array|object|number|boolean)), expected a string",
    "FIELD holds a (?:lone surrogate|NUL character)",
    "FIELD is ambiguous: two paths of the message lead to it",
    "(?:user_id is longer than 128|(?:device_type|locale) is longer than 32) characters",
    "(?:ip|device_id) is longer than 1024 bytes",
    "app_version is (?:not written as a version|not a whole number|out of range: parts go up to 999, the first up to 2146)",
  ]
    .join("|")
    .replaceAll("FIELD", "(?:user_id|app_version|device_type|ip|locale|device_id)")})$`,
);
export const quotesNothing = (reason: string): boolean => REASONS.test(reason);

export async function judgeRun(run: Run): Promise<Verdict> {
  const findings: string[] = [];
  const found = (what: string, bodies: readonly (number | string)[]) => {
    if (bodies.length === 0) return;
    const some = bodies.slice(0, 5).join(", ");
    findings.push(`${bodies.length} ${what}: ${some}${bodies.length > 5 ? " …" : ""}`);
  };
  const { sql, summary, front, count } = run;
  const wanted = await expectations(run);
  const rows = await compareRows(sql, wanted, found);
  const quarantined = await compareQuarantine(run, wanted, found);
  const originals = await compareOriginals(run, wanted, found);
  const [ledger] = await sql`
    select count(*)::integer as all, count(distinct message_id)::integer as ids from etl.ledger`;
  const books: Record<string, readonly [number, number]> = {
    "bodies sent": [front.bodyOf.size, count],
    "ids in the ledger": [Number(ledger?.ids), count],
    "ledger entries": [Number(ledger?.all), count],
    "received, against deliveries": [summary.received, front.deliveries()],
    "received, against loaded + duplicates + quarantined": [
      summary.received,
      summary.loaded + summary.duplicates + summary.quarantined,
    ],
    acknowledged: [summary.acknowledged, summary.received],
    "loaded, against rows": [summary.loaded, rows],
    "quarantined, against entries": [summary.quarantined, quarantined],
    duplicates: [summary.duplicates, summary.received - count],
    "new originals": [summary.newOriginals, originals],
  };
  for (const [name, [is, ought]] of Object.entries(books)) {
    if (is !== ought) findings.push(`${name}: ${is}, expected ${ought}`);
  }
  return { rows, quarantined, neighbours: wanted.neighbours, findings };
}

type Found = (what: string, bodies: readonly (number | string)[]) => void;

type Expectations = {
  /** Bodies by the digest of the row that each has to become. */
  readonly rows: Map<string, number[]>;
  /** Bodies that have to be quarantined. */
  readonly quarantine: Set<number>;
  readonly tokens: ReadonlySet<string>;
  readonly neighbours: number;
};

const digest = (row: object): string =>
  createHash("sha256")
    .update(JSON.stringify(Object.entries(row).sort()))
    .digest("base64");

async function expectations({ seed, keys, front }: Run): Promise<Expectations> {
  const tokens = tokensOf(keys.VEIL_TOKEN_KEY);
  const rows = new Map<string, number[]>();
  const quarantine = new Set<number>();
  const known = new Set<string>();
  let neighbours = 0;
  for (const [id, n] of front.bodyOf) {
    const { kind, body } = hostile(seed, n);
    const login = judge(body);
    if (kind === "neighbours") {
      neighbours++;
      if (login === null) throw new Error(`body ${n} was to be a login, and is none`);
    }
    if (login === null) {
      quarantine.add(n);
      continue;
    }
    const row = expectedRow(login, front.sentAt.get(id) ?? Number.NaN, tokens);
    const key = digest(row);
    rows.set(key, [...(rows.get(key) ?? []), n]);
    for (const token of [row.masked_ip, row.masked_device_id]) if (token !== null) known.add(token);
  }
  return { rows, quarantine, tokens: known, neighbours };
}

async function compareRows(sql: postgres.Sql, wanted: Expectations, found: Found): Promise<number> {
  let rows = 0;
  const unexpected: string[] = [];
  const missing = new Map([...wanted.rows].map(([key, bodies]) => [key, [...bodies]]));
  await sql`
    select user_id, device_type, masked_ip, masked_device_id, locale, app_version,
      create_date::text as create_date
    from public.user_logins`.cursor(1000, (part) => {
    for (const row of part) {
      rows++;
      const bodies = missing.get(digest(row));
      // A user's name is ours or hostile: neither is a person's.
      if (bodies?.pop() === undefined) unexpected.push(JSON.stringify(row.user_id).slice(0, 60));
    }
  });
  found("bodies that had to be a row have none, or another", [...missing.values()].flat());
  found("rows that belong to no body, of user", unexpected);
  return rows;
}

async function compareQuarantine(run: Run, wanted: Expectations, found: Found): Promise<number> {
  const { sql, seed, keys, front } = run;
  const left = new Set(wanted.quarantine);
  const dataKeys = new Map<string, Uint8Array>();
  for (const { id, wrapped } of await sql`select id::text, wrapped from pii_vault.data_keys`) {
    dataKeys.set(id, await unwrap(wrapped, keys.VEIL_IDENTITY));
  }
  let entries = 0;
  const wrong = { unexpected: [] as number[], reason: [] as number[], body: [] as number[] };
  await sql`
    select message_id, sent_at, reason, state, sealed, data_key::text as key
    from etl.quarantine`.cursor(50, (part) => {
    for (const { message_id, sent_at, reason, state, sealed, key } of part) {
      entries++;
      const n = front.bodyOf.get(message_id) ?? -1;
      if (!left.delete(n) || state !== "open") wrong.unexpected.push(n);
      if (!quotesNothing(reason)) wrong.reason.push(n);
      const place: Parameters<typeof openSeal> = [
        dataKeys.get(key)!,
        "veil/v1/quarantine",
        message_id,
        sealed,
      ];
      const sent = n < 0 ? null : hostile(seed, n).body;
      if (opened(place) !== sent || sent_at.getTime() !== front.sentAt.get(message_id)) {
        wrong.body.push(n);
      }
    }
  });
  found("bodies are in the quarantine that had to be a row, or are there twice", wrong.unexpected);
  found("bodies that had to be quarantined are not", [...left]);
  found("quarantine entries give a reason that is none of ours", wrong.reason);
  found("quarantine entries do not open to the very body that was sent", wrong.body);
  return entries;
}

async function compareOriginals(run: Run, wanted: Expectations, found: Found): Promise<number> {
  const tokens = tokensOf(run.keys.VEIL_TOKEN_KEY);
  const left = new Set(wanted.tokens);
  const dataKeys = new Map<string, Uint8Array>();
  for (const { id, wrapped } of await run.sql`select id::text, wrapped from pii_vault.data_keys`) {
    dataKeys.set(id, await unwrap(wrapped, run.keys.VEIL_IDENTITY));
  }
  let originals = 0;
  const unknown: string[] = [];
  const wrong: string[] = [];
  await run.sql`
    select token, sealed, data_key::text as key from pii_vault.originals`.cursor(1000, (part) => {
    for (const { token, sealed, key } of part) {
      originals++;
      if (!left.delete(token)) unknown.push(token);
      const original = opened([dataKeys.get(key)!, "veil/v1/original", token, sealed]);
      const field = token.startsWith("ip") ? "ip" : "device_id";
      if (original === null || tokens[field](original) !== token) wrong.push(token);
    }
  });
  found("tokens of rows have no original", [...left]);
  found("originals belong to no row", unknown);
  found("originals do not open, or to another token's value", wrong);
  return originals;
}

function opened(place: Parameters<typeof openSeal>): string | null {
  try {
    return openSeal(...place);
  } catch {
    return null;
  }
}
