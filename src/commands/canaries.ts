// `veil canary`: decoys that nobody has a reason to ask for. They are sealed as the ETL seals, so
// they look like the rest.
import { isIpAddress } from "../../vault/canonical.ts";
import { parseToken } from "../../vault/token.ts";
import { chainAudit } from "../audit/chain.ts";
import type { Environment } from "../config/environment.ts";
import { readRecipients, readTokenKey } from "../config/keys.ts";
import { misuse } from "../failure.ts";
import { listCanaries, plantCanary, removeCanary } from "../recovery/canaries.ts";
import { table } from "../terminal/terminal.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

const NEEDS = { roles: ["veil_policy"] } as const;

const SEALING_KEYS = {
  variables: ["VEIL_TOKEN_KEY", "VEIL_RECIPIENTS"],
  read: (env: Environment) => ({ subkeys: readTokenKey(env), recipients: readRecipients(env) }),
} as const;

export type CanaryOptions = { readonly reason: string | null; readonly json: boolean };

/** The value comes from a prompt or stdin, as for `veil token`, and is never printed again. */
export async function runAddCanary(
  context: Context,
  field: "ip" | "device_id",
  options: CanaryOptions,
): Promise<void> {
  const { terminal } = context;
  const token = await withDatabase(
    context,
    { ...NEEDS, keys: SEALING_KEYS },
    async ({ database, keys }) => {
      const values: string[] = [];
      if (terminal.isStdinTerminal) values.push(await terminal.ask(`${field}: `));
      else for await (const line of terminal.lines()) if (line !== "") values.push(line);
      const [value] = values;
      if (values.length !== 1 || !value) {
        throw misuse(`expected one ${field}, on a line of its own`, "one canary at a time");
      }
      if (new TextEncoder().encode(value).length > 1024) {
        throw misuse("this value is too long", "expected 1,024 bytes at most, as in a login");
      }
      if (field === "ip" && !isIpAddress(value)) {
        throw misuse("this is no IP address", "a canary that no login could have fools nobody");
      }
      const planted = await plantCanary(database, keys, field, value, options.reason);
      await chainAudit(database);
      return planted;
    },
  );
  if (options.json) terminal.out(`${JSON.stringify({ field, token })}\n`);
  else terminal.out(`${token}\n`);
}

export async function runListCanaries(context: Context, json: boolean): Promise<void> {
  const { terminal } = context;
  const canaries = await withDatabase(context, NEEDS, ({ database }) => listCanaries(database));
  if (json) terminal.out(`${JSON.stringify(canaries)}\n`);
  else if (canaries.length === 0) terminal.err("no canary is planted\n");
  else {
    const rows = canaries.map(({ token, login, addedAt }) => [token, login, addedAt]);
    terminal.out(table(["TOKEN", "ADDED BY", "ADDED AT"], rows, terminal.isStdoutTerminal));
  }
}

export async function runRemoveCanary(
  context: Context,
  token: string,
  options: CanaryOptions,
): Promise<void> {
  if (parseToken(token) === null) throw misuse("the argument is not a token", "see `canary list`");
  await withDatabase(context, NEEDS, async ({ database }) => {
    await removeCanary(database, token, options.reason);
    await chainAudit(database);
  });
  const { terminal } = context;
  if (options.json) terminal.out(`${JSON.stringify({ removed: token })}\n`);
  else terminal.out(`${token} is no canary any more\n`);
}
