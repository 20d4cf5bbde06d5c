// `veil reveal --user …`: logins with their originals beside them, looked for by user, day, value or token.
import { open } from "node:fs/promises";
import type { Field } from "../../vault/canonical.ts";
import { readTokenKey } from "../config/keys.ts";
import { failed, misuse } from "../failure.ts";
import type { Database } from "../postgres/database.ts";
import {
  type JoinCounts,
  type LoginsPage,
  type RevealedLogin,
  revealLogins,
  showLogins,
} from "../recovery/join.ts";
import { LOGINS_PER_PAGE, type LoginFilter } from "../recovery/logins.ts";
import { type Recovery, type Revealed, revealRequests } from "../recovery/reveal.ts";
import { type Format, Output, type Sheet } from "../terminal/output.ts";
import { Progress, plural, type Terminal } from "../terminal/terminal.ts";
import { addTokens, tokenLines } from "./read-tokens.ts";
import { type Asking, CHECK_IDENTITY, nameLost, withRecovery } from "./reveal.ts";
import type { Context } from "./session.ts";
import { readValues } from "./token.ts";

export type LoginSearch = {
  readonly user: string | null;
  readonly since: string | null;
  readonly until: string | null;
  /** The field whose values stdin brings. */
  readonly values: Field | null;
  /** A file of tokens; `-` is stdin. */
  readonly tokens: string | null;
};

export type RevealLoginsCommand = Asking & {
  readonly search: LoginSearch;
  readonly format: Format;
};

const SHEET: Sheet<RevealedLogin> = {
  columns: [
    ...["user_id", "create_date", "device_type", "locale", "app_version"],
    ...["masked_ip", "ip", "masked_device_id", "device_id", "verified"],
  ],
  cells: (row) => [
    ...[row.userId, row.createDate, row.deviceType, row.locale, row.appVersion],
    ...[row.maskedIp, row.ip, row.maskedDeviceId, row.deviceId],
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

export async function runRevealLogins(
  context: Context,
  command: RevealLoginsCommand,
): Promise<void> {
  const { terminal } = context;
  const { search, requests } = command;
  const given = search.tokens === null ? null : await readFile(terminal, search.tokens);
  const output = new Output(terminal, SHEET, command.format);
  const progress = new Progress(terminal, 0);
  let counts: JoinCounts | undefined;
  try {
    const needs = {
      login: "local_investigator" as const,
      mayAsk: search.tokens !== "-",
    };
    await withRecovery(context, command, needs, async (base, { env }) => {
      const tokens =
        search.values === null
          ? given
          : await readValues(terminal, readTokenKey(env), search.values);
      const filter = filterOf(search, tokens);
      await requireRoles(base.database, command);
      const recovery: Recovery = {
        ...base,
        onProgress: (step, logins) => {
          const note = step === "recorded" ? "logins, on record" : "logins, revealed";
          if (logins > LOGINS_PER_PAGE) progress.show(logins, note);
        },
      };
      const print = async ({ logins, refused }: LoginsPage) => {
        progress.clear();
        await output.write(logins);
        nameLost(terminal, { unknown: [], refused });
      };
      counts =
        requests.length === 0
          ? await revealLogins(recovery, filter, print)
          : await showRequested(terminal, recovery, requests, filter, print);
      await output.write([]); // a header where there is nothing else
    });
  } finally {
    progress.clear();
    output.end();
  }
  if (counts !== undefined) conclude(terminal, counts, requests.length > 0);
}

async function showRequested(
  terminal: Terminal,
  recovery: Recovery,
  requests: readonly string[],
  filter: LoginFilter,
  print: (page: LoginsPage) => Promise<void>,
): Promise<JoinCounts> {
  const originals = new Map<string, Revealed>();
  let refused = 0;
  for await (const page of revealRequests(recovery, requests)) {
    for (const revealed of page.revealed) originals.set(revealed.token, revealed);
    nameLost(terminal, page);
    refused += page.refused.length;
  }
  const counts = await showLogins(recovery, filter, originals, print);
  return { ...counts, refused };
}

function conclude(terminal: Terminal, counts: JoinCounts, isRequested: boolean): void {
  const { logins, unknown, refused, unrecoverable } = counts;
  if (logins === 0) {
    terminal.err(`there are no such logins${isRequested ? "" : "; nothing was requested"}\n`);
    return;
  }
  if (unrecoverable > 0) {
    terminal.err(
      `${plural(unrecoverable, "token stands", "tokens stand")} for nothing that could be revealed (generation 0, or none of veil's)\n`,
    );
  }
  if (unknown + refused === 0) return;
  const words = [
    ...(unknown > 0
      ? [`the vault does not hold the originals of ${plural(unknown, "token")}`]
      : []),
    ...(refused > 0 ? [`${plural(refused, "token was", "tokens were")} refused`] : []),
  ];
  throw failed(
    `${words.join(", and ")}; ${plural(logins, "login was", "logins were")} printed without them`,
    refused > 0
      ? CHECK_IDENTITY
      : isRequested
        ? "were they part of the requests? A login that came since is not"
        : "erased and expired originals are gone; otherwise, is this the whole vault?",
  );
}

/** Both at once: whoever administers the logins should have to be asked only once. */
async function requireRoles(database: Database, { breakGlass }: Asking): Promise<void> {
  const [row] = await database.query(
    `select pg_catalog.quote_ident(session_user) as login,
       pg_catalog.has_table_privilege('public.user_logins', 'select') as reads,
       pg_catalog.has_schema_privilege('pii_vault', 'usage') and exists (
         select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
         where n.nspname = 'pii_vault' and p.proname = $1::text
           and pg_catalog.has_function_privilege(p.oid, 'execute')
       ) as reveals`,
    [breakGlass ? "break_glass" : "request_reveal"],
  );
  const lacking = [
    ...(row?.reads === true ? [] : ["veil_analyst"]),
    ...(row?.reveals === true ? [] : [breakGlass ? "veil_breakglass" : "veil_revealer"]),
  ];
  if (lacking.length === 0) return;
  const what = row?.reads === true ? "ask for originals" : "read public.user_logins";
  throw failed(
    `the login ${row?.login} may not ${what}: revealing logins needs veil_analyst and ` +
      `${breakGlass ? "veil_breakglass" : "veil_revealer"}, and it lacks ${lacking.join(" and ")}`,
    `an administrator of the database's roles runs: GRANT ${lacking.join(", ")} TO ${row?.login};`,
  );
}

const filterOf = (
  { user, since, until }: LoginSearch,
  tokens: readonly string[] | null,
): LoginFilter => ({ userId: user, since, until, tokens });

async function readFile(terminal: Terminal, path: string): Promise<string[]> {
  const tokens = new Set<string>();
  if (path === "-") await addTokens(tokens, tokenLines(terminal), "stdin");
  else await addTokens(tokens, linesOf(path), "the file");
  if (tokens.size > 0) return [...tokens];
  throw misuse(
    "no token was given",
    "one a line, as `veil token` and `veil duplicates` print them",
  );
}

async function* linesOf(path: string): AsyncGenerator<string> {
  try {
    const file = await open(path);
    yield* file.readLines();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw misuse(`cannot read the file of --tokens (${code})`, "check path and mode");
  }
}
