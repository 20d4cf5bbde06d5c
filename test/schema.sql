-- What the migrations end in. Written by the tests: UPDATE_SCHEMA=1 bun test test/database/migrate

-- schemas

schema etl owner veil_owner
schema pii_vault owner veil_owner

-- columns

etl.adopted.day date
etl.adopted.messages bigint not null
etl.adopted.plain_values bigint not null
etl.ledger.sent_on date not null
etl.ledger.message_id text collate C not null
etl.ledger_default.sent_on date not null
etl.ledger_default.message_id text collate C not null
etl.ledger_totals.sent_on date not null
etl.ledger_totals.messages bigint not null
etl.migrations.version integer not null
etl.migrations.name text not null
etl.migrations.applied_at timestamp with time zone not null default now()
etl.quarantine.message_id text collate C not null
etl.quarantine.sent_at timestamp with time zone not null
etl.quarantine.reason text not null
etl.quarantine.data_key uuid not null
etl.quarantine.sealed bytea
etl.quarantine.state text not null default 'open'::text
etl.quarantine.quarantined_at timestamp with time zone not null default clock_timestamp()
etl.quarantine.changed_at timestamp with time zone
etl.quarantine.changed_by text
pii_vault.audit.id bigint not null generated always as identity
pii_vault.audit.at timestamp with time zone not null default clock_timestamp()
pii_vault.audit.login text not null default SESSION_USER
pii_vault.audit.login_oid oid not null
pii_vault.audit.action text not null
pii_vault.audit.request uuid
pii_vault.audit.tokens text[] not null default '{}'::text[]
pii_vault.audit.message_ids text[] not null default '{}'::text[]
pii_vault.audit.items integer not null
pii_vault.audit.reason text
pii_vault.audit.role text default NULLIF(current_setting('role'::text), 'none'::text)
pii_vault.audit.address text default host(inet_client_addr())
pii_vault.audit.details json
pii_vault.data_keys.id uuid not null
pii_vault.data_keys.generation integer not null
pii_vault.data_keys.wrapped bytea not null
pii_vault.data_keys.recipients text[] not null
pii_vault.data_keys.proof bytea not null
pii_vault.data_keys.created_by text not null default SESSION_USER
pii_vault.data_keys.created_at timestamp with time zone not null default clock_timestamp()
pii_vault.key_generations.generation integer not null
pii_vault.key_generations.key_check bytea not null
pii_vault.key_generations.registered_by text not null default SESSION_USER
pii_vault.key_generations.registered_at timestamp with time zone not null default clock_timestamp()
pii_vault.originals.token text collate C not null
pii_vault.originals.data_key uuid not null
pii_vault.originals.sealed bytea not null
pii_vault.originals.sealed_at timestamp with time zone not null default clock_timestamp()
pii_vault.requests.id uuid not null default gen_random_uuid()
pii_vault.requests.purpose text not null
pii_vault.requests.login text not null default SESSION_USER
pii_vault.requests.login_oid oid not null
pii_vault.requests.subjects text[] not null
pii_vault.requests.digests bytea[] not null
pii_vault.requests.recorded_at timestamp with time zone not null default clock_timestamp()
pii_vault.requests.recorded_xid xid8 not null default pg_current_xact_id()
public.user_logins.user_id character varying(128)
public.user_logins.device_type character varying(32)
public.user_logins.masked_ip character varying(256)
public.user_logins.masked_device_id character varying(256)
public.user_logins.locale character varying(32)
public.user_logins.app_version integer
public.user_logins.create_date date

-- tables

table etl.adopted owner veil_owner
table etl.ledger owner veil_owner partition by RANGE (sent_on)
table etl.ledger_default owner veil_owner partition DEFAULT
table etl.ledger_totals owner veil_owner
table etl.migrations owner veil_owner
table etl.quarantine owner veil_owner
table pii_vault.audit owner veil_owner
table pii_vault.data_keys owner veil_owner
table pii_vault.key_generations owner veil_owner
table pii_vault.originals owner veil_owner
table pii_vault.requests owner veil_owner
table public.user_logins owner veil_owner
view public.user_logins_per_token_and_day owner veil_owner
view public.user_logins_shared_tokens owner veil_owner

-- constraints

