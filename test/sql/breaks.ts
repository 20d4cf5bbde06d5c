// Ways to break a database behind veil's back, for a copy of the history of history.ts: SQL of a superuser's,
// and what `veil check` has to say of it.

const UNKNOWN = `ip1_${"a".repeat(26)}`;
const NOBODYS = "'00000000-0000-4000-8000-000000000000'";
const FORGOTTEN = "(select token from pii_vault.tombstones)";
const tokenOf = (user: string, column = "masked_ip") =>
  `(select ${column} from public.user_logins where user_id = '${user}')`;
const sealedOf = (user: string) =>
  `(select sealed from pii_vault.originals where token = ${tokenOf(user)})`;
/** Changes the data key of three classic recipients. */
const dataKey = (change: string, ...constraints: string[]) => `
  ${constraints.map((name) => `alter table pii_vault.data_keys ${name};`).join("\n")}
  update pii_vault.data_keys set ${change}
  where id = (select id from pii_vault.data_keys where cardinality(recipients) = 3)`;
const replaced = (from: string, to: string) =>
  dataKey(`wrapped = decode(replace(encode(wrapped, 'hex'), ${hex(from)}, ${hex(to)}), 'hex')`);
const hex = (text: string) => `encode('${text}', 'hex')`;
const day = (date: string, held: number, stored: number) =>
  `days-add-up 1 ${date}: ${held} rows and quarantined, ${stored} stored messages`;
const audit = (change: string) => `
  alter table pii_vault.audit disable trigger audit_append_only;
  ${change};
  alter table pii_vault.audit enable trigger audit_append_only`;

