-- The vault: sealed originals, the wrapped keys that seal them, and who asked for what.

set local role veil_owner;

create table pii_vault.key_generations (
  generation integer not null,
  key_check bytea not null,
  registered_by text not null default session_user,
  registered_at timestamptz not null default clock_timestamp(),
  constraint key_generations_key primary key (generation),
  constraint key_generations_generation check (generation > 0),
  constraint key_generations_key_check check (octet_length(key_check) = 8)
);

comment on table pii_vault.key_generations is
  'which token key belongs to which generation: eight derived bytes of it, no secret';

create table pii_vault.data_keys (
  id uuid not null,
  generation integer not null,
  wrapped bytea not null,
  recipients text[] not null,
  proof bytea not null,
  created_by text not null default session_user,
  created_at timestamptz not null default clock_timestamp(),
  constraint data_keys_key primary key (id),
  constraint data_keys_generation check (generation > 0),
  constraint data_keys_wrapped check (octet_length(wrapped) between 100 and 1048576),
  constraint data_keys_recipients check (cardinality(recipients) > 0),
  constraint data_keys_proof check (octet_length(proof) = 32)
);

comment on table pii_vault.data_keys is
  'data keys, each an age file to the recipients; proof shows that a holder of the token key made it';

-- No foreign key to data_keys: the one statement that inserts here registers the data key first, and
-- a check of each row would cost more than the rest of its insert.
create table pii_vault.originals (
  token text collate "C" not null,
  data_key uuid not null,
  sealed bytea not null,
  sealed_at timestamptz not null default clock_timestamp(),
  constraint originals_key primary key (token),
  constraint originals_token check (token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'),
  constraint originals_sealed
    check (octet_length(sealed) between 44 and 1068 and octet_length(sealed) % 16 = 12)
);

comment on table pii_vault.originals is
  'for each token the first original that was stored, sealed: nonce, ciphertext, tag';

create table pii_vault.audit (
  id bigint generated always as identity,
  at timestamptz not null default clock_timestamp(),
  login text not null default session_user,
  login_oid oid not null,
  action text not null,
  request uuid,
  tokens text[] not null default '{}',
  message_ids text[] not null default '{}',
  items integer not null,
  reason text,
  constraint audit_key primary key (id),
  constraint audit_action check (
    action in (
      'reveal.request', 'reveal.fetch', 'quarantine.show', 'quarantine.fetch',
      'quarantine.replay', 'quarantine.replayed', 'quarantine.discard'
    )
  ),
  constraint audit_reason check (char_length(reason) <= 1000)
);

comment on table pii_vault.audit is
  'who asked for which originals, when and why; written before the answer exists, never changed';

create index audit_at on pii_vault.audit (at);

create function pii_vault.refuse_change() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'VL020',
    message = format('%I.%I is append-only: %s is refused', tg_table_schema, tg_table_name, tg_op);
end
$$;

create trigger audit_append_only
  before update or delete or truncate on pii_vault.audit
  for each statement execute function pii_vault.refuse_change();

-- A committed entry here is what fetch_reveal serves. Apart from the audit, because it keeps what nobody may
-- read: for each subject a digest of what was sealed for it when asked, or 32 random bytes where nothing
-- was. The two look alike, so that not even the size of the row says which subjects exist.
create table pii_vault.requests (
  id uuid not null default gen_random_uuid(),
  purpose text not null,
  login text not null default session_user,
  login_oid oid not null,
  subjects text[] not null,
  digests bytea[] not null,
  recorded_at timestamptz not null default clock_timestamp(),
  recorded_xid xid8 not null default pg_current_xact_id(),
  constraint requests_key primary key (id),
  constraint requests_digests check (cardinality(digests) = cardinality(subjects)),
  constraint requests_purpose check (purpose in ('reveal', 'show', 'replay'))
);

create trigger requests_append_only
  before update or delete or truncate on pii_vault.requests
  for each statement execute function pii_vault.refuse_change();

grant select on pii_vault.audit to veil_auditor;