etl.adopted adopted_day UNIQUE (day)
etl.adopted adopted_plain_values CHECK ((plain_values >= 0))
etl.ledger ledger_key PRIMARY KEY (sent_on, message_id)
etl.ledger ledger_message_id CHECK (((char_length(message_id) >= 1) AND (char_length(message_id) <= 128)))
etl.ledger_default ledger_default_pkey PRIMARY KEY (sent_on, message_id)
etl.ledger_default ledger_message_id CHECK (((char_length(message_id) >= 1) AND (char_length(message_id) <= 128)))
etl.ledger_totals ledger_totals_key PRIMARY KEY (sent_on)
etl.ledger_totals ledger_totals_messages CHECK ((messages > 0))
etl.migrations migrations_key PRIMARY KEY (version)
etl.quarantine quarantine_key PRIMARY KEY (message_id)
etl.quarantine quarantine_message_id CHECK (((char_length(message_id) >= 1) AND (char_length(message_id) <= 128)))
etl.quarantine quarantine_reason CHECK (((char_length(reason) >= 1) AND (char_length(reason) <= 500)))
etl.quarantine quarantine_sealed CHECK (((sealed IS NULL) = (state = 'discarded'::text)))
etl.quarantine quarantine_state CHECK ((state = ANY (ARRAY['open'::text, 'replayed'::text, 'discarded'::text])))
pii_vault.audit audit_action CHECK ((action ~ '^[a-z]+\.[a-z]+$'::text))
pii_vault.audit audit_key PRIMARY KEY (id)
pii_vault.audit audit_reason CHECK ((char_length(reason) <= 1000))
pii_vault.data_keys data_keys_generation CHECK ((generation > 0))
pii_vault.data_keys data_keys_key PRIMARY KEY (id)
pii_vault.data_keys data_keys_proof CHECK ((octet_length(proof) = 32))
pii_vault.data_keys data_keys_recipients CHECK ((cardinality(recipients) > 0))
pii_vault.data_keys data_keys_wrapped CHECK (((octet_length(wrapped) >= 100) AND (octet_length(wrapped) <= 1048576)))
pii_vault.key_generations key_generations_generation CHECK ((generation > 0))
pii_vault.key_generations key_generations_key PRIMARY KEY (generation)
pii_vault.key_generations key_generations_key_check CHECK ((octet_length(key_check) = 8))
pii_vault.originals originals_key PRIMARY KEY (token)
pii_vault.originals originals_sealed CHECK ((((octet_length(sealed) >= 44) AND (octet_length(sealed) <= 1068)) AND ((octet_length(sealed) % 16) = 12)))
pii_vault.originals originals_token CHECK (((token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]+[aeimquy4]$'::text) AND (substr(token, (octet_length(token) - 26), 1) = '_'::text))) NOT VALID
pii_vault.requests requests_digests CHECK ((cardinality(digests) = cardinality(subjects)))
pii_vault.requests requests_key PRIMARY KEY (id)
pii_vault.requests requests_purpose CHECK ((purpose = ANY (ARRAY['reveal'::text, 'show'::text, 'replay'::text])))

-- indexes

CREATE UNIQUE INDEX adopted_day ON etl.adopted USING btree (day)
CREATE UNIQUE INDEX ledger_key ON ONLY etl.ledger USING btree (sent_on, message_id)
CREATE UNIQUE INDEX ledger_default_pkey ON etl.ledger_default USING btree (sent_on, message_id)
CREATE UNIQUE INDEX ledger_totals_key ON etl.ledger_totals USING btree (sent_on)
CREATE UNIQUE INDEX migrations_key ON etl.migrations USING btree (version)
CREATE UNIQUE INDEX quarantine_key ON etl.quarantine USING btree (message_id)
CREATE INDEX quarantine_open ON etl.quarantine USING btree (sent_at) WHERE (state = 'open'::text)
CREATE INDEX audit_at ON pii_vault.audit USING btree (at)
CREATE UNIQUE INDEX audit_key ON pii_vault.audit USING btree (id)
CREATE UNIQUE INDEX data_keys_key ON pii_vault.data_keys USING btree (id)
CREATE UNIQUE INDEX key_generations_key ON pii_vault.key_generations USING btree (generation)
CREATE UNIQUE INDEX originals_key ON pii_vault.originals USING btree (token)
CREATE UNIQUE INDEX requests_key ON pii_vault.requests USING btree (id)
CREATE INDEX user_logins_create_date_idx ON public.user_logins USING brin (create_date)
CREATE INDEX user_logins_masked_device_id_idx ON public.user_logins USING btree (masked_device_id)
CREATE INDEX user_logins_masked_ip_idx ON public.user_logins USING btree (masked_ip)
CREATE INDEX user_logins_user_id_idx ON public.user_logins USING btree (user_id)

-- triggers

CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON pii_vault.audit FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER requests_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON pii_vault.requests FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()

-- views

public.user_logins_per_token_and_day as
 SELECT 'ip'::text AS field,
    masked_ip AS token,
    create_date,
    count(*) AS logins,
    count(DISTINCT user_id) AS users
   FROM public.user_logins
  WHERE (masked_ip IS NOT NULL)
  GROUP BY masked_ip, create_date
UNION ALL
 SELECT 'device_id'::text AS field,
    masked_device_id AS token,
    create_date,
    count(*) AS logins,
    count(DISTINCT user_id) AS users
   FROM public.user_logins
  WHERE (masked_device_id IS NOT NULL)
  GROUP BY masked_device_id, create_date;

public.user_logins_shared_tokens as
 SELECT 'ip'::text AS field,
    masked_ip AS token,
    count(DISTINCT user_id) AS users,
    count(*) AS logins,
    min(create_date) AS first_day,
    max(create_date) AS last_day
   FROM public.user_logins
  WHERE (masked_ip IS NOT NULL)
  GROUP BY masked_ip
 HAVING (count(DISTINCT user_id) > 1)
UNION ALL
 SELECT 'device_id'::text AS field,
    masked_device_id AS token,
    count(DISTINCT user_id) AS users,
    count(*) AS logins,
    min(create_date) AS first_day,
    max(create_date) AS last_day
   FROM public.user_logins
  WHERE (masked_device_id IS NOT NULL)
  GROUP BY masked_device_id
 HAVING (count(DISTINCT user_id) > 1);

-- functions

CREATE OR REPLACE FUNCTION etl.app_version_text(app_version integer)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN ((((((app_version / 1000000))::text || '.'::text) || (((app_version / 1000) % 1000))::text) || '.'::text) || ((app_version % 1000))::text)
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_invariant(invariant text)
 RETURNS TABLE(checked bigint, offenders bigint, examples text[])
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
begin
  -- A snapshot from before could miss both a dropped partition and its total.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = 'a check needs the isolation level read committed';
  end if;

  if invariant = 'tokens-have-originals' then
    -- Generation 0 stands for nothing recoverable. The columns' own collation may be anything in an
    -- adopted table.
    return query
      with lost as (
        select distinct t.token
        from (
          select u.masked_ip collate "C" from public.user_logins u
          where u.masked_ip is not null and not exists (
            select from pii_vault.originals o where o.token = u.masked_ip collate "C"
          )
          union all
          select u.masked_device_id collate "C" from public.user_logins u
          where u.masked_device_id is not null and not exists (
            select from pii_vault.originals o where o.token = u.masked_device_id collate "C"
          )
          -- The join first: the form of a million values costs ten times as much.
          offset 0
        ) t (token)
        where t.token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'
      )
      select
        (select count(u.masked_ip) + count(u.masked_device_id) from public.user_logins u),
        (select count(*) from lost),
        array(select l.token::text from lost l order by l.token limit 5);

  elsif invariant = 'values-are-tokens' then
    return query
      with broken as (
        select d.day, sum(d.plain)::bigint as plain
        from (
          select p.day, p.amount as plain from etl.plain_values() p
          union all
          select a.day, -a.plain_values from etl.adopted a where a.plain_values > 0
        ) d
        group by d.day
        having sum(d.plain) > 0
      )
      select
        (select count(u.masked_ip) + count(u.masked_device_id) from public.user_logins u),
        (select coalesce(sum(b.plain), 0)::bigint from broken b),
        array(
          select format('%s: %s values', etl.day_text(b.day), b.plain)
          from broken b order by b.day limit 5
        );

  elsif invariant = 'originals-have-data-keys' then
    return query
      with lost as (
        select o.token from pii_vault.originals o
        where not exists (select from pii_vault.data_keys k where k.id = o.data_key)
      )
      select
        (select count(*) from pii_vault.originals),
        (select count(*) from lost),
        array(select l.token from lost l order by l.token limit 5);

  elsif invariant = 'bodies-have-data-keys' then
    return query
      with lost as (
        select q.message_id from etl.quarantine q
        where q.sealed is not null
          and not exists (select from pii_vault.data_keys k where k.id = q.data_key)
      )
      select
        (select count(*) from etl.quarantine q where q.sealed is not null),
        (select count(*) from lost),
        array(select l.message_id from lost l order by l.message_id limit 5);

  elsif invariant = 'data-keys-are-whole' then
    -- The header of a binary age file ends with its MAC, after which come a nonce of 16 bytes and the
    -- data key's 32 with their tag. Every stanza of the header is somebody who can open it.
    return query
      with read as (
        select
          k.id, k.generation, coalesce(cardinality(k.recipients), 0) as named,
          coalesce(octet_length(k.proof), 0) as proof_bytes,
          (
            h.header ~ E'^age-encryption[.]org/v1\n(-> (X25519|mlkem768x25519) [A-Za-z0-9+/]+\n[A-Za-z0-9+/]+\n)+--- [A-Za-z0-9+/]+\n$'
            and octet_length(k.wrapped) = m.mac + 48 + 64
          ) is true as is_age_file,
          (select count(*) from regexp_matches(h.header, E'\n-> X25519 ', 'g')) as classic,
          (select count(*) from regexp_matches(h.header, E'\n-> mlkem768x25519 ', 'g')) as hybrid,
          (select count(*) from unnest(k.recipients) r (name) where r.name like 'age1pq1%') as named_hybrid
        from pii_vault.data_keys k
        cross join lateral (
          select position(decode('0a2d2d2d20', 'hex') in k.wrapped) as mac
        ) m
        cross join lateral (
          select encode(substring(k.wrapped for m.mac + 48), 'escape') as header
        ) h
      ),
      broken as (
        select r.id, case
          when r.named = 0 then 'no recipients'
          when r.proof_bytes <> 32 then 'no proof'
          when not r.is_age_file then 'not the age file of a data key'
          when r.classic + r.hybrid <> r.named
            then format('%s recipients named, %s in its age file', r.named, r.classic + r.hybrid)
          when r.hybrid <> r.named_hybrid then 'recipients of another kind in its age file'
          when not exists (
            select from pii_vault.key_generations g where g.generation = r.generation
          ) then format('generation %s is not registered', r.generation)
        end as what
        from read r
      )
      select
        (select count(*) from broken),
        (select count(b.what) from broken b),
        array(
          select format('%s: %s', b.id, b.what)
          from broken b where b.what is not null order by b.id limit 5
        );

  elsif invariant = 'nonces-are-used-once' then
    -- Under one data key, that is. The same seal twice has the same nonce twice.
    return query
      with seals as (
        select o.data_key, o.sealed from pii_vault.originals o
        union all
        select q.data_key, q.sealed from etl.quarantine q where q.sealed is not null
      ),
      nonces as (
        select s.data_key, count(*) as times from seals s
        group by s.data_key, substring(s.sealed for 12)
      )
      select
        coalesce(sum(n.times), 0)::bigint,
        coalesce(sum(n.times) filter (where n.times > 1), 0)::bigint,
        coalesce((array_agg(distinct n.data_key::text) filter (where n.times > 1))[1:5], '{}')
      from nonces n;

  elsif invariant = 'days-add-up' then
    -- Before the snapshot, so that it sees either a partition or its total.
    lock table etl.ledger in access share mode;
    return query
      with days as (
        select s.day, sum(s.held)::bigint as held, sum(s.stored)::bigint as stored
        from (
          select u.create_date, count(*), 0 from public.user_logins u group by u.create_date
          union all
          select (q.sent_at at time zone 'UTC')::date, count(*), 0
          from etl.quarantine q where q.state <> 'replayed' group by 1
          union all
          select l.sent_on, 0, count(*) from etl.ledger l group by l.sent_on
          union all
          select t.sent_on, 0, t.messages from etl.ledger_totals t
          union all
          select a.day, 0, a.messages from etl.adopted a
        ) s (day, held, stored)
        group by s.day
      )
      select
        count(*),
        count(*) filter (where d.held <> d.stored),
        coalesce(
          (
            array_agg(
              format(
                '%s: %s rows and quarantined, %s stored messages',
                etl.day_text(d.day), d.held, d.stored
              )
              order by d.day
            ) filter (where d.held <> d.stored)
          )[1:5],
          '{}'
        )
      from days d;

  elsif invariant = 'messages-are-stored-once' then
    lock table etl.ledger in access share mode;
    return query
      with ids as (
        select l.message_id, count(*) as times from etl.ledger l group by l.message_id
      )
      select
        coalesce(sum(i.times), 0)::bigint,
        count(*) filter (where i.times > 1),
        coalesce(
          (array_agg(i.message_id order by i.message_id) filter (where i.times > 1))[1:5], '{}'
        )
      from ids i;

  elsif invariant = 'requests-are-on-record' then
    return query
      with lost as (
        select r.id from pii_vault.requests r
        where not exists (
          select from pii_vault.audit a
          where a.request = r.id and a.login = r.login and a.login_oid = r.login_oid
            and a.tokens || a.message_ids = r.subjects
            and a.action = case r.purpose
              when 'reveal' then 'reveal.request' else 'quarantine.' || r.purpose
            end
        )
      )
      select
        (select count(*) from pii_vault.requests),
        (select count(*) from lost),
        array(select l.id::text from lost l order by l.id limit 5);

  else
    raise exception using errcode = 'VL006', message = 'there is no such invariant';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_key(generation integer, key_check bytea, register boolean)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  known bytea;
begin
  if check_key.generation is null or check_key.key_check is null then
    raise exception using errcode = 'VL010', message = 'a load names its token key: generation and check';
  end if;
  select g.key_check into known
  from pii_vault.key_generations g where g.generation = check_key.generation;
  if not found and register then
    -- Rare (once in the life of a database), so a lock that lets one in at a time may cost something.
    lock table pii_vault.key_generations in share row exclusive mode;
    if not exists (select from pii_vault.key_generations) then
      insert into pii_vault.key_generations (generation, key_check)
      values (check_key.generation, check_key.key_check);
    end if;
    select g.key_check into known
    from pii_vault.key_generations g where g.generation = check_key.generation;
  end if;
  if known is null then
    if register or exists (select from pii_vault.key_generations) then
      raise exception using
        errcode = 'VL011',
        message = format('token key generation %s is not registered in this database', generation),
        hint = 'use the token key that the other hosts use; changing it is not possible yet';
    end if;
  elsif known is distinct from key_check then
    raise exception using
      errcode = 'VL010',
      message = format('this is not the token key that generation %s was registered with', generation),
      hint = 'use the token key that the other hosts use; nothing was written';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.day_text(day date)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select case
    when day is null then 'without a date'
    when isfinite(day) then to_char(day, 'YYYY-MM-DD')
    else day::text
  end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.discard(message_ids text[], reason text)
 RETURNS integer
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  gone text[];
begin
  perform pii_vault.require_reason_length(reason);
  if coalesce(array_ndims(message_ids), 0) <> 1 or cardinality(message_ids) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 message ids';
  end if;
  with locked as (
    -- In one order, so that two that overlap cannot deadlock.
    select q.message_id
    from etl.quarantine q
    where q.message_id in (select unnest(message_ids)) and q.state = 'open'
    order by q.message_id
    for update
  ),
  discarded as (
    update etl.quarantine q
    set state = 'discarded', sealed = null, changed_at = clock_timestamp(),
      changed_by = session_user
    from locked
    where q.message_id = locked.message_id
    returning q.message_id
  )
  select coalesce(array_agg(message_id::text), '{}') into gone from discarded;
  if cardinality(gone) > 0 then
    insert into pii_vault.audit (login_oid, action, message_ids, items, reason)
    values (
      (select r.oid from pg_roles r where r.rolname = session_user),
      'quarantine.discard', gone, cardinality(gone), nullif(btrim(discard.reason), '')
    );
  end if;
  return cardinality(gone);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.fetch_bodies(request uuid, purpose text)
 RETURNS TABLE(message_id text, sent_at timestamp with time zone, reason text, state text, data_key uuid, sealed bytea, wrapped bytea, proof bytea, generation integer)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  served integer;
begin
  admitted := pii_vault.admit(fetch_bodies.request, fetch_bodies.purpose);
  return query
    select
      q.message_id::text, q.sent_at, q.reason, q.state, q.data_key, q.sealed, k.wrapped, k.proof,
      k.generation
    from unnest(admitted.subjects, admitted.digests) as h (message_id, digest)
    join etl.quarantine q on q.message_id = h.message_id and sha256(q.sealed) = h.digest
    left join pii_vault.data_keys k on k.id = q.data_key
    order by q.sent_at, q.message_id;
  get diagnostics served = row_count;
  perform pii_vault.record_fetch(admitted, 'quarantine.fetch', served);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.housekeep()
 RETURNS TABLE(created integer, dropped integer)
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select created, dropped from etl.housekeep_on((now() at time zone 'UTC')::date)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.housekeep_on(today date)
 RETURNS TABLE(created integer, dropped integer)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '250ms'
AS $function$
declare
  day date;
  missing date[];
  old text[];
  partition text;
  near boolean;
  made integer;
begin
  created := 0;
  dropped := 0;
  -- One at a time; whoever comes second has nothing to do. A lock on a table of the owner's, because any
  -- login could hold an advisory one.
  begin
    lock table etl.migrations in exclusive mode nowait;
  exception when lock_not_available then
    return next;
    return;
  end;

  -- Blocks: where loads are busy just now, one gives up, undoes nothing of the others, and the next call
  -- does it.
  begin
    with gone as (
      delete from etl.ledger_default l where l.sent_on < today - 30 returning l.sent_on
    )
    insert into etl.ledger_totals as t (sent_on, messages)
    select g.sent_on, count(*) from gone g group by g.sent_on
    on conflict (sent_on) do update set messages = t.messages + excluded.messages;
  exception when lock_not_available or deadlock_detected then
    null;
  end;

  begin
    select coalesce(array_agg(c.relname::text order by c.relname), '{}') into old
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'etl.ledger'::regclass
      and c.relname ~ '^ledger_[0-9]{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') < today - 30;
    foreach partition in array old loop
      -- Against a load that would add to it between the count and the end.
      execute format('lock table etl.%I in share row exclusive mode', partition);
      execute format(
        'insert into etl.ledger_totals as t (sent_on, messages)
         select l.sent_on, count(*) from etl.%I l group by l.sent_on
         on conflict (sent_on) do update set messages = t.messages + excluded.messages',
        partition
      );
    end loop;
    foreach partition in array old loop
      execute format('drop table etl.%I', partition);
      dropped := dropped + 1;
    end loop;
  exception when lock_not_available or deadlock_detected then
    dropped := 0;
  end;

  -- First the days ahead, then those that messages may be coming for.
  foreach near in array array[false, true] loop
    made := 0;
    begin
      -- A day that has rows in the default partition keeps them there, all of its rows: each id is known
      -- there as well as anywhere, and they go when they are old.
      select coalesce(array_agg(today + n order by n), '{}') into missing
      from generate_series(-14, 7) n
      where (n < 2) = near
        and to_regclass('etl.ledger_' || to_char(today + n, 'YYYYMMDD')) is null
        and not exists (select from etl.ledger_default l where l.sent_on = today + n);
      if cardinality(missing) > 0 then
        -- A load that has looked for its partition before this one is attached would go on to the
        -- default partition and be refused there (23514). So no load may be under way: they wait here,
        -- for a moment and after an idle week only. Nobody loads the days ahead.
        if near then
          lock table only etl.ledger in share row exclusive mode;
        end if;
        -- Before looking into it again: what a load has put there and not committed yet would not be
        -- seen, and a partition beside such rows is refused.
        lock table etl.ledger_default in access exclusive mode;
      end if;
      foreach day in array missing loop
        continue when exists (select from etl.ledger_default l where l.sent_on = day);
        partition := 'ledger_' || to_char(day, 'YYYYMMDD');
        -- Made apart and attached, because that locks the ledger against other changes of its shape
        -- only; "create table … partition of" would wait for every load, and make every load wait.
        execute format(
          'create table etl.%I (like etl.ledger including defaults including constraints)', partition
        );
        execute format(
          'alter table etl.ledger attach partition etl.%I for values from (%L) to (%L)',
          partition, day, day + 1
        );
        made := made + 1;
      end loop;
      created := created + made;
    exception when lock_not_available or deadlock_detected then
      null;
    end;
  end loop;
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.load(batch uuid, generation integer, key_check bytea, data_key uuid, wrapped bytea, recipients text[], proof bytea, tokens text[], sealed bytea[], message_ids text[], sent_ats timestamp with time zone[], user_ids text[], device_types text[], masked_ips text[], masked_device_ids text[], locales text[], app_versions integer[], rejected_ids text[], rejected_sent_ats timestamp with time zone[], rejected_reasons text[], rejected_bodies bytea[])
 RETURNS TABLE(batch_id uuid, loaded integer, duplicates integer, quarantined integer, new_originals integer)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  rows_in integer := cardinality(message_ids);
  rejected_in integer := cardinality(rejected_ids);
  ids text[];
  days date[];
  fresh text[];
  entered text[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = 'a load needs the isolation level read committed';
  end if;
  if (
    rows_in = all (array[
      cardinality(sent_ats), cardinality(user_ids), cardinality(device_types),
      cardinality(masked_ips), cardinality(masked_device_ids), cardinality(locales),
      cardinality(app_versions)
    ])
    and rejected_in = all (array[
      cardinality(rejected_sent_ats), cardinality(rejected_reasons), cardinality(rejected_bodies)
    ])
    and cardinality(tokens) = cardinality(sealed)
  ) is not true then
    raise exception using
      errcode = 'VL014', message = 'an array of a load is null, or differs from the others in length';
  end if;
  -- A stored message may be deleted from the queue at once, so its commit has to be on disk, whatever
  -- this session was set to.
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  -- Its caller gives up after a minute and asks again. A load that still waited here then, for an
  -- administrator's lock say, would be one more waiting connection with each attempt.
  if current_setting('lock_timeout') = '0' then
    perform set_config('lock_timeout', '20s', true);
  end if;
  -- Plans are made once a session: one that was made for an empty vault must not read a full one through.
  perform set_config('enable_seqscan', 'off', true);

  perform etl.check_key(load.generation, load.key_check, rows_in + rejected_in > 0);

  -- Ids are made distinct first: the same id twice in one batch would join back to two rows. Sorted,
  -- because overlapping loads that lock in one order cannot deadlock (unsorted, 95 of 160 did).
  select
    coalesce(array_agg(m.id order by m.sent_on, m.id), '{}'),
    coalesce(array_agg(m.sent_on order by m.sent_on, m.id), '{}')
  into ids, days
  from (
    select distinct on (b.id collate "C")
      b.id collate "C" as id, (b.sent_at at time zone 'UTC')::date as sent_on
    from (
      select unnest(message_ids || rejected_ids), unnest(sent_ats || rejected_sent_ats)
    ) b (id, sent_at)
    order by b.id collate "C", b.sent_at
  ) m;
  -- Nearly always all of them are new, and then an insert that takes nothing else is half of the price of one
  -- that asks about each first (4.7 against 9 a row).
  begin
    insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids);
    fresh := ids;
  exception when unique_violation then
    with stored as (
      insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids)
      on conflict do nothing
      returning message_id
    )
    select coalesce(array_agg(message_id), '{}') into fresh from stored;
  end;

  loaded := 0;
  quarantined := 0;
  new_originals := 0;
  if cardinality(fresh) > 0 then
    if data_key is not null then
      perform etl.register_data_key(load.data_key, load.generation, wrapped, recipients, proof);
    end if;

    if rows_in > 0 then
      if cardinality(fresh) < rows_in + rejected_in then
        -- Only the fresh ones, each once, in the order of the batch: a FIFO queue's messages become rows
        -- in the order in which they were sent.
        select
          coalesce(array_agg(m.ip), '{}'), coalesce(array_agg(m.device), '{}'),
          coalesce(array_agg(m.user_id), '{}'), coalesce(array_agg(m.device_type), '{}'),
          coalesce(array_agg(m.locale), '{}'), coalesce(array_agg(m.version), '{}'),
          coalesce(array_agg(m.sent_at), '{}')
        into masked_ips, masked_device_ids, user_ids, device_types, locales, app_versions, sent_ats
        from (
          select * from (
            select distinct on (r.id collate "C") r.*
            from unnest(
              message_ids, sent_ats, user_ids, device_types, masked_ips, masked_device_ids, locales,
              app_versions
            ) with ordinality
              as r (id, sent_at, user_id, device_type, ip, device, locale, version, position)
            where r.id in (select unnest(fresh))
            order by r.id collate "C", r.sent_at, r.position
          ) distinct_rows
          order by position
        ) m;
      end if;
      new_originals := etl.store_originals(
        tokens, sealed, load.data_key, masked_ips, masked_device_ids
      );
      -- Elements come in the arrays' order, so rows stand in the order of the batch.
      insert into public.user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
      )
      select
        r.user_id, r.device_type, r.ip, r.device, r.locale, r.version,
        (r.sent_at at time zone 'UTC')::date
      from (
        select
          unnest(user_ids), unnest(device_types), unnest(masked_ips), unnest(masked_device_ids),
          unnest(locales), unnest(app_versions), unnest(sent_ats)
      ) r (user_id, device_type, ip, device, locale, version, sent_at);
      get diagnostics loaded = row_count;
      -- Otherwise a message would be deleted whose row is nowhere.
      if loaded <> cardinality(user_ids) then
        raise exception using
          errcode = 'VL016',
          message = format('public.user_logins took %s of %s rows', loaded, cardinality(user_ids)),
          hint = 'a trigger or a rule on it drops rows: veil needs each of them stored';
      end if;
    end if;

    if rejected_in > 0 then
      with stored as (
        insert into etl.quarantine (message_id, sent_at, reason, data_key, sealed)
        select distinct on (r.id collate "C") r.id, r.sent_at, r.reason, load.data_key, r.body
        from unnest(rejected_ids, rejected_sent_ats, rejected_reasons, rejected_bodies)
          as r (id, sent_at, reason, body)
        where r.id in (select unnest(fresh)) and r.id not in (select unnest(message_ids))
        order by r.id collate "C", r.sent_at
        on conflict do nothing
        returning message_id
      )
      select coalesce(array_agg(message_id), '{}') into entered from stored;
      quarantined := cardinality(entered);
      -- Known to the quarantine and not to the ledger: sent on another day than it was at first, or back
      -- after the ledger has forgotten it. A duplicate, then, and no stored message of this day.
      if loaded + quarantined < cardinality(fresh) then
        delete from etl.ledger l
        using unnest(rejected_ids, rejected_sent_ats) as r (id, sent_at)
        where l.sent_on = (r.sent_at at time zone 'UTC')::date
          and l.message_id = r.id
          and r.id in (select unnest(fresh))
          and r.id not in (select unnest(entered))
          and r.id not in (select unnest(message_ids));
      end if;
    end if;
  end if;

  batch_id := batch;
  duplicates := rows_in + rejected_in - loaded - quarantined;
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.plain_values()
 RETURNS TABLE(day date, amount bigint)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select p.day, count(*)
  from (
    select
      u.create_date,
      starts_with(u.masked_ip collate "C", 'ip')
        and u.masked_ip collate "C" ~ '^ip(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
    from public.user_logins u
    where u.masked_ip is not null and not exists (
      select from pii_vault.originals o
      where o.token = u.masked_ip collate "C" and starts_with(o.token, 'ip')
    )
    union all
    select
      u.create_date,
      starts_with(u.masked_device_id collate "C", 'dev')
        and u.masked_device_id collate "C" ~ '^dev(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
    from public.user_logins u
    where u.masked_device_id is not null and not exists (
      select from pii_vault.originals o
      where o.token = u.masked_device_id collate "C" and starts_with(o.token, 'dev')
    )
    -- Otherwise the planner looks at the form first.
    offset 0
  ) p (day, is_token)
  where not p.is_token
  group by p.day
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.register_data_key(id uuid, generation integer, wrapped bytea, recipients text[], proof bytea)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  insert into pii_vault.data_keys (id, generation, wrapped, recipients, proof)
  values (
    register_data_key.id, register_data_key.generation, register_data_key.wrapped,
    register_data_key.recipients, register_data_key.proof
  )
  on conflict do nothing;
  if not found and not exists (
    select from pii_vault.data_keys k
    where k.id = register_data_key.id
      and k.generation = register_data_key.generation
      and k.wrapped = register_data_key.wrapped
      and k.proof = register_data_key.proof
  ) then
    raise exception using errcode = 'VL012', message = 'another data key is registered under this id';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.replay(request uuid, message_id text, generation integer, key_check bytea, data_key uuid, wrapped bytea, recipients text[], proof bytea, tokens text[], sealed bytea[], user_id text, device_type text, masked_ip text, masked_device_id text, locale text, app_version integer)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  entry etl.quarantine;
