// What the details of an entry say in a table: why a request was refused, whose request a verdict is on.
// Anybody who owns the database may have written them; `--json` has all of them as they are.

const REFUSALS: Readonly<Record<string, string>> = {
  VL030: "no reason",
  VL033: "purpose",
  VL035: "over budget",
};

export function detailsText(details: string | null): string {
  const json: unknown = details === null ? null : JSON.parse(details);
  if (typeof json !== "object" || json === null) return "";
  const text = (name: string): string | null => {
    const value = Object.hasOwn(json, name) ? (json as Record<string, unknown>)[name] : null;
    return typeof value === "string" || typeof value === "number" ? String(value) : null;
  };
  const refusal = text("refusal");
  const allowed = refusal === "VL035" ? "allowed" : "expected";
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
