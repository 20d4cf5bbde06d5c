// Holds every delete that a consumer asks for against the ledger, before it is passed on: a message that is
// not stored by then was acknowledged too early, whatever becomes of it later.
import { setTimeout as sleep } from "node:timers/promises";
import type postgres from "postgres";
import type { Delivered } from "../proxies/sqs-shared.ts";
import type { Findings } from "./findings.ts";

/** A restart of the database in the middle of a look. */
const PATIENCE_MS = 60_000;

/** State: the deletes that wait for the next look, which takes them all at once. */
export class DeleteWatch {
  readonly #sql: postgres.Sql;
  readonly #findings: Findings;
  #asked: { readonly messages: readonly Delivered[]; readonly told: () => void }[] = [];
  #looking = false;

  constructor(sql: postgres.Sql, findings: Findings) {
    this.#sql = sql;
    this.#findings = findings;
  }

  look(messages: readonly Delivered[]): Promise<void> {
    return new Promise((told) => {
      this.#asked.push({ messages, told });
      void this.#lookAtAll();
    });
  }

  async #lookAtAll(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    while (this.#asked.length > 0) {
      const asked = this.#asked;
      this.#asked = [];
      for (const id of await this.#notStored(asked.flatMap(({ messages }) => messages))) {
        this.#findings.add("early", "a delete of what was not committed", id);
      }
      for (const { told } of asked) told();
    }
    this.#looking = false;
  }

  async #notStored(messages: readonly Delivered[]): Promise<readonly string[]> {
    const list = messages.map(({ id, sentAt }) => ({ id, sent_on: dayOf(sentAt) }));
    for (const start = Date.now(); ; await sleep(50)) {
      try {
        const rows = await this.#sql.unsafe(
          `select m.id from json_to_recordset($1::text::json) as m (id text, sent_on date)
           where not exists (
             select from etl.ledger l
             where l.sent_on = m.sent_on and l.message_id = m.id collate "C"
           )`,
          [JSON.stringify(list)],
        );
        return rows.map((row) => String(row.id));
      } catch (error) {
        if (Date.now() - start > PATIENCE_MS) throw error;
      }
    }
  }
}

export const dayOf = (time: number): string => new Date(time).toISOString().slice(0, 10);
