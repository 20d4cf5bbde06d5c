// What the details of an entry say in a table: why a request was refused, whose request a verdict is on.
// Anybody who owns the database may have written them; `--json` has all of them as they are.

import { OVER_BUDGET, PURPOSE_REFUSED, REASON_REQUIRED } from "../postgres/sqlstates.ts";

const REFUSALS: Readonly<Record<string, string>> = {
  [REASON_REQUIRED]: "no reason",
  [PURPOSE_REFUSED]: "purpose",
  [OVER_BUDGET]: "over budget",
};

export function detailsText(details: string | null): string {
  const json: unknown = details === null ? null : JSON.parse(details);
  if (typeof json !== "object" || json === null) return "";
  const text = (name: string): string | null => {
    const value = Object.hasOwn(json, name) ? (json as Record<string, unknown>)[name] : null;
    return typeof value === "string" || typeof value === "number" ? String(value) : null;
  };
  const refusal = text("refusal");
  const allowed = refusal === OVER_BUDGET ? "allowed" : "expected";
  const said = [
    ["refused", refusal === null ? null : (REFUSALS[refusal] ?? refusal)],
    [allowed, text("expected")],
    ["requester", text("requester")],
    ["purpose", text("purpose")],
    ["approval", text("approval")],
    ["entry", text("entry")],
  ];
  return said.flatMap(([name, value]) => (value === null ? [] : [`${name}: ${value}`])).join("; ");
}