begin
  admitted := pii_vault.admit(replay.request, 'replay');
  if (replay.message_id = any (admitted.subjects)) is not true then
    raise exception using
      errcode = 'VL001', message = 'the request does not name this message';
  end if;
  perform etl.check_key(replay.generation, replay.key_check, true);
  update etl.quarantine q
  set state = 'replayed', changed_at = clock_timestamp(), changed_by = session_user
  where q.message_id = replay.message_id and q.state = 'open'
  returning q.* into entry;
  if not found then
    return false;
  end if;
  -- The very body that was asked for, so that the record says what this row was made of.
  if not exists (
    select from unnest(admitted.subjects, admitted.digests) as h (id, digest)
    where h.id = replay.message_id and h.digest = sha256(entry.sealed)
  ) then
    raise exception using
      errcode = 'VL001', message = 'the request is not for the body that is quarantined now';
  end if;
  if replay.data_key is not null then
    perform etl.register_data_key(
      replay.data_key, replay.generation, replay.wrapped, replay.recipients, replay.proof
    );
  end if;
  perform etl.store_originals(
    replay.tokens, replay.sealed, replay.data_key, array[replay.masked_ip],
    array[replay.masked_device_id]
  );
  insert into public.user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
  ) values (
    replay.user_id, replay.device_type, replay.masked_ip, replay.masked_device_id, replay.locale,
    replay.app_version, (entry.sent_at at time zone 'UTC')::date
  );
  insert into pii_vault.audit (login_oid, action, request, message_ids, items)
  values (
    admitted.login_oid, 'quarantine.replayed', admitted.id, array[replay.message_id], 1
  );
  return true;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.request_bodies(message_ids text[], purpose text, reason text)
 RETURNS uuid
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  asked text[];
  digests bytea[];
