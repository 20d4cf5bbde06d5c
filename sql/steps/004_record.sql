-- Who asked for which originals, what the policy made of it, and the audit with its chain.

-- The address is null for a Unix socket. `details` is json and not jsonb: it is hashed as it was written. `role` has
-- no default, which would have to call a function; pii_vault.record says it.
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
  role text,
  address text default host(inet_client_addr()),
  details json,
  constraint audit_key primary key (id),
  constraint audit_action check (action ~ '^[a-z]+\.[a-z]+$'),
  constraint audit_reason check (char_length(reason) <= 1000)
);

comment on table pii_vault.audit is
  'who asked for which originals, when and why; written before the answer exists, never changed';

create index audit_at on pii_vault.audit (at);
create index audit_alarms on pii_vault.audit (at) where action = 'canary.alarm';

create table pii_vault.audit_waiting (
  entry bigint not null,
  constraint audit_waiting_key primary key (entry)
);

comment on table pii_vault.audit_waiting is 'the audit entries that are on no chain yet';

create table pii_vault.audit_chain (
  position bigint not null,
  entry bigint not null,
  hash bytea not null,
  constraint audit_chain_key primary key (position),
  constraint audit_chain_entry unique (entry),
  constraint audit_chain_position check (position > 0),
  constraint audit_chain_hash check (octet_length(hash) = 32)
);

comment on table pii_vault.audit_chain is
  'the audit entries in the order in which they were chained, each with a hash over all of them up to it';

create table pii_vault.audit_head (
  chain uuid not null default gen_random_uuid(),
  position bigint not null,
  hash bytea not null,
  constraint audit_head_key primary key (chain),
  constraint audit_head_hash check (octet_length(hash) = 32)
);

create unique index audit_head_only on pii_vault.audit_head ((true));

comment on table pii_vault.audit_head is 'which chain this is, and where it ends';

with made as (select gen_random_uuid() as chain)
insert into pii_vault.audit_head (chain, position, hash)
select m.chain, 0, sha256(convert_to('veil/v1/audit-genesis', 'UTF8') || uuid_send(m.chain))
from made m;

-- A committed entry here is what fetch_reveal serves: what was sealed before it was recorded. What was decided then
-- stands here too: a later change of the policy changes no request.
create table pii_vault.requests (
  id uuid not null default gen_random_uuid(),
  kind text not null,
  login text not null default session_user,
  login_oid oid not null,
  subjects text[] not null,
  recorded_at timestamptz not null default clock_timestamp(),
  recorded_xid xid8 not null default pg_current_xact_id(),
  reason text,
  purpose text,
  break_glass boolean not null default false,
  approval text not null default 'none',
  refusal text,
  refusal_detail text,
  request_seconds integer not null default 900,
  approval_seconds integer not null default 900,
  ip_tokens integer not null default 0,
  device_tokens integer not null default 0,
  bodies integer not null default 0,
  constraint requests_key primary key (id),
  constraint requests_kind check (kind in ('reveal', 'show', 'replay')),
  constraint requests_approval check (approval in ('none', 'needed', 'skipped'))
);

create index requests_of_login on pii_vault.requests (login_oid, recorded_at);
create index requests_waiting on pii_vault.requests (recorded_at) where approval = 'needed';
create index requests_break_glass on pii_vault.requests (recorded_at) where break_glass;

create table pii_vault.policies (
  field text not null,
  reason_required boolean not null default false,
  purposes text[] not null default '{}',
  hourly integer,
  daily integer,
  approval boolean not null default false,
  request_seconds integer not null default 900,
  approval_seconds integer not null default 900,
  erased_may_return boolean not null default false,
  constraint policies_key primary key (field),
  constraint policies_field check (field in ('ip', 'device_id', 'body')),
  constraint policies_purposes check (
    cardinality(purposes) <= 50 and coalesce(array_position(purposes, null), 0) = 0
    and array_to_string(purposes, ' ') ~ '^([a-z][a-z0-9-]{0,31}( |$))*$'
  ),
  constraint policies_hourly check (hourly >= 0),
  constraint policies_daily check (daily >= 0),
  constraint policies_request_seconds check (request_seconds between 60 and 2592000),
  constraint policies_approval_seconds check (approval_seconds between 60 and 2592000),
  -- request_bodies takes no purpose, and a body has no token that could return.
  constraint policies_body check (
    field <> 'body' or (purposes = '{}' and not erased_may_return)
  )
);

comment on table pii_vault.policies is
  'what a request for originals of a field, or for quarantined bodies, has to meet; null: no limit';

insert into pii_vault.policies (field) values ('ip'), ('device_id'), ('body');

-- One line a login, only to be locked: of two sessions that ask for the last budgeted token, the second one waits
-- for the first, and then sees what it took.
create table pii_vault.spenders (
  login_oid oid not null,
  requests bigint not null default 1,
  constraint spenders_key primary key (login_oid)
);

create table pii_vault.verdicts (
  request uuid not null,
  approved boolean not null,
  login text not null default session_user,
  login_oid oid not null,
  decided_at timestamptz not null default clock_timestamp(),
  constraint verdicts_key primary key (request)
);

create table pii_vault.reviews (
  request uuid not null,
  login text not null default session_user,
  login_oid oid not null,
  reviewed_at timestamptz not null default clock_timestamp(),
  constraint reviews_key primary key (request)
);
