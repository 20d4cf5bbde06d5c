// Logins → rows that hold tokens, and the originals sealed beside them. Pure but for the randomness
// of the seals; Web-standard APIs only. No plain personal value leaves this file.
import type { Field } from "../vault/canonical.ts";
import type { DataKey } from "../vault/data-key.ts";
import type { Subkeys } from "../vault/keys.ts";
import { sealAll } from "../vault/seal.ts";
import { makeToken } from "../vault/token.ts";
import type { Login, Parsed } from "./message.ts";

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
  readonly parsed: Parsed;
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

/**
 * `isKnown` tells tokens whose originals the vault has already: those are not sealed again, and not among
 * `originals`.
 */
export async function protect(
  messages: readonly ParsedMessage[],
  subkeys: Subkeys,
  dataKey: DataKey,
  isKnown: (token: string) => boolean = () => false,
): Promise<Protected> {
  const rows: LoginRow[] = [];
  const originals = new Map<string, string>();
  const broken: ParsedMessage[] = [];
  for (const message of messages) {
    const { id, sentAt, parsed } = message;
    if (parsed.kind === "login") {
      const row = tokenizeLogin(parsed.login, subkeys, (token, original) => {
        if (!originals.has(token) && !isKnown(token)) originals.set(token, original);
      });
      rows.push({ messageId: id, sentAt, ...row });
    } else {
      broken.push(message);
    }
  }
  const tokens = [...originals.keys()];
  const seals = await sealAll(dataKey.bytes, [
    ...[...originals].map(
      ([token, text]) => ({ place: { kind: "original", token }, text }) as const,
    ),
    ...broken.map(
      ({ id, body }) =>
        ({
          place: { kind: "quarantine", messageId: id },
          // A broken body may hold what UTF-8 cannot: kept as U+FFFD, rather than not kept.
          text: body.toWellFormed(),
        }) as const,
    ),
  ]);
  return {
    rows,
    originals: new Map(tokens.map((token, i) => [token, seals[i]!])),
    rejected: broken.map(({ id, sentAt, parsed }, i) => ({
      messageId: id,
      sentAt,
      reason: parsed.kind === "rejected" ? parsed.reason : "",
      sealed: seals[tokens.length + i]!,
    })),
  };
}

/** A login's row, its personal values told to `onOriginal` each with its token. */
function tokenizeLogin(
  login: Login,
  subkeys: Subkeys,
  onOriginal: (token: string, original: string) => void,
): Omit<LoginRow, "messageId" | "sentAt"> {
  const tokens: Record<string, string | null> = {};
  for (const { field, key, column } of PERSONAL) {
    const original = login[key];
    const token = original === null ? null : makeToken(subkeys, field, original);
    tokens[column] = token;
    if (original !== null && token !== null) onOriginal(token, original);
  }
  return {
    ...(tokens as TokenColumns),
    userId: login.userId,
    deviceType: login.deviceType,
    locale: login.locale,
    appVersion: login.appVersion,
  };
}