begin
  perform pii_vault.require_reason_length(reason);
  if purpose is null or purpose not in ('show', 'replay') then
    raise exception using errcode = 'VL006', message = 'expected the purpose show or replay';
  end if;
  if coalesce(array_ndims(message_ids), 0) <> 1 or cardinality(message_ids) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 message ids';
  end if;
  if exists (
    select from unnest(message_ids) m (id) where id is null or char_length(id) not between 1 and 128
  ) then
    raise exception using
      errcode = 'VL006', message = 'one of the message ids is not of 1 to 128 characters';
  end if;
  select array_agg(m.id), array_agg(coalesce(sha256(q.sealed), pii_vault.random_digest()))
  into asked, digests
  from (select distinct id from unnest(message_ids) u (id)) m
  left join etl.quarantine q on q.message_id = m.id;
  return pii_vault.record_request(purpose, asked, digests, reason);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.schema_version()
 RETURNS integer
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(max(version), 0) from etl.migrations
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.store_originals(tokens text[], sealed bytea[], data_key uuid, masked_ips text[], masked_device_ids text[])
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  stored integer := 0;
begin
  if cardinality(tokens) > 0 then
    insert into pii_vault.originals (token, data_key, sealed)
    select o.token, store_originals.data_key, o.sealed
    from (select unnest(tokens), unnest(store_originals.sealed)) o (token, sealed)
    -- "is true" has the planner hash the list, where it could choose a loop: it takes each for short.
    where (o.token in (select unnest(masked_ips || masked_device_ids))) is true
    order by o.token collate "C"
    on conflict do nothing;
    get diagnostics stored = row_count;
  end if;
  -- What is being deleted at this moment still counts as there: whoever deletes originals has to lock out loads.
  if exists (
    select from (
      select r.token
      from (select unnest(masked_ips || masked_device_ids)) r (token)
      where r.token is not null
        and (r.token in (select unnest(tokens))) is not true
      offset 0
    ) other
    -- One by one: the vault is large.
    where not exists (
      select from pii_vault.originals o where o.token = other.token offset 0
    )
  ) then
    raise exception using errcode = 'VL013', message = 'a row has a token without an original';
  end if;
  return stored;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.admit(request uuid, purpose text)
 RETURNS pii_vault.requests
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  found_request pii_vault.requests;
  target pg_lsn;
  give_up timestamptz;
