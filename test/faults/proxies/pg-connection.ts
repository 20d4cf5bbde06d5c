// One connection through the proxy: two streams of messages, and what is known of the load that they carry.
// Whatever the client had sent when it died still reaches the server, as it would from a kernel's buffer.
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type PgAnswer, type PgControl, type PgPoint, takeCut } from "./pg-control.ts";
import { pump } from "./pg-pump.ts";
import { type Meaning, meaningOf, newUnit, type Unit } from "./pg-unit.ts";
import {
  CANCEL_REQUEST,
  errorResponse,
  Frames,
  GSS_REQUEST,
  kindOf,
  readBind,
  readParse,
  readQuery,
  readyForQuery,
  SSL_REQUEST,
  simpleQuery,
  startupCode,
} from "./pg-wire.ts";

/** Without messages a load has 21 small parameters; with one, a wrapped data key comes along. */
const SMALLEST_LOAD_BYTES = 500;

export class PgConnection {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #control: PgControl;
  readonly #ended: () => void;
  readonly #units: Unit[] = [{ ...newUnit(), complete: true }];
  readonly #statements = new Map<string, Meaning>();
  #started = false;
  #cut = false;
  /** As the server last said. */
  #status: "I" | "T" | "E" = "I";
  /** A load has passed since the last COMMIT. */
  #loaded = false;

  constructor(client: Socket, server: Socket, control: PgControl, ended: () => void) {
    this.#client = client;
    this.#server = server;
    this.#control = control;
    this.#ended = ended;
    server.setNoDelay(true);
    const isCut = () => this.#cut;
    pump({ from: client, to: server, isCut, ended }, new Frames("client"), (message) =>
      this.#fromClient(message),
    );
    pump({ from: server, to: client, isCut, ended }, new Frames("server"), (message) =>
      this.#fromServer(message),
    );
  }

  /** Resets the client's side. The server still gets what was forwarded, and then the end. */
  cut(): void {
    this.#cut = true;
    this.#client.resetAndDestroy();
    this.#server.end();
    this.#ended();
  }

