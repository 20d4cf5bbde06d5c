// Knows every message that was sent, and holds against it, row for row, what the database has in the end;
// and, with every delete that a consumer asks for, whether the message was stored already. Reads the
// database in streams: what it keeps itself is an id and a few bytes for each message.
import type postgres from "postgres";
import { expectedRow, type Sent, type Tokens, tokensOf } from "../../line/expected.ts";
import type { TestKeys } from "../../support/keys.ts";
import type { Delivered } from "../proxies/sqs-shared.ts";
import { DeleteWatch, dayOf } from "./delete-watch.ts";
import { Findings } from "./findings.ts";
import { type Generated, numberOf } from "./messages.ts";
import { DataKeyRing, openSealed } from "./vault-reader.ts";

export type OracleOptions = {
  readonly message: (n: number) => Generated;
  readonly sentAt: (id: string) => number;
  readonly keys: TestKeys;
  /** A superuser's connection, for long reads. */
  readonly sql: postgres.Sql;
  /** Another one, for the quick look at each delete. */
  readonly watch: postgres.Sql;
};

export type Totals = {
  rows: number;
  quarantined: number;
  ledger: number;
  originals: number;
  dataKeys: number;
};

const ROWS_AT_ONCE = 2000;

export class Oracle {
  readonly findings = new Findings();
  readonly totals: Totals = { rows: 0, quarantined: 0, ledger: 0, originals: 0, dataKeys: 0 };
  readonly #options: OracleOptions;
  readonly #tokens: Tokens;
  readonly #deletes: DeleteWatch;
  readonly #ids: string[] = [];

  constructor(options: OracleOptions) {
    this.#options = options;
    this.#tokens = tokensOf(options.keys.VEIL_TOKEN_KEY);
    this.#deletes = new DeleteWatch(options.watch, this.findings);
  }

  sent(n: number, id: string): void {
    this.#ids[n] = id;
  }

  messages(): number {
    return this.#ids.length;
  }

  /** What is deleted has to be in the ledger by then. */
  onDelete(messages: readonly Delivered[]): Promise<void> {
    return this.#deletes.look(messages);
  }