begin
  if pg_is_in_recovery() then
    raise exception using
      errcode = 'VL005',
      message = 'a standby serves no request',
      hint = 'connect to the primary';
  end if;
  select r.* into found_request
  from pii_vault.requests r
  where r.id = admit.request and r.purpose = admit.purpose
    and r.login = session_user
    and r.login_oid = (select p.oid from pg_roles p where p.rolname = session_user);
  if not found then
    raise exception using
      errcode = 'VL001',
      message = 'no such request of this login',
      hint = 'record a request, commit, and fetch it as the same login';
  end if;
  -- Visible and of another transaction: committed, then. The top-level id, because a savepoint has an
  -- id (and an xmin) of its own.
  if found_request.recorded_xid is not distinct from pg_current_xact_id_if_assigned() then
    raise exception using
      errcode = 'VL002',
      message = 'the request was recorded by this very transaction, which may still be rolled back',
      hint = 'commit first, then fetch';
  end if;
  if clock_timestamp() > found_request.recorded_at + interval '15 minutes' then
    raise exception using
      errcode = 'VL003',
      message = 'the request is older than fifteen minutes',
      hint = 'record a new one';
  end if;
  -- Committed is not flushed: with synchronous_commit off, a crash loses the last commits. From 17 on a
  -- flush can be asked for.
  if current_setting('server_version_num')::integer >= 170000 then
    perform pg_logical_emit_message(false, 'veil', '', true);
  else
    target := pg_current_wal_insert_lsn();
    give_up := clock_timestamp() + interval '2 seconds';
    while pg_current_wal_flush_lsn() < target loop
      if clock_timestamp() > give_up then
        raise exception using
          errcode = 'VL004',
          message = 'the request is not known to be on disk yet',
          hint = 'commit anything that writes, which flushes, and try again';
      end if;
      perform pg_sleep(0.005);
    end loop;
  end if;
  return found_request;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.caller()
 RETURNS oid
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  named oid := (select r.oid from pg_roles r where r.rolname = session_user);
begin
  if named is distinct from (
    select a.usesysid from pg_stat_get_activity(pg_backend_pid()) a
  ) then
    raise exception using
      errcode = 'VL034',
      message = 'this session goes by another login than the one that it connected as',
      hint = 'connect as the login itself; set session authorization does not do here';
  end if;
  return named;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.fetch_reveal(request uuid)
 RETURNS TABLE(token text, data_key uuid, sealed bytea, sealed_at timestamp with time zone, wrapped bytea, proof bytea, generation integer)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  served integer;
