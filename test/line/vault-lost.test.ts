// Originals that this process has seen stored are not sent again: what that saves, and what happens where the
// vault has lost one of them.
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type postgres from "postgres";
import { checkInvariant, INVARIANTS } from "../../src/check.ts";
import { Failure } from "../../src/failure.ts";
import { KnownOriginals } from "../../src/line/known-originals.ts";
import type { StoredPart } from "../../src/line/protect-and-load.ts";
import type { LoginRow } from "../../src/login/protect.ts";
import type { Message } from "../../src/sqs/queue.ts";
import { type Host, makeHost } from "../sql/host.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { storeMessages } from "../support/store-messages.ts";

/** Tells how many originals each committed load carried. */
class Watched extends KnownOriginals {
  readonly sent: number[] = [];
  clears = 0;
  override addAll(rows: readonly LoginRow[], sent: ReadonlyMap<string, unknown>): void {
    this.sent.push(sent.size);
    super.addAll(rows, sent);
  }
  override clear(): void {
    this.clears++;
    super.clear();
  }
}

let database: TestDatabase;
let owner: postgres.Sql;
let host: Host;
let knownOriginals: Watched;
beforeAll(async () => {
  database = await createDatabase();
  owner = database.sql(database.ownerUrl);
  host = await makeHost();
});
beforeEach(() => {
  knownOriginals = new Watched();
});
afterAll(() => database?.drop());

const login = (ip: string, device: string): Message => ({
  id: randomUUID(),
  body: JSON.stringify({ user_id: "u", ip, device_id: device }),
  sentAt: new Date(),
  receipt: randomUUID(),
});

async function storeAll(...messages: Message[]): Promise<StoredPart[]> {
  const { subkeys, dataKeys } = host;
  const etl = database.open(database.url("etl"));
  return await storeMessages({ database: etl, subkeys, dataKeys, knownOriginals }, messages, 0);
}

const tokens = (ip: string, device: string) => [
  host.token("ip", ip),
  host.token("device_id", device),
];

async function inVault(wanted: readonly string[]): Promise<number> {
  const [row] = await owner`
    select count(*)::integer as originals from pii_vault.originals where token = any(${wanted})`;
  return Number(row?.originals);
}

async function expectSound(): Promise<void> {
  const auditor = database.open(database.ownerUrl);
  for (const invariant of INVARIANTS) {
    const { name } = invariant;
    const finding = await checkInvariant(auditor, invariant);
    expect({ name, offenders: finding.offenders }).toEqual({ name, offenders: 0 });
  }
}

test("what was stored once is not sent again, and its rows have their tokens all the same", async () => {
  await storeAll(login("203.0.113.1", "a"), login("203.0.113.1", "b"));
  const [again] = await storeAll(login("203.0.113.1", "a"), login("203.0.113.2", "b"));
  expect(knownOriginals.sent).toEqual([3, 1]);
  expect(again!.result).toMatchObject({ loaded: 2, newOriginals: 1 });
  const [row] = await owner`
    select count(*)::integer as rows from public.user_logins
    where masked_ip = ${host.token("ip", "203.0.113.1")}`;
  expect(row?.rows).toBe(3);
  await expectSound();
});

test("an original that the vault has lost meanwhile is sent again, with all of its batch", async () => {
  const lost = tokens("203.0.113.3", "c");
  await storeAll(login("203.0.113.3", "c"), login("203.0.113.4", "d"));
  await owner.unsafe("set session_replication_role = replica");
  await owner`delete from pii_vault.originals where token = any(${lost})`;
  await owner.unsafe("set session_replication_role = origin");
  const [stored, ...rest] = await storeAll(
    login("203.0.113.3", "c"),
    login("203.0.113.4", "d"),
    login("203.0.113.5", "e"),
  );
  expect(rest).toEqual([]);
  expect(stored!.result).toMatchObject({ loaded: 3, newOriginals: 4 });
  expect({ sent: knownOriginals.sent, clears: knownOriginals.clears }).toEqual({
    sent: [4, 6],
    clears: 1,
  });
  expect(await inVault(lost)).toBe(2);
  await expectSound();
});

test("what did not commit is not taken for stored", async () => {
  await owner.unsafe(
    "alter table public.user_logins add constraint test check (user_id <> 'u') not valid",
  );
  try {
    await expect(storeAll(login("203.0.113.6", "f"))).resolves.toBeDefined();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
  } finally {
    await owner.unsafe("alter table public.user_logins drop constraint test");
  }
  const before = knownOriginals.sent.reduce((sum, sent) => sum + sent, 0);
  await storeAll(login("203.0.113.6", "f"));
  expect({ before, sent: knownOriginals.sent.at(-1) }).toEqual({ before: 0, sent: 2 });
  expect(await inVault(tokens("203.0.113.6", "f"))).toBe(2);
});