  async #fromClient(message: Buffer): Promise<void> {
    if (!this.#started) return this.#start(message);
    const kind = kindOf(message);
    const last = this.#units.at(-1);
    const unit: Unit = last === undefined || last.complete ? newUnit() : last;
    if (kind !== "X" && kind !== "p" && unit !== last) this.#units.push(unit);
    if (kind === "P") {
      const { name, query } = readParse(message);
      this.#statements.set(name, meaningOf(query));
    }
    if (kind === "S" || kind === "Q") unit.complete = true;
    const meaning =
      kind === "B"
        ? (this.#statements.get(readBind(message)) ?? "other")
        : kind === "Q"
          ? meaningOf(readQuery(message))
          : "other";
    if (meaning === "load") return this.#sendLoad(unit, message);
    if (meaning === "commit" && this.#loaded) return this.#sendCommit(unit, message);
    // Of a skipped load only the Sync goes on: the server has to say that it is ready.
    if (unit.skipped && kind !== "S") return;
    await this.#write(this.#server, message);
    if (kind === "S" && unit.meaning === "load" && !unit.skipped) {
      await this.#reach("load-forwarded");
    }
  }

  /** Up to the StartupMessage; what it leads to is only passed on. */
  async #start(message: Buffer): Promise<void> {
    const code = startupCode(message);
    if (code === SSL_REQUEST || code === GSS_REQUEST) {
      await this.#write(this.#client, Buffer.from("N"));
      return;
    }
    if (code !== CANCEL_REQUEST) {
      this.#started = true;
      if (!(await this.#reach("connect"))) return;
      const refusal = this.#takeAnswer("connect", message.length);
      if (refusal !== null) return this.#refuse(errorResponse(refusal));
    }
    await this.#write(this.#server, message);
  }

  async #sendLoad(unit: Unit, message: Buffer): Promise<void> {
    if (message.length < SMALLEST_LOAD_BYTES) {
      if (await this.#reach("probed")) await this.#write(this.#server, message);
      return;
    }
    unit.meaning = "load";
    this.#loaded = true;
    if (!(await this.#reach("load-sent"))) return;
    this.#replace(unit, "load", message.length);
    const { swap, lastAnswer } = this.#control;
    if (unit.instead === null && swap !== null && lastAnswer !== null) {
      this.#control.swap = null;
      unit.instead = { bytes: lastAnswer, isError: false, isLast: false };
      unit.skipped = swap === "unran";
    }
    if (unit.skipped) {
      if (unit.instead?.isLast) return this.#refuse(unit.instead.bytes);
      // A simple Query is its whole unit: an empty one brings the ReadyForQuery that a Sync would.
      if (unit.complete) await this.#write(this.#server, simpleQuery(""));
      return;
    }
    const half = message.length >> 1;
    await this.#write(this.#server, message.subarray(0, half));
    if (!(await this.#reach("load-half-sent"))) return;
    await this.#write(this.#server, message.subarray(half));
    if (unit.complete) await this.#reach("load-forwarded");
  }

  async #sendCommit(unit: Unit, message: Buffer): Promise<void> {
    unit.meaning = "commit";
    this.#loaded = false;
    if (!(await this.#reach("commit-sent"))) return;
    this.#replace(unit, "commit", message.length);
    if (unit.skipped && unit.instead?.isLast) return this.#refuse(unit.instead.bytes);
    await this.#write(this.#server, unit.skipped ? simpleQuery("rollback") : message);
  }

  async #fromServer(message: Buffer): Promise<void> {
    const kind = kindOf(message);
    const unit = this.#units[0];
    const keeps = unit !== undefined && unit.meaning !== "other";
    if (keeps) unit.answer.push(message);
    if (kind === "Z") {
      this.#units.shift();
      this.#status = String.fromCharCode(message[5]!) as "I" | "T" | "E";
    }
    if (!keeps) return this.#write(this.#client, message);
    // Without a ReadyForQuery, a FATAL error is the last that comes.
    const whole = kind === "Z" || (kind === "E" && message.includes("SFATAL\0"));
    if (whole) await this.#deliver(unit);
  }

  async #deliver(unit: Unit): Promise<void> {
    const kinds = unit.answer.map(kindOf);
    const done = kinds.includes("C") && !kinds.includes("E");
    const load = unit.meaning === "load";
    if (done && !unit.skipped) {
      if (!(await this.#reach(load ? "load-answered" : "commit-answered"))) return;
    }
    if (load && done && !unit.skipped) {
      this.#control.lastAnswer = Buffer.concat(unit.answer.slice(0, -1));
    }
    if (unit.instead?.isLast) return this.#refuse(unit.instead.bytes);
    let answer = Buffer.concat(unit.answer);
    if (unit.instead !== null) {
      // In a transaction, an error fails the whole of it.
      const failed = unit.instead.isError && load && this.#status !== "I";
      const ready = readyForQuery(failed ? "E" : this.#status);
      answer = Buffer.concat([unit.instead.bytes, ready]);
    }
    if (!load || !done || unit.instead?.isError) return this.#write(this.#client, answer);
    const half = answer.length >> 1;
    await this.#write(this.#client, answer.subarray(0, half));
    if (!(await this.#reach("load-half-answered"))) return;
    await this.#write(this.#client, answer.subarray(half));
    await this.#reach("load-delivered");
  }

  /** The last words of a server that then closes the connection. */
  async #refuse(error: Buffer): Promise<void> {
    await this.#write(this.#client, error);
    this.#cut = true;
    this.#client.end();
    this.#server.end();
    this.#ended();
  }

  #replace(unit: Unit, to: "load" | "commit", bytes: number): void {
    const answer = this.#takeAnswer(to, bytes);
    if (answer === null) return;
    const isLast = answer.severity === "FATAL";
    unit.instead = { bytes: errorResponse(answer), isError: true, isLast };
    unit.skipped = answer.afterwards !== true;
  }

  #takeAnswer(to: PgAnswer["to"], bytes: number): PgAnswer | null {
    const found = this.#control.answers.find(
      ({ answer }) => answer.to === to && bytes >= (answer.leastBytes ?? 0),
    );
    if (found === undefined) return null;
    if (--found.times <= 0) {
      this.#control.answers = this.#control.answers.filter((one) => one !== found);
    }
    return found.answer;
  }

  /** False: the connection was cut here, and nothing of it goes on. */
  async #reach(point: PgPoint): Promise<boolean> {
    const { counts, cuts, pauses, barriers, onPoint, gate } = this.#control;
    counts[point]++;
    onPoint(point);
    const closed = gate(point);
    if (closed !== null) await closed;
    if (takeCut(cuts, point)) this.cut();
    const barrier = barriers.get(point);
    if (barrier !== undefined && !this.#cut) {
      barrier.reach();
      if ((await barrier.opened) === "cut") this.cut();
    }
    const pause = pauses.get(point);
    if (pause !== undefined && !this.#cut) {
      pauses.delete(point);
      await new Promise<void>((resume) => {
        const cut = () => {
          this.cut();
          resume();
        };
        pause({ resume, cut });
      });
    }
    return !this.#cut;
  }

  async #write(to: Socket, bytes: Buffer): Promise<void> {
    while (this.#control.mode.kind === "hold" && !this.#cut) await this.#control.changed.promise;
    if (this.#control.mode.kind === "slow") {
      const { bytes: size, milliseconds } = this.#control.mode;
      for (let at = 0; at < bytes.length && !this.#cut; at += size) {
        await sleep(milliseconds);
        if (!this.#cut) to.write(bytes.subarray(at, at + size));
      }
      return;
    }
    if (!this.#cut) to.write(bytes);
  }
}
