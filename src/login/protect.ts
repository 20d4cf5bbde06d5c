// Logins → rows that hold tokens, and the originals sealed beside them. Pure but for the randomness
// of the seals; Web-standard APIs only. No plain personal value leaves this file.
import type { Field } from "../../vault/canonical.ts";
import type { DataKey } from "../../vault/data-key.ts";
import type { Subkeys } from "../../vault/keys.ts";
import { javaScript, type Primitives } from "../../vault/primitives.ts";
import { type Place, seal } from "../../vault/seal.ts";
import { makeToken } from "../../vault/token.ts";
import type { Login, ParsedBody } from "./parse.ts";

/** THE list of personal fields: where a login has them, and in which column their tokens go. */
export const PERSONAL = [
  { field: "ip", key: "ip", column: "maskedIp" },
  { field: "device_id", key: "deviceId", column: "maskedDeviceId" },
] as const satisfies readonly { field: Field; key: keyof Login; column: string }[];

type TokenColumns = { readonly [P in (typeof PERSONAL)[number] as P["column"]]: string | null };

export type ParsedMessage = {
  readonly id: string;
  readonly sentAt: Date;
  readonly body: string;
  readonly parsed: ParsedBody;
};

export type LoginRow = TokenColumns & {
  readonly messageId: string;
  readonly sentAt: Date;
  readonly userId: string;
  readonly deviceType: string | null;
  readonly locale: string | null;
  readonly appVersion: number | null;
};

export type RejectedMessage = {
  readonly messageId: string;
  readonly sentAt: Date;
  readonly reason: string;
  readonly sealed: Uint8Array;
};

export type Protected = {
  readonly rows: readonly LoginRow[];
  /** One per distinct token of the rows, the first original that had it. */
  readonly originals: ReadonlyMap<string, Uint8Array>;
  readonly rejected: readonly RejectedMessage[];
};

/** How many values `protect` may have to seal for so many messages. */
export const maxSeals = (messages: number): number => messages * PERSONAL.length;

export type Protecting = {
  /**
   * Tells tokens whose originals the vault has already in the period of a message that was sent then: those are not
   * sealed again.
   */
  readonly isKnown?: (token: string, sentAt: Date) => boolean;
  /** The platform's, where there are faster ones. */
  readonly primitives?: Primitives;
};

export function protect(
  messages: readonly ParsedMessage[],
  subkeys: Subkeys,
  dataKey: DataKey,
  { isKnown = () => false, primitives = javaScript }: Protecting = {},
): Protected {
  const rows: LoginRow[] = [];
  const originals = new Map<string, Uint8Array>();
  const rejected: RejectedMessage[] = [];
  const sealAt = (place: Place, text: string) =>
    seal(dataKey.bytes, place, text, undefined, primitives);
  const tokenizerAt =
    (sentAt: Date): Tokenize =>
    (field, original) => {
      if (original === null) return null;
      const token = makeToken(subkeys, field, original, primitives);
      if (!originals.has(token) && !isKnown(token, sentAt)) {
        originals.set(token, sealAt({ kind: "original", token }, original));
      }
      return token;
    };
  for (const { id, body, sentAt, parsed } of messages) {
    if (parsed.kind === "login") {
      rows.push(makeRow(id, sentAt, parsed.login, tokenizerAt(sentAt)));
    } else {
      // A broken body may hold what UTF-8 cannot: kept as U+FFFD, rather than not kept.
      const sealed = sealAt({ kind: "quarantine", messageId: id }, body.toWellFormed());
      rejected.push({ messageId: id, sentAt, reason: parsed.reason, sealed });
    }
  }
  return { rows, originals, rejected };
}

type Tokenize = (field: Field, original: string | null) => string | null;

function makeRow(messageId: string, sentAt: Date, login: Login, tokenize: Tokenize): LoginRow {
  const { userId, deviceType, locale, appVersion } = login;
  const row = { messageId, sentAt, userId, deviceType, locale, appVersion } as LoginRow & Tokens;
  for (const { field, key, column } of PERSONAL) row[column] = tokenize(field, login[key]);
  return row;
}

type Tokens = { -readonly [column in keyof TokenColumns]: TokenColumns[column] };
