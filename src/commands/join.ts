// `veil reveal --user …`: logins with their originals beside them, looked for by user, day, value
// or token.
import type { Field } from "../../vault/canonical.ts";
import { readTokenKey } from "../config/keys.ts";
import { failed } from "../failure.ts";
import {
  type JoinCounts,
  joinLogins,
  joinRequested,
  type LoginsPage,
  type RevealedLogin,
} from "../recovery/join.ts";
import { LOGINS_PER_PAGE, type LoginFilter } from "../recovery/logins.ts";
import type { Recovery } from "../recovery/request.ts";
import { Output, type Sheet } from "../terminal/output.ts";
import { Progress, plural, type Terminal } from "../terminal/terminal.ts";
import { readTokenFile } from "./read-tokens.ts";
import type { Context } from "./servers.ts";
import { readValues } from "./token.ts";
import { CHECK_IDENTITY, nameLost, type RevealOptions, withRecovery } from "./with-recovery.ts";

export type LoginSearch = {
  readonly user: string | null;
  readonly since: string | null;
  readonly until: string | null;
  /** The field whose values stdin brings. */
  readonly values: Field | null;
  /** A file of tokens; `-` is stdin. */
  readonly tokens: string | null;
};

export type JoinOptions = RevealOptions & { readonly search: LoginSearch };

const SHEET: Sheet<RevealedLogin> = {
  columns: [
    "user_id",
    "create_date",
    "device_type",
    "locale",
    "app_version",
    "masked_ip",
    "ip",
    "masked_device_id",
    "device_id",
    "verified",
  ],
  cells: (row) => [
    row.userId,
    row.createDate,
    row.deviceType,
    row.locale,
    row.appVersion,
    row.maskedIp,
    row.ip,
    row.maskedDeviceId,
    row.deviceId,
    row.ip === null && row.deviceId === null ? null : row.verified ? "verified" : "unverified",
  ],
  json: "lines",
  object: (row) => ({
    user_id: row.userId,
    create_date: row.createDate,
    device_type: row.deviceType,
    locale: row.locale,
    app_version: row.appVersion,
    masked_ip: row.maskedIp,
    ip: row.ip,
    masked_device_id: row.maskedDeviceId,
    device_id: row.deviceId,
    verified: row.verified,
  }),
};

export async function runJoin(context: Context, options: JoinOptions): Promise<void> {
  const { terminal } = context;
  const { search, requests, breakGlass } = options;
  const given = search.tokens === null ? null : await readTokenFile(terminal, search.tokens);
  const output = new Output(terminal, SHEET, options.format);
  const progress = new Progress(terminal, 0);
  let counts: JoinCounts | undefined;
  const needs = {
    roles: ["veil_analyst", breakGlass ? "veil_breakglass" : "veil_revealer"] as const,
    mayAsk: search.tokens !== "-",
  };
  try {
    await withRecovery(context, options, needs, async (base, env) => {
      const tokens =
        search.values === null
          ? given
          : await readValues(terminal, readTokenKey(env), search.values);
      const filter = filterOf(search, tokens);
      const recovery: Recovery = {
        ...base,
        onProgress: (step, logins) => {
          const note = step === "recorded" ? "logins, on record" : "logins, revealed";
          if (logins > LOGINS_PER_PAGE) progress.show(logins, note);
        },
      };
      const print = async ({ logins, unopened }: LoginsPage) => {
        progress.clear();
        await output.write(logins);
        nameLost(terminal, { unknown: [], unopened });
      };
      counts =
        requests.length === 0
          ? await joinLogins(recovery, filter, print)
          : await joinRequested(recovery, requests, filter, print);
      await output.write([]); // a header, also where there are no logins
    });
  } finally {
    progress.clear();
    output.end();
  }
  if (counts !== undefined) conclude(terminal, counts, requests.length > 0);
}

function conclude(terminal: Terminal, counts: JoinCounts, isRequested: boolean): void {
  const { logins, unknown, unopened, unrecoverable } = counts;
  if (logins === 0) {
    terminal.err(`there are no such logins${isRequested ? "" : "; nothing was requested"}\n`);
    return;
  }
  if (unrecoverable > 0) {
    terminal.err(
      `${plural(unrecoverable, "token stands", "tokens stand")} for nothing that could be revealed (generation 0, or no tokens of veil's)\n`,
    );
  }
  if (unknown + unopened === 0) return;
  const words = [
    ...(unknown > 0
      ? [`the vault does not hold the originals of ${plural(unknown, "token")}`]
      : []),
    ...(unopened > 0 ? [`${plural(unopened, "token was", "tokens were")} refused`] : []),
  ];
  throw failed(
    `${words.join(", and ")}; ${plural(logins, "login was", "logins were")} printed without them`,
    unopened > 0
      ? CHECK_IDENTITY
      : isRequested
        ? "were they part of the requests? A login that came since is not"
        : "erased and expired originals are gone; otherwise, is this the whole vault?",
  );
}

const filterOf = (
  { user, since, until }: LoginSearch,
  tokens: readonly string[] | null,
): LoginFilter => ({ userId: user, since, until, tokens });