begin
  admitted := pii_vault.admit(fetch_reveal.request, 'reveal');
  return query
    select o.token::text, o.data_key, o.sealed, o.sealed_at, k.wrapped, k.proof, k.generation
    from unnest(admitted.subjects, admitted.digests) as h (token, digest)
    join pii_vault.originals o on o.token = h.token and sha256(o.sealed) = h.digest
    left join pii_vault.data_keys k on k.id = o.data_key;
  get diagnostics served = row_count;
  perform pii_vault.record_fetch(admitted, 'reveal.fetch', served);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.random_digest()
 RETURNS bytea
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.record(action text, request uuid, tokens text[], items integer, reason text, details json)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  insert into pii_vault.audit (login_oid, action, request, tokens, items, reason, details)
  values (
    pii_vault.caller(), record.action, record.request, record.tokens, record.items,
    nullif(btrim(record.reason), ''), record.details
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.record_fetch(request pii_vault.requests, action text, items integer)
 RETURNS void
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  insert into pii_vault.audit (login_oid, action, request, items)
  values (request.login_oid, record_fetch.action, request.id, record_fetch.items)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.record_request(purpose text, subjects text[], digests bytea[], reason text)
 RETURNS uuid
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  request uuid;
  caller oid := (select r.oid from pg_roles r where r.rolname = session_user);
begin
  -- A commit that is not flushed could be lost in a crash. The caller may set this back: fetch_reveal
  -- does not rely on it, it only makes its wait short.
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  insert into pii_vault.requests (purpose, login_oid, subjects, digests)
  values (record_request.purpose, caller, record_request.subjects, record_request.digests)
  returning id into request;
  insert into pii_vault.audit (login_oid, action, request, tokens, message_ids, items, reason)
  values (
    caller,
    case record_request.purpose when 'reveal' then 'reveal.request' else 'quarantine.' || purpose end,
    request,
    case record_request.purpose when 'reveal' then record_request.subjects else '{}' end,
    case record_request.purpose when 'reveal' then '{}' else record_request.subjects end,
    cardinality(record_request.subjects),
    nullif(btrim(record_request.reason), '')
  );
  return request;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.refuse_change()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  raise exception using
    errcode = 'VL020',
    message = format('%I.%I is append-only: %s is refused', tg_table_schema, tg_table_name, tg_op);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.request_reveal(tokens text[], reason text)
 RETURNS uuid
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  asked text[];
  digests bytea[];
begin
  perform pii_vault.require_reason_length(reason);
  if coalesce(array_ndims(tokens), 0) <> 1 or cardinality(tokens) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 tokens';
  end if;
  if exists (
    select from unnest(tokens) t (token)
    where token is null or char_length(token) > 64 or token !~ '^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
  ) then
    raise exception using errcode = 'VL006', message = 'one of the tokens is not written as a token is';
  end if;
  -- As of this statement's snapshot: what is sealed or sealed anew later is not part of the request.
  -- Recorded as digests and not as transaction ids, which would mean nothing after a restore.
  --
  -- A caller may roll this back and look at what it cost (statistics, buffers, the size of the WAL). So a
  -- token that the vault does not hold costs what one does that it holds: its successor is read, and the
  -- random digest is made for both.
  select
    array_agg(t.token order by t.position),
    array_agg(
      case when o.token = t.token then sha256(o.sealed) else t.otherwise end order by t.position
    )
  into asked, digests
  from (
    select u.token, min(u.position) as position, pii_vault.random_digest() as otherwise
    from unnest(tokens) with ordinality as u (token, position)
    group by u.token
  ) t
  left join lateral (
    select s.token, s.sealed
    from pii_vault.originals s
    where s.token >= t.token collate "C"
    order by s.token
    limit 1
  ) o on true;
  return pii_vault.record_request('reveal', asked, digests, reason);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_reason(reason text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform pii_vault.require_reason_length(reason);
  if coalesce(btrim(reason), '') = '' then
    raise exception using
      errcode = 'VL030', message = 'this needs a reason', hint = 'say why: it goes on record';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_reason_length(reason text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if char_length(reason) > 1000 then
    raise exception using
      errcode = 'VL006', message = 'a reason has up to 1000 characters';
  end if;
end
$function$
-- owner veil_owner

-- comments

etl.adopted: rows that no ledger entry stands for and values that are no tokens, as they were found at first
etl.ledger_totals: how many messages of each day were stored, of days whose part of the ledger is gone
pii_vault.audit: who asked for which originals, when and why; written before the answer exists, never changed
pii_vault.data_keys: data keys, each an age file to the recipients; proof shows that a holder of the token key made it
pii_vault.key_generations: which token key belongs to which generation: eight derived bytes of it, no secret
pii_vault.originals: for each token the first original that was stored, sealed: nonce, ciphertext, tag
public.user_logins_per_token_and_day: how often each token logged in on each day, and as how many users
public.user_logins_shared_tokens: tokens that more than one user logged in with

-- grants

database: connect to public
database: connect to veil_analyst
database: connect to veil_approver
database: connect to veil_auditor
database: connect to veil_breakglass
database: connect to veil_eraser
database: connect to veil_etl
database: connect to veil_operator
database: connect to veil_owner
database: connect to veil_policy
database: connect to veil_revealer
etl.quarantine (changed_at): select to veil_operator
etl.quarantine (changed_by): select to veil_operator
etl.quarantine (message_id): select to veil_operator
etl.quarantine (quarantined_at): select to veil_operator
etl.quarantine (reason): select to veil_operator
etl.quarantine (sent_at): select to veil_operator
etl.quarantine (state): select to veil_operator
function etl.app_version_text: execute to veil_analyst
function etl.check_invariant: execute to veil_auditor
function etl.check_invariant: execute to veil_operator
function etl.discard: execute to veil_operator
function etl.fetch_bodies: execute to veil_operator
function etl.housekeep: execute to veil_etl
function etl.load: execute to veil_etl
function etl.replay: execute to veil_operator
function etl.request_bodies: execute to veil_operator
function etl.schema_version: execute to veil_analyst
function etl.schema_version: execute to veil_approver
function etl.schema_version: execute to veil_auditor
function etl.schema_version: execute to veil_breakglass
function etl.schema_version: execute to veil_eraser
function etl.schema_version: execute to veil_etl
function etl.schema_version: execute to veil_operator
function etl.schema_version: execute to veil_policy
function etl.schema_version: execute to veil_revealer
function pii_vault.fetch_reveal: execute to veil_revealer
function pii_vault.request_reveal: execute to veil_revealer
pii_vault.audit: select to veil_auditor
public.user_logins: select to veil_analyst
public.user_logins_per_token_and_day: select to veil_analyst
public.user_logins_shared_tokens: select to veil_analyst
schema etl: usage to veil_analyst
schema etl: usage to veil_approver
schema etl: usage to veil_auditor
schema etl: usage to veil_breakglass
schema etl: usage to veil_eraser
schema etl: usage to veil_etl
schema etl: usage to veil_operator
schema etl: usage to veil_policy
schema etl: usage to veil_revealer
schema pii_vault: usage to veil_approver
schema pii_vault: usage to veil_auditor
schema pii_vault: usage to veil_breakglass
schema pii_vault: usage to veil_eraser
schema pii_vault: usage to veil_operator
schema pii_vault: usage to veil_policy
schema pii_vault: usage to veil_revealer