  /** After the last delivery; adds to `findings`. */
  async compare(): Promise<void> {
    const ring = new DataKeyRing(this.#options.sql, this.#options.keys, this.findings);
    await this.#compareRows();
    await this.#compareLedger();
    await this.#compareQuarantine(ring);
    await this.#compareTokens();
    await this.#compareOriginals(ring);
    this.totals.dataKeys = await ring.check();
  }

  async #compareRows(): Promise<void> {
    const seen = new Uint8Array(this.#ids.length);
    const rows = this.#options.sql`
      select user_id, device_type, masked_ip, masked_device_id, locale, app_version,
        create_date::text as create_date
      from public.user_logins`.cursor(ROWS_AT_ONCE);
    for await (const batch of rows) {
      for (const row of batch) {
        this.totals.rows++;
        const n = numberOf(String(row.user_id));
        const id = n === null ? undefined : this.#ids[n];
        const login = id === undefined ? null : this.#options.message(n!).login;
        if (id === undefined || login === null) {
          this.findings.add("wrong", "a row of no message", id ?? "unknown");
          continue;
        }
        if (seen[n!]! < 255) seen[n!]!++;
        if (seen[n!] === 2) this.findings.add("twice", "a message with more than one row", id);
        const wrong = this.#differences(login, id, row);
        if (wrong !== "") this.findings.add("wrong", `a row with another ${wrong}`, id);
      }
    }
    for (const [n, id] of this.#ids.entries()) {
      if (seen[n] === 0 && this.#options.message(n).login !== null) {
        this.findings.add("lost", "a login without a row", id);
      }
    }
  }

  #differences(login: Sent, id: string, row: Readonly<Record<string, unknown>>): string {
    const expected = expectedRow(login, this.#options.sentAt(id), this.#tokens);
    return Object.entries(expected)
      .filter(([name, value]) => row[name] !== value)
      .map(([name]) => name)
      .join(" and ");
  }

  async #compareLedger(): Promise<void> {
    const sorted = this.#ids.filter((id) => id !== undefined).sort();
    let at = 0;
    let before = "";
    const entries = this.#options.sql`
      select message_id, sent_on::text as sent_on from etl.ledger
      order by message_id collate "C"`.cursor(ROWS_AT_ONCE);
    for await (const batch of entries) {
      for (const { message_id: id, sent_on: day } of batch) {
        this.totals.ledger++;
        if (id === before) {
          this.findings.add("twice", "a message with more than one ledger entry", id);
          continue;
        }
        before = id;
        for (; at < sorted.length && sorted[at]! < id; at++) {
          this.findings.add("lost", "a message without a ledger entry", sorted[at]!);
        }
        if (sorted[at] !== id) this.findings.add("wrong", "a ledger entry of no message", id);
        else {
          at++;
          if (day !== dayOf(this.#options.sentAt(id))) {
            this.findings.add("wrong", "a ledger entry of another day", id);
          }
        }
      }
    }
    for (; at < sorted.length; at++) {
      this.findings.add("lost", "a message without a ledger entry", sorted[at]!);
    }
  }

  async #compareQuarantine(ring: DataKeyRing): Promise<void> {
    const broken = new Map<string, number>();
    for (const [n, id] of this.#ids.entries()) {
      if (id !== undefined && this.#options.message(n).login === null) broken.set(id, n);
    }
    const entries = this.#options.sql`
      select message_id, sent_at, reason, state, data_key::text as data_key, sealed
      from etl.quarantine`.cursor(ROWS_AT_ONCE);
    for await (const batch of entries) {
      for (const { message_id: id, sent_at, reason, state, data_key, sealed } of batch) {
        this.totals.quarantined++;
        const n = broken.get(id);
        broken.delete(id);
        const expected = n === undefined ? null : this.#options.message(n);
        if (expected === null || expected.login !== null) {
          this.findings.add("wrong", "a quarantine entry of what could have been a row", id);
          continue;
        }
        const key = await ring.get(data_key);
        const body = openSealed(key, "veil/v1/quarantine", id, sealed);
        if (body !== expected.body)
          this.findings.add("wrong", "a quarantined body that differs", id);
        if (
          reason !== expected.reason ||
          state !== "open" ||
          sent_at.getTime() !== this.#options.sentAt(id)
        ) {
          this.findings.add("wrong", "a quarantine entry that differs", id);
        }
      }
    }
    for (const id of broken.keys()) {
      this.findings.add("lost", "a broken message that is not in the quarantine", id);
    }
  }

  /** Since each row is what its message says by now, its tokens are the right ones: sealed in the row's period. */
  async #compareTokens(): Promise<void> {
    const orphans = await this.#options.sql`
      select distinct t.token
      from (
        select masked_ip as token, create_date as day from public.user_logins
        union
        select masked_device_id, create_date from public.user_logins
      ) t
      left join etl.periods p on p.first <= t.day and t.day < p.until
      where t.token is not null and not exists (
        select from pii_vault.originals o
        where o.token = t.token and o.period = coalesce(p.first, t.day)
      )`;
    for (const { token } of orphans) {
      this.findings.add("orphan", "a token without an original", token);
    }
    const unused = await this.#options.sql`
      select o.token
      from pii_vault.originals o
      left join etl.periods p on p.first = o.period
      where not exists (
          select from public.user_logins l
          where l.masked_ip = o.token
            and l.create_date >= o.period and l.create_date < coalesce(p.until, o.period + 1)
        )
        and not exists (
          select from public.user_logins l
          where l.masked_device_id = o.token
            and l.create_date >= o.period and l.create_date < coalesce(p.until, o.period + 1)
        )`;
    for (const { token } of unused) this.findings.add("wrong", "an original of no row", token);
  }

  async #compareOriginals(ring: DataKeyRing): Promise<void> {
    const originals = this.#options.sql`
      select token, data_key::text as data_key, sealed from pii_vault.originals`.cursor(
      ROWS_AT_ONCE,
    );
    for await (const batch of originals) {
      for (const { token, data_key, sealed } of batch) {
        this.totals.originals++;
        const key = await ring.get(data_key);
        const original = openSealed(key, "veil/v1/original", token, sealed);
        const field = token.startsWith("ip") ? "ip" : "device_id";
        if (original === null || this.#tokens[field](original) !== token) {
          this.findings.add("wrong", "an original that does not open to its token", token);
        }
      }
    }
  }
}
