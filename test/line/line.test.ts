// The whole line at once: ten thousand messages through real servers, and everything that came of
// them held against a second calculation (expected.ts).
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys, type TestKeys } from "../support/keys.ts";
import { createQueue } from "../support/servers.ts";
import { veil } from "../support/veil.ts";
import { type CorpusMessage, message } from "./corpus.ts";
import { type ExpectedRow, expectedRow, openSeal, tokensOf, unwrap } from "./expected.ts";
import { type Front, startFront } from "./front.ts";
import { multiset, remaining, rowsOf, type Summary, summary, totalsOf } from "./stored.ts";

const MESSAGES = 10_000;

type SentMessage = CorpusMessage & { readonly id: string; readonly sentAt: number };

let database: TestDatabase;
let keys: TestKeys;
let front: Front;
let queue: Awaited<ReturnType<typeof createQueue>>;
const sent: SentMessage[] = [];
const summaries: Summary[] = [];

beforeAll(async () => {
  database = await createDatabase();
  keys = await makeKeys();
  queue = await createQueue();
  const byId = new Map<string, SentMessage & { readonly again: boolean }>();
  front = await startFront({
    rewrite: (id) => byId.get(id) ?? null,
    deliversAgain: (id) => byId.get(id)?.again ?? false,
  });
  const today = Math.floor(Date.now() / 86_400_000) * 86_400_000;
  const send = (n: number, secondHalf: boolean) => {
    const content = message(n, secondHalf);
    for (let copy = 0; copy < (n % 20 === 3 ? 2 : 1); copy++) {
      // SQS takes characters beyond U+FFFF, fauxqs does not: the front puts the body back.
      const id = queue.send(content.body.replace(/[\ud800-\udfff]/g, "?"));
      // The last moments of a day and the first of the next, over twelve days.
      const at = today - (n % 12) * 86_400_000 + (n % 40) - 20;
      const one = { ...content, id, sentAt: at };
      byId.set(id, { ...one, again: n % 19 === 7 });
      sent.push(one);
    }
  };
  // In two runs, so that it is known which spelling of an address the vault saw first.
  for (const half of [0, 1]) {
    for (let n = (half * MESSAGES) / 2; n < ((half + 1) * MESSAGES) / 2; n++) send(n, half === 1);
    const run = await veil(["etl", "--json"], {
      env: {
        ...queue.env,
        ...front.env,
        DATABASE_URL: database.url("etl"),
        VEIL_TOKEN_KEY: keys.VEIL_TOKEN_KEY,
        VEIL_RECIPIENTS: keys.VEIL_RECIPIENTS,
        // Dates are UTC's, wherever the program runs.
        TZ: half === 0 ? "Pacific/Kiritimati" : "Pacific/Pago_Pago",
      },
    });
    expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
    summaries.push(summary(run));
  }
});
afterAll(async () => {
  await front?.stop();
  await database?.drop();
});

const total = (name: keyof Summary): number => summaries.reduce((sum, one) => sum + one[name], 0);

test("the counts add up to what was sent and delivered", async () => {
  const broken = sent.filter((one) => one.login === null).length;
  expect(broken).toBeGreaterThan(MESSAGES * 0.03);
  expect(sent.length).toBe(MESSAGES * 1.05);
  const deliveries = front.delivered.length;
  expect(deliveries - sent.length).toBeGreaterThan(MESSAGES * 0.05);
  expect({
    received: total("received"),
    loaded: total("loaded"),
    duplicates: total("duplicates"),
    quarantined: total("quarantined"),
    acknowledged: total("acknowledged"),
  }).toEqual({
    received: deliveries,
    loaded: sent.length - broken,
    duplicates: deliveries - sent.length,
    quarantined: broken,
    acknowledged: deliveries,
  });
  for (const one of summaries) {
    expect(one.received).toBe(one.loaded + one.duplicates + one.quarantined);
    expect(one.inFlight).toBe(0);
  }
});

test("the queue is empty and every message is in the ledger once", async () => {
  expect(await remaining(queue.name)).toBe(0);
  const ledger = await database.sql(database.ownerUrl)`
    select message_id, sent_on::text as sent_on from etl.ledger`;
  expect(ledger.map((row) => `${row.message_id} ${row.sent_on}`).sort()).toEqual(
    sent.map((one) => `${one.id} ${new Date(one.sentAt).toISOString().slice(0, 10)}`).sort(),
  );
});

test("every login is one row, and each row is what its message says", async () => {
  const tokens = tokensOf(keys.VEIL_TOKEN_KEY);
  const expected = sent.flatMap((one): ExpectedRow[] =>
    one.login === null ? [] : [expectedRow(one.login, one.sentAt, tokens)],
  );
  const rows = multiset(await rowsOf(database.sql(database.url("analyst"))));
  expect(rows.length).toBe(expected.length);
  expect(new Set(expected.map((row) => row.create_date)).size).toBeGreaterThan(11);
  expect(rows).toEqual(multiset(expected));
});

test("every token opens to the original that was sent first, byte for byte", async () => {
  const tokens = tokensOf(keys.VEIL_TOKEN_KEY);
  const originals = new Map<string, { field: string; original: string }>();
  // Once in each month, as the periods are.
  const sealed = new Set<string>();
  for (const { login, sentAt } of sent) {
    for (const field of ["ip", "device_id"] as const) {
      const original = login?.[field];
      if (!original) continue;
      const token = tokens[field](original);
      sealed.add(`${token} ${new Date(sentAt).toISOString().slice(0, 7)}`);
      if (!originals.has(token)) originals.set(token, { field, original });
    }
  }
  expect(total("newOriginals")).toBe(sealed.size);
  expect((await totalsOf(database.sql(database.ownerUrl))).originals).toBe(sealed.size);
  const asked = [...originals.keys()];
  const run = await veil(["reveal", "-", "--json"], {
    env: {
      DATABASE_URL: database.url("revealer"),
      VEIL_IDENTITY: keys.VEIL_IDENTITY,
      VEIL_VERIFY_KEY: keys.VEIL_VERIFY_KEY,
    },
    stdin: `${asked.join("\n")}\n`,
  });
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
  const revealed = JSON.parse(run.stdout) as Record<string, unknown>[];
  expect(revealed.map(({ sealedAt: _, ...rest }) => rest)).toEqual(
    asked.map((token) => ({ token, ...originals.get(token)!, verified: true })),
  );
}, 300_000);

test("every broken message is in the quarantine with its reason, and its body sealed whole", async () => {
  const sql = database.sql(database.ownerUrl);
  const entries = await sql`
    select q.message_id, q.sent_at, q.reason, q.state, q.sealed, k.wrapped, k.id::text as key
    from etl.quarantine q join pii_vault.data_keys k on k.id = q.data_key`;
  const dataKeys = new Map<string, Promise<Uint8Array>>();
  const opened = [];
  for (const { message_id, sent_at, reason, state, sealed, wrapped, key } of entries) {
    if (!dataKeys.has(key)) dataKeys.set(key, unwrap(wrapped, keys.VEIL_IDENTITY));
    const dataKey = await dataKeys.get(key)!;
    const body = openSeal(dataKey, "veil/v1/quarantine", message_id, sealed);
    opened.push([message_id, sent_at.getTime(), reason, state, body]);
  }
  const expected = sent.flatMap((one) =>
    one.login === null ? [[one.id, one.sentAt, one.reason, "open", one.body]] : [],
  );
  expect(new Set(expected.map(([, , reason]) => reason)).size).toBeGreaterThanOrEqual(12);
  expect(opened.sort()).toEqual(expected.sort());
});
