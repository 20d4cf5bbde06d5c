-- The vault: sealed originals, the wrapped keys that seal them, and what stands in the way of a token's original:
-- tombstones, holds, canaries.

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

-- No foreign key to data_keys: the one statement that inserts here registers the data key first, and a check of
-- each row would cost more than the rest of its insert.
--
-- A period is named by its first day. The token comes first in the key: with the period first, 1,000 tokens over 60
-- periods were found in 20 seconds.
create table pii_vault.originals (
  token text collate "C" not null,
  period date not null,
  data_key uuid not null,
  sealed bytea not null,
  sealed_at timestamptz not null default clock_timestamp(),
  constraint originals_key primary key (token, period),
  -- 26 letters: no underscore stands among them, so one before the last 26 says that there are as many. A counted
  -- repetition would cost 4.4 microseconds a token and not 1.7, because its automaton is built anew for each.
  constraint originals_token check (
    token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]+[aeimquy4]$'
    and substr(token, octet_length(token) - 26, 1) = '_'
  ),
  -- Not "between": a dump would bring that back in another form.
  constraint originals_sealed check (
    octet_length(sealed) >= 44 and octet_length(sealed) <= 1068 and octet_length(sealed) % 16 = 12
  )
) partition by range (period);

comment on table pii_vault.originals is
  'for each token and period the first original that was stored, sealed: nonce, ciphertext, tag';

create table pii_vault.originals_default partition of pii_vault.originals default;

-- As of etl.quarantine: no samples of seals are kept where no erasure reaches them. Partitions do not inherit it.
alter table pii_vault.originals alter column sealed set statistics 0;
alter table pii_vault.originals_default alter column sealed set statistics 0;

-- Nothing but a lock, so that no vacuum or dump is ever in its way.
create table pii_vault.erasure_gate (
  nothing boolean not null,
  constraint erasure_gate_key primary key (nothing),
  constraint erasure_gate_empty check (false)
);

comment on table pii_vault.erasure_gate is
  'always empty: loads lock it in row share mode, erasures in exclusive mode';

-- Forgotten tokens. The next message with such a value gets a token of generation 0. An expired token needs no tombstone,
-- because its value may come again; etl.periods says which periods have expired.
create table pii_vault.tombstones (
  token text collate "C" not null,
  erasure uuid not null,
  erased_at timestamptz not null default clock_timestamp(),
  constraint tombstones_key primary key (token),
  constraint tombstones_token check (
    token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]+[aeimquy4]$'
    and substr(token, octet_length(token) - 26, 1) = '_'
  )
);

comment on table pii_vault.tombstones is
  'tokens whose originals were forgotten, which must not come back';

create index tombstones_erasure on pii_vault.tombstones (erasure);

create table pii_vault.holds (
  id uuid not null default gen_random_uuid(),
  token text collate "C",
  user_id text collate "C",
  reason text not null,
  added_by text not null default session_user,
  added_at timestamptz not null default clock_timestamp(),
  released_by text,
  released_at timestamptz,
  release_reason text,
  constraint holds_key primary key (id),
  constraint holds_subject check ((token is null) <> (user_id is null)),
  constraint holds_token check (token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'),
  constraint holds_user_id check (char_length(user_id) between 1 and 128),
  constraint holds_released check (
    (released_at is null) = (released_by is null)
    and (released_at is null) = (release_reason is null)
  )
);

comment on table pii_vault.holds is
  'what must not be erased meanwhile: a token, or every token of a user''s rows';

create index holds_open on pii_vault.holds (token, user_id) where released_at is null;

create table pii_vault.canaries (
  token text collate "C" not null,
  login text not null default session_user,
  added_at timestamptz not null default clock_timestamp(),
  constraint canaries_key primary key (token)
);

comment on table pii_vault.canaries is
  'tokens of originals that no login uses: whoever asks for one has them from elsewhere';
