// Values on their way to PostgreSQL and back. How the server reads and writes arrays, bytes and
// times is up to the settings of each login; here each of them has one form.

/** A bytea, a number, text (arrays as `array` writes them), or null. */
export type Value = Uint8Array | string | number | boolean | null;
export type Row = Readonly<Record<string, unknown>>;

/**
 * An array literal of PostgreSQL, which the driver would need a round trip and a table of types to
 * write. JSON's array differs only in its brackets and in what it escapes, and the engine writes it
 * in half of the time.
 */
export function array(values: readonly (string | number | null)[]): string {
  const json = JSON.stringify(values);
  return json.includes("\\") ? escapedArray(values) : `{${json.slice(1, -1)}}`;
}

function escapedArray(values: readonly (string | number | null)[]): string {
  const items = values.map((value) =>
    value === null ? "NULL" : `"${String(value).replace(/["\\]/g, "\\$&")}"`,
  );
  return `{${items.join(",")}}`;
}

/**
 * The same for bytea[]. All values are written as hex in one call: one for each takes four times as
 * long.
 */
export function byteaArray(values: readonly Uint8Array[]): string {
  const hex = Buffer.concat(values).toString("hex");
  let end = 0;
  const items = values.map(({ length }) => {
    const start = end;
    end += 2 * length;
    return `"\\\\x${hex.slice(start, end)}"`;
  });
  return `{${items.join(",")}}`;
}

/** SQL that writes the bytes of a column as base64. */
export const base64Text = (column: string): string => `pg_catalog.encode(${column}, 'base64')`;

/** SQL that writes the time of a column as ISO 8601, in UTC. */
export const utcText = (column: string): string =>
  `pg_catalog.to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