/** What was broken, how, and what is found: the invariant, how many offenders, and the first of them. */
export const BREAKS: readonly (readonly [string, string, readonly string[]])[] = [
  [
    "an original is gone whose token is in a row",
    `delete from pii_vault.originals where token = ${tokenOf("u1")}`,
    ["tokens-have-originals 1 ip1_…"],
  ],
  [
    "a row has a token that the vault never held",
    `update public.user_logins set masked_ip = '${UNKNOWN}' where user_id in ('u1', 'u2')`,
    ["tokens-have-originals 1 ip1_…"],
  ],
  [
    "all originals are gone",
    "truncate pii_vault.originals",
    [`tokens-have-originals 13 ${Array(5).fill("dev1_…").join(", ")}`],
  ],
  [
    "values that are no tokens came to those that were adopted",
    "update public.user_logins set masked_ip = '198.51.100.7' where user_id in ('u1', 'u6')",
    ["values-are-tokens 2 2030-01-02: 1 values, 2030-03-02: 1 values"],
  ],
  [
    "a value is almost a token",
    "update public.user_logins set masked_ip = left(masked_ip, 29) || 'b' where user_id = 'u1'",
    ["values-are-tokens 1 2030-01-02: 1 values"],
  ],
  [
    "a value is a token and a line end",
    "update public.user_logins set masked_ip = masked_ip || chr(10) where user_id = 'u1'",
    ["values-are-tokens 1 2030-01-02: 1 values"],
  ],
  [
    "a token stands in the column of the other field",
    "update public.user_logins set masked_ip = masked_device_id where user_id = 'u1'",
    ["values-are-tokens 1 2030-01-02: 1 values"],
  ],
  [
    "a value is empty",
    "update public.user_logins set masked_device_id = '' where user_id = 'a3'",
    ["values-are-tokens 1 without a date: 1 values"],
  ],
  [
    "an original names a data key that there is not",
    `update pii_vault.originals set data_key = ${NOBODYS} where token = ${tokenOf("u1")}`,
    ["originals-have-data-keys 1 ip1_…"],
  ],
  [
    "a data key is gone",
    "delete from pii_vault.data_keys where cardinality(recipients) = 3",
    ["originals-have-data-keys 1 dev1_…"],
  ],
  [
    "a quarantined body names a data key that there is not",
    `update etl.quarantine set data_key = ${NOBODYS} where message_id = 'open'`,
    ["bodies-have-data-keys 1 open"],
  ],
  [
    "a body that was discarded names a data key that there is not",
    `update etl.quarantine set data_key = ${NOBODYS} where message_id = 'discarded'`,
    [],
  ],
  [
    "a data key has no recipients",
    dataKey("recipients = '{}'", "drop constraint data_keys_recipients"),
    ["data-keys-are-whole 1 ID: no recipients"],
  ],
  [
    "a data key's recipients are null",
    dataKey("recipients = null", "alter recipients drop not null"),
    ["data-keys-are-whole 1 ID: no recipients"],
  ],
  [
    "a data key's proof is short",
    dataKey("proof = substring(proof for 31)", "drop constraint data_keys_proof"),
    ["data-keys-are-whole 1 ID: no proof"],
  ],
  [
    "a data key's proof is null",
    dataKey("proof = null", "alter proof drop not null"),
    ["data-keys-are-whole 1 ID: no proof"],
  ],
  ...(
    [
      [
        "lacks its last byte",
        dataKey("wrapped = substring(wrapped for octet_length(wrapped) - 1)"),
      ],
      ["has a byte too many", dataKey("wrapped = wrapped || decode('00', 'hex')")],
      ["is of another version", replaced("age-encryption.org/v1", "age-encryption.org/v2")],
      ["is for a passphrase", replaced("-> X25519", "-> scrypt")],
      ["has no MAC", replaced("--- ", "-- -")],
      ["is null", dataKey("wrapped = null", "alter wrapped drop not null")],
      ["is nothing of the kind", dataKey("wrapped = decode(repeat('ff', 600), 'hex')")],
      [
        "is armored",
        dataKey(
          "wrapped = convert_to('-----BEGIN AGE ENCRYPTED FILE-----' || chr(10) || encode(wrapped, 'base64'), 'UTF8')",
        ),
      ],
    ] as const
  ).map(
    ([what, change]) =>
      [
        `the age file of a data key ${what}`,
        change,
        ["data-keys-are-whole 1 ID: not the age file of a data key"],
      ] as const,
  ),
  [
    "somebody who is not named can open a data key",
    dataKey("recipients = recipients[1:2]"),
    ["data-keys-are-whole 1 ID: 2 recipients named, 3 in its age file"],
  ],
  [
    "somebody who is named cannot open a data key",
    dataKey("recipients = recipients || recipients[1]"),
    ["data-keys-are-whole 1 ID: 4 recipients named, 3 in its age file"],
  ],
  [
    "a data key is for recipients of another kind than it says",
    dataKey("recipients[2] = 'age1pq1' || substring(recipients[2] from 5)"),
    ["data-keys-are-whole 1 ID: recipients of another kind in its age file"],
  ],
  [
    "a data key is of a generation that nobody registered",
    dataKey("generation = 7"),
    ["data-keys-are-whole 1 ID: generation 7 is not registered"],
  ],
  [
    "one seal stands for two tokens",
    `update pii_vault.originals set sealed = ${sealedOf("u1")} where token = ${tokenOf("u2")}`,
    ["nonces-are-used-once 2 ID"],
  ],
  [
    "an original and a body were sealed with one nonce",
    `update etl.quarantine set sealed = substring(${sealedOf("u1")} for 12) || substring(sealed from 13)
     where message_id = 'open'`,
    ["nonces-are-used-once 2 ID"],
  ],
  [
    "one nonce was used under two data keys",
    `update pii_vault.originals set sealed = ${sealedOf("u1")}
     where token = ${tokenOf("post-quantum", "min(masked_device_id)")}`,
    [],
  ],
  [
    "a row was deleted",
    "delete from public.user_logins where user_id = 'u6'",
    [day("2030-03-02", 5, 6)],
  ],
  [
    "a row of a day that the ledger has forgotten was deleted",
    "delete from public.user_logins where user_id = 'u1'",
    [day("2030-01-02", 4, 5)],
  ],
  [
    "an adopted row was deleted",
    "delete from public.user_logins where user_id = 'a3'",
    [day("without a date", 0, 1)],
  ],
  [
    "somebody else inserted a row",
    "insert into public.user_logins (user_id, create_date) values ('x', '2030-03-02')",
    [day("2030-03-02", 7, 6)],
  ],
  [
    "somebody else inserted a row without a date",
    "insert into public.user_logins (user_id) values ('x')",
    [day("without a date", 2, 1)],
  ],
  [
    "a row was given another date",
    "update public.user_logins set create_date = 'infinity' where user_id = 'u6'",
    [
      "tokens-have-originals 2 dev1_…, ip1_…",
      "days-add-up 2 2030-03-02: 5 rows and quarantined, 6 stored messages, infinity: 1 rows and quarantined, 0 stored messages",
    ],
  ],
  [
    "a quarantined message was deleted",
    "delete from etl.quarantine where message_id = 'open'",
    [day("2030-03-03", 2, 3)],
  ],
  [
    "a message was marked as replayed and has no row",
    "update etl.quarantine set state = 'replayed', sealed = null where message_id = 'open'",
    [day("2030-03-03", 2, 3)],
  ],
  [
    "a ledger entry is gone",
    "delete from etl.ledger where message_id = 'm6'",
    [day("2030-03-02", 6, 5)],
  ],
  [
    "a message was stored and left no row",
    "insert into etl.ledger values ('2030-03-02', 'x')",
    [day("2030-03-02", 6, 7)],
  ],
  [
    "a partition was dropped without its total",
    "drop table etl.ledger_20300302",
    [day("2030-03-02", 6, 0)],
  ],
  [
    "a total is gone",
    "delete from etl.ledger_totals where sent_on = '2011-01-01'",
    [day("2011-01-01", 1, 0)],
  ],
  [
    "what was adopted is not known any more",
    "truncate etl.adopted",
    [
      "values-are-tokens 3 2019-12-31: 2 values, 2030-01-02: 1 values",
      "days-add-up 3 2019-12-31: 1 rows and quarantined, 0 stored messages, 2030-01-02: 5 rows and quarantined, 4 stored messages, without a date: 1 rows and quarantined, 0 stored messages",
    ],
  ],
  [
    "a message was stored as of two days",
    "insert into etl.ledger values ('2030-03-03', 'm6')",
    [day("2030-03-03", 3, 4), "messages-are-stored-once 1 m6"],
  ],
  [
    "a request is not in the audit any more",
    audit("delete from pii_vault.audit where action = 'reveal.request'"),
    ["requests-are-on-record 1 ID"],
  ],
  [
    "the audit names other tokens than were asked for",
    audit(
      `update pii_vault.audit set tokens = array['${UNKNOWN}'] where action = 'reveal.request'`,
    ),
    ["requests-are-on-record 1 ID"],
  ],
  [
    "the audit names another login than the one that asked",
    audit("update pii_vault.audit set login = 'somebody' where action = 'quarantine.replay'"),
    ["requests-are-on-record 1 ID"],
  ],
  [
    "the original of a forgotten token is back",
    `insert into pii_vault.originals (token, period, data_key, sealed)
     select ${FORGOTTEN}, period, data_key, sha256(sealed) || sha256(sealed) || substring(sealed for 12)
     from pii_vault.originals where token = ${tokenOf("u1")}`,
    ["erased-stay-erased 1 ip1_…"],
  ],
  [
    "a row has a token that was forgotten",
    `update public.user_logins set masked_ip = ${FORGOTTEN} where user_id = 'u1'`,
    ["tokens-have-originals 1 ip1_…", "erased-stay-erased 1 ip1_…"],
  ],
  [
    "a tombstone stands for no erasure on record",
    `insert into pii_vault.tombstones (token, erasure)
     values ('${UNKNOWN}', ${NOBODYS})`,
    ["erasures-are-on-record 1 ID"],
  ],
  [
    "more was erased than a receipt says",
    `insert into pii_vault.tombstones (token, erasure)
     select '${UNKNOWN}', erasure from pii_vault.tombstones`,
    ["erasures-are-on-record 1 ID"],
  ],
  [
    "something else was erased than a receipt says",
    `insert into pii_vault.tombstones (token, erasure)
     select '${UNKNOWN}', erasure from pii_vault.tombstones;
     delete from pii_vault.tombstones where token <> '${UNKNOWN}'`,
    ["erasures-are-on-record 1 ID"],
  ],
];
