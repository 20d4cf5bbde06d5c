// A database whose vault holds millions of originals of today's period before the first run: rows as veil writes
// them, only that nothing is sealed in them. Put there by the server itself, as the owner.
import { type Servers, withConnection } from "./servers.ts";

const AT_ONCE = 500_000;
/** Base64's letters as those of base32, two to one: a digest's stay evenly spread. */
const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";
/** What the last letter of a token can be. */
const LAST = "aeimquy4";

/** Half addresses, half devices; tokens in random order, and seals of 44 bytes, as those of both have. */
export async function fillVault(
  servers: Servers,
  originals: number,
  onProgress: (done: number) => void,
): Promise<void> {
  await withConnection(servers.connect("postgres"), (sql) =>
    sql.unsafe("create database vault template veil"),
  );
  await withConnection(servers.connect("vault"), async (sql) => {
    const [dataKey] = await sql`select gen_random_uuid() as id`;
    for (let from = 1; from <= originals; from += AT_ONCE) {
      const to = Math.min(originals, from + AT_ONCE - 1);
      await sql`
        insert into pii_vault.originals (token, period, data_key, sealed)
        select
          case n % 2 when 0 then 'ip1_' else 'dev1_' end
            || translate(left(digest, 25), ${BASE64}, ${BASE32 + BASE32})
            || translate(substr(digest, 26, 1), ${BASE64}, ${LAST.repeat(8)}),
          etl.period_of(etl.utc_day(now())),
          ${dataKey?.id},
          sha256(n::text::bytea) || substr(sha256(('more' || n)::bytea), 1, 12)
        from (
          select n, encode(sha256(('token' || n)::bytea), 'base64') as digest
          from generate_series(${from}::bigint, ${to}::bigint) n
        ) digests`;
      onProgress(to);
    }
    await sql.unsafe("vacuum analyze pii_vault.originals");
    await sql.unsafe("checkpoint");
  });
}
