-- Erasure: originals that are deleted and stay deleted, rows that get tokens which stand for nothing, the
-- legal holds that stand against both, and a receipt of each on record.
--
-- An erasure must not meet a load: the one deletes an original while the other still counts on it, or brings
-- it back. Each load holds the gate in row share mode from its first statement on, each erasure holds it
-- exclusively; at READ COMMITTED whatever either of them reads after that is as the other one left it.

set local role veil_owner;

-- Nothing but a lock, so that no vacuum or dump is ever in its way.
create table pii_vault.erasure_gate (
  nothing boolean,
  constraint erasure_gate_empty check (false)
);

comment on table pii_vault.erasure_gate is
  'always empty: loads lock it in row share mode, erasures in exclusive mode';

-- Erased tokens. A forgotten one binds: the next message with its value gets a token of generation 0. An expired
-- one does not: its value is stored anew when it comes again.
create table pii_vault.tombstones (
  token text collate "C" not null,
  kind text not null,
  erasure uuid not null,
  erased_at timestamptz not null default clock_timestamp(),
  constraint tombstones_key primary key (token),
  -- As of originals, for what it costs (sql/010).
  constraint tombstones_token check (
    token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]+[aeimquy4]$'
    and substr(token, octet_length(token) - 26, 1) = '_'
  ),
  constraint tombstones_kind check (kind in ('forgotten', 'expired'))
);

comment on table pii_vault.tombstones is
  'tokens whose originals were erased; forgotten ones must not come back';

create index tombstones_erasure on pii_vault.tombstones (erasure);

-- One that no longer binds is deleted, by a load or on record; none is ever made to say something else.
create trigger tombstones_final
  before update or truncate on pii_vault.tombstones
  for each statement execute function pii_vault.refuse_change();

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

create trigger holds_kept
  before delete or truncate on pii_vault.holds
  for each statement execute function pii_vault.refuse_change();

-- An analyze keeps samples of a column where no delete reaches them. Nothing plans by what a seal is. Setting a
-- type anew, even to what it is, is how a table's owner has the samples dropped that are there; it would look
-- through the vault for a check that stands on the column, which every row has met already.
alter table pii_vault.originals drop constraint originals_sealed;
alter table pii_vault.originals alter column sealed type bytea;
alter table pii_vault.originals add constraint originals_sealed
  check (octet_length(sealed) between 44 and 1068 and octet_length(sealed) % 16 = 12) not valid;
alter table pii_vault.originals alter column sealed set statistics 0;

-- A replay empties the body, as a discard does: what it held stands in a row now.
alter table etl.quarantine drop constraint quarantine_sealed;
alter table etl.quarantine alter column sealed type bytea;
alter table etl.quarantine alter column sealed set statistics 0;
do $$
declare
  emptied text[];
begin
  with done as (
    update etl.quarantine q set sealed = null
    where q.state = 'replayed' and q.sealed is not null
    returning q.message_id
  )
  select array_agg(d.message_id::text order by d.message_id) into emptied from done d;
  if emptied is not null then
    insert into pii_vault.audit (login_oid, action, message_ids, items, reason)
    values (
      (select r.oid from pg_catalog.pg_roles r where r.rolname = session_user),
      'quarantine.emptied', emptied, cardinality(emptied),
      'from this version of veil on, a replay empties the body'
    );
  end if;
end
$$;
alter table etl.quarantine
  add constraint quarantine_sealed check ((sealed is not null) = (state = 'open'));

-- Whether policy lets values of this field come back that were forgotten.
create function pii_vault.may_return(field text) returns boolean
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (select p.erased_may_return from pii_vault.policies p where p.field = may_return.field), false
  )
$$;

create function pii_vault.field_of(token text) returns text
  language sql immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case when starts_with(token, 'ip') then 'ip' else 'device_id' end
$$;

-- Tokens that stand for nothing: 128 random bits, written as those of a key are. Each of a digest's letters in
-- base64 is one of base32, two to one, and the last of 26, which has only three bits left to say, one of eight.
-- Folding the case does most of it: a translate of all 64 costs twice as much.
create function pii_vault.fresh_tokens(field text, amount integer) returns text[]
  language sql volatile
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    array_agg(
      case field when 'ip' then 'ip0_' else 'dev0_' end
        || substr(r.letters, 1, 25)
        || translate(
          substr(r.letters, 26, 1), 'abcdefghijklmnopqrstuvwxyz234567', repeat('aeimquy4', 4)
        )
    ),
    '{}'
  )
  from (
    select translate(
      lower(
        substr(
          encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'),
          1, 26
        ) collate "C"
      ),
      '0189+/', '234567'
    ) as letters
    from generate_series(1, amount)
  ) r
$$;

-- A new one in each place where one of the forgotten stood.
create function pii_vault.freshen(field text, tokens text[], forgotten text[]) returns text[]
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  place integer;
begin
  for place in
    select t.place from generate_subscripts(tokens, 1) t (place)
    where (tokens[t.place] in (select unnest(forgotten))) is true
  loop
    tokens[place] := (pii_vault.fresh_tokens(field, 1))[1];
  end loop;
  return tokens;
end
$$;

-- By this, tombstones and a receipt can be held against each other.
create function pii_vault.token_digest(tokens text[]) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select encode(
    sha256(convert_to(coalesce(string_agg(t, E'\n' order by t collate "C"), ''), 'UTF8')), 'hex'
  )
  from unnest(tokens) t
$$;

create function pii_vault.count_by_field(tokens text[]) returns json
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select json_build_object(
    'ip', count(*) filter (where starts_with(t, 'ip')),
    'device_id', count(*) filter (where not starts_with(t, 'ip'))
  )
  from unnest(tokens) t
$$;

create function pii_vault.user_digest(user_id text) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select encode(sha256(convert_to(user_id, 'UTF8')), 'hex')
$$;

create function pii_vault.require_tokens(tokens text[]) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(array_ndims(tokens), 0) <> 1 or cardinality(tokens) > 100000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 100000 tokens';
  end if;
  if exists (
    select from unnest(tokens) t (token)
    where token is null or char_length(token) > 64
      or token !~ '^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
  ) then
    raise exception using errcode = 'VL006', message = 'one of the tokens is not written as a token is';
  end if;
end
$$;

create function pii_vault.require_user_id(user_id text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if (char_length(user_id) between 1 and 128) is not true then
    raise exception using errcode = 'VL006', message = 'expected a user id of 1 to 128 characters';
  end if;
end
$$;

-- A time-out of this transaction that is not longer than so, whatever its session has set.
create function pii_vault.at_most(setting text, most text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- 0 is for ever.
  if current_setting(setting) = '0' or current_setting(setting)::interval > most::interval then
    perform set_config(setting, most, true);
  end if;
end
$$;

-- From here to the end of the transaction no load is under way, and none begins.
create function pii_vault.close_gate() returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = 'an erasure needs the isolation level read committed';
  end if;
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  -- Loads wait behind whoever waits here; and behind a caller who has gone without a word.
  perform pii_vault.at_most('lock_timeout', '5s');
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '10s');
  -- Token by token, also where nothing is known of the tables' sizes yet; and never by a plan that was made for
  -- a few tokens when there are many.
  perform set_config('enable_seqscan', 'off', true);
  perform set_config('plan_cache_mode', 'force_custom_plan', true);
  begin
    lock table pii_vault.erasure_gate in exclusive mode;
  exception when lock_not_available then
    raise exception using
      errcode = '55P03',
      message = 'a load, or another erasure, does not end; nothing was changed',
      hint = 'try again; pg_locks of pii_vault.erasure_gate names the session that holds it';
  end;
end
$$;

-- What stands in this user's rows in place of originals, but for what stands for nothing already. In an adopted
-- user_logins that may be anything. A column's own collation may take two spellings for one; equal in "C" is
-- equal in each.
create function pii_vault.values_of_user(user_id text)
  returns table (field text, value text, is_token boolean, logins bigint)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select v.field, v.value, v.value ~ (v.prefix || '[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'), v.logins
  from (
    select 'ip', '^ip', u.masked_ip collate "C", count(*)
    from public.user_logins u
    where u.user_id = values_of_user.user_id and u.user_id collate "C" = values_of_user.user_id
      and u.masked_ip is not null
    group by u.masked_ip collate "C"
    union all
    select 'device_id', '^dev', u.masked_device_id collate "C", count(*)
    from public.user_logins u
    where u.user_id = values_of_user.user_id and u.user_id collate "C" = values_of_user.user_id
      and u.masked_device_id is not null
    group by u.masked_device_id collate "C"
  ) v (field, prefix, value, logins)
  where v.value !~ (v.prefix || '0_[a-z2-7]{25}[aeimquy4]$')
$$;

-- Which of these tokens a hold stands against: by name, or in a row of a user who is held.
create function pii_vault.held_among(tokens text[]) returns text[]
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct t.token), '{}')
  from unnest(tokens) t (token)
  where t.token in (
    select h.token from pii_vault.holds h where h.released_at is null and h.token is not null
    union all
    select v.value
    from pii_vault.holds h cross join lateral pii_vault.values_of_user(h.user_id) v
    where h.released_at is null and h.user_id is not null
  )
$$;

create function pii_vault.refuse_held(held text[], asked integer) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(held) > 0 then
    raise exception using
      errcode = 'VL040',
      message = format(
        '%s of %s %s under a legal hold, so nothing was erased: %s%s',
        cardinality(held), asked,
        case when asked = 1 then 'token is' when cardinality(held) = 1 then 'tokens is' else 'tokens are' end, array_to_string(held[1:5], ', '),
        case when cardinality(held) > 5 then ', …' else '' end
      ),
      hint = '`veil hold list` shows the holds, and who added them';
  end if;
end
$$;

-- How many others use what this user's rows have; looked for among so many of their logins for each.
create function pii_vault.assess_user(user_id text, most integer)
  returns table (field text, value text, is_token boolean, logins bigint, others bigint)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select v.field, v.value, v.is_token, v.logins,
    case
      when not v.is_token then 0
      when v.field = 'ip' then (
        select count(distinct coalesce(o.user_id collate "C", ''))
        from (
          select u.user_id from public.user_logins u
          where u.masked_ip = v.value and u.masked_ip collate "C" = v.value
            and u.user_id collate "C" is distinct from assess_user.user_id
          limit most
        ) o
      )
      else (
        select count(distinct coalesce(o.user_id collate "C", ''))
        from (
          select u.user_id from public.user_logins u
          where u.masked_device_id = v.value and u.masked_device_id collate "C" = v.value
            and u.user_id collate "C" is distinct from assess_user.user_id
          limit most
        ) o
      )
    end
  from pii_vault.values_of_user(assess_user.user_id) v
$$;

create function pii_vault.users_of_ip(token text, most integer, out logins bigint, out users bigint)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select
    (
      select count(*) from (
        select from public.user_logins u
        where u.masked_ip = users_of_ip.token and u.masked_ip collate "C" = users_of_ip.token
        limit most
      ) l
    ),
    -- One, and whoever is somebody else.
    coalesce(
      (
        select 1 + (
          select count(distinct coalesce(o.user_id collate "C", ''))
          from (
            select u.user_id from public.user_logins u
            where u.masked_ip = users_of_ip.token and u.masked_ip collate "C" = users_of_ip.token
              and u.user_id collate "C" is distinct from one.user_id
            limit most
          ) o
        )
        from (
          select u.user_id collate "C" as user_id from public.user_logins u
          where u.masked_ip = users_of_ip.token and u.masked_ip collate "C" = users_of_ip.token
          limit 1
        ) one
      ),
      0
    )
$$;

create function pii_vault.users_of_device(token text, most integer, out logins bigint, out users bigint)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select
    (
      select count(*) from (
        select from public.user_logins u
        where u.masked_device_id = users_of_device.token
          and u.masked_device_id collate "C" = users_of_device.token
        limit most
      ) l
    ),
    coalesce(
      (
        select 1 + (
          select count(distinct coalesce(o.user_id collate "C", ''))
          from (
            select u.user_id from public.user_logins u
            where u.masked_device_id = users_of_device.token
              and u.masked_device_id collate "C" = users_of_device.token
              and u.user_id collate "C" is distinct from one.user_id
            limit most
          ) o
        )
        from (
          select u.user_id collate "C" as user_id from public.user_logins u
          where u.masked_device_id = users_of_device.token
            and u.masked_device_id collate "C" = users_of_device.token
          limit 1
        ) one
      ),
      0
    )
$$;

-- What becomes of each: erase; keep, because several users have it; forgotten already; unknown.
create function pii_vault.assess_tokens(tokens text[], most integer)
  returns table (
    "position" bigint, token text, field text, logins bigint, users bigint, outcome text
  )
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select a.place, a.token, pii_vault.field_of(a.token), a.logins, a.users,
    case
      when a.users > 1 then 'keep'
      -- A decoy is to nobody what the vault holds.
      when a.users = 0 and exists (select from pii_vault.canaries c where c.token = a.token)
        then 'unknown'
      when a.users = 1 and not starts_with(a.token, 'ip0_') and not starts_with(a.token, 'dev0_')
        then 'erase'
      when exists (select from pii_vault.originals o where o.token = a.token) then 'erase'
      else coalesce(
        (
          select case t.kind when 'forgotten' then 'forgotten' else 'erase' end
          from pii_vault.tombstones t where t.token = a.token
        ),
        'unknown'
      )
    end
  from (
    select t.place, t.token, u.logins, u.users
    from (
      select min(g.place) as place, g.token
      from unnest(tokens) with ordinality g (token, place) group by g.token
    ) t
    cross join lateral (
      select * from pii_vault.users_of_ip(t.token, most) where starts_with(t.token, 'ip')
      union all
      select * from pii_vault.users_of_device(t.token, most) where starts_with(t.token, 'dev')
    ) u
    offset 0
  ) a
$$;

-- Deletes the originals of these tokens and puts a stone in the place of each. Returns how many there were.
create function pii_vault.bury(tokens text[], kind text, erasure uuid) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  originals integer;
begin
  -- What expired before is forgotten now.
  delete from pii_vault.tombstones t where t.token = any (bury.tokens);
  delete from pii_vault.originals o where o.token = any (bury.tokens);
  get diagnostics originals = row_count;
  insert into pii_vault.tombstones (token, kind, erasure)
  select u.token, bury.kind, bury.erasure
  from unnest(bury.tokens) u (token) order by u.token collate "C";
  return originals;
end
$$;

-- Puts the fresh values in the place of the old ones: in this user's rows, or in whose they are if none is named.
-- Returns how many rows that were. By their place in the table, because one row may have two: nobody but
-- veil_owner writes there, and no load is under way.
create function pii_vault.replace_values(user_id text, fields text[], old text[], fresh text[])
  returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  replaced integer;
  wanted integer;
begin
  if replace_values.user_id is not null then
    with changes as (
      select u.ctid as place, i.fresh as ip, d.fresh as device
      from public.user_logins u
      left join unnest(replace_values.fields, replace_values.old, replace_values.fresh) i (field, old, fresh)
        on i.field = 'ip' and i.old = u.masked_ip collate "C"
      left join unnest(replace_values.fields, replace_values.old, replace_values.fresh) d (field, old, fresh)
        on d.field = 'device_id' and d.old = u.masked_device_id collate "C"
      where u.user_id = replace_values.user_id
        and u.user_id collate "C" = replace_values.user_id
        and (i.fresh is not null or d.fresh is not null)
    ),
    updated as (
      update public.user_logins u
      set masked_ip = coalesce(b.ip, u.masked_ip),
        masked_device_id = coalesce(b.device, u.masked_device_id)
      from changes b
      where u.ctid = b.place
      returning 1
    )
    select (select count(*) from updated), (select count(*) from changes) into replaced, wanted;
  else
    with found as (
      select u.ctid as place, n.fresh as ip, null as device
      from unnest(replace_values.fields, replace_values.old, replace_values.fresh) n (field, old, fresh)
      join public.user_logins u on u.masked_ip = n.old
      where n.field = 'ip' and u.masked_ip collate "C" = n.old
      union all
      select u.ctid, null, n.fresh
      from unnest(replace_values.fields, replace_values.old, replace_values.fresh) n (field, old, fresh)
      join public.user_logins u on u.masked_device_id = n.old
      where n.field = 'device_id' and u.masked_device_id collate "C" = n.old
    ),
    changes as (
      select f.place, max(f.ip) as ip, max(f.device) as device from found f group by f.place
    ),
    updated as (
      update public.user_logins u
      set masked_ip = coalesce(b.ip, u.masked_ip),
        masked_device_id = coalesce(b.device, u.masked_device_id)
      from changes b
      where u.ctid = b.place
      returning 1
    )
    select (select count(*) from updated), (select count(*) from changes) into replaced, wanted;
  end if;
  if replaced <> wanted then
    raise exception using
      errcode = 'VL016',
      message = format('public.user_logins took %s of %s changes; nothing was erased', replaced, wanted),
      hint = 'a trigger or a rule on it drops them: veil needs each of them made';
  end if;
  return replaced;
end
$$;

-- The receipt of an erasure, on record: what was done, nothing of what was erased. Returns the entry's id.
create function pii_vault.record_erasure(action text, items integer, reason text, receipt json)
  returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pii_vault.record(
    record_erasure.action, null, '{}', record_erasure.items, record_erasure.reason,
    record_erasure.receipt
  );
  return currval(pg_get_serial_sequence('pii_vault.audit', 'id'));
end
$$;

-- "at time zone 'UTC'" would be what this session's own time zone calls so (`set timezone = 'UTC-167'`, since
-- PostgreSQL 18). An offset is nobody's to redefine.
create function pii_vault.utc_text(at timestamptz) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select to_char(at at time zone interval '0', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- What forget_user would do with each value of this user's rows, as things are now. Null for what is no token. On
-- record: it tells which tokens are this user's.
create function pii_vault.plan_forget_user(user_id text)
  returns table (token text, field text, logins bigint, others bigint, outcome text)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  user_is_held boolean;
  tokens integer := 0;
begin
  perform pii_vault.require_user_id(plan_forget_user.user_id);
  perform set_config('enable_seqscan', 'off', true);
  user_is_held := exists (
    select from pii_vault.holds h
    where h.released_at is null and h.user_id = plan_forget_user.user_id
  );
  for token, field, logins, others, outcome in
    with assessed as materialized (
      select * from pii_vault.assess_user(plan_forget_user.user_id, 10000)
    ),
    held as materialized (
      select unnest(pii_vault.held_among(array(select a.value from assessed a))) as value
    )
    select
      case when a.is_token then a.value end, a.field, a.logins, a.others,
      case
        when user_is_held or a.value in (select h.value from held h) then 'held'
        when not a.is_token then 'replace'
        when a.others > 0 then 'keep'
        else 'erase'
      end
    from assessed a
    order by a.field desc, a.value collate "C"
  loop
    tokens := tokens + (token is not null)::integer;
    return next;
  end loop;
  perform pii_vault.record(
    'erasure.planned', null, '{}', tokens, null,
    json_build_object('kind', 'user', 'subject', pii_vault.user_digest(plan_forget_user.user_id))
  );
end
$$;

create function pii_vault.plan_forget_tokens(tokens text[])
  returns table (token text, field text, logins bigint, others bigint, outcome text)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  asked text[];
begin
  perform pii_vault.require_tokens(plan_forget_tokens.tokens);
  perform set_config('enable_seqscan', 'off', true);
  return query
    with held as materialized (
      select unnest(pii_vault.held_among(plan_forget_tokens.tokens)) as token
    )
    select a.token, a.field, a.logins, greatest(a.users - 1, 0),
      case
        when a.outcome = 'erase' and a.token in (select h.token from held h) then 'held'
        else a.outcome
      end
    from pii_vault.assess_tokens(plan_forget_tokens.tokens, 10000) a
    order by a."position";
  asked := array(select distinct t.token from unnest(plan_forget_tokens.tokens) t (token));
  perform pii_vault.record(
    'erasure.planned', null, '{}', cardinality(asked), null,
    json_build_object('kind', 'tokens', 'subject', pii_vault.token_digest(asked))
  );
end
$$;

-- Whatever stands in this user's rows in place of originals is replaced by tokens that link to nothing, one for
-- each value, so that the user's own duplicates still show. Originals that nobody else's rows have are erased.
create function pii_vault.forget_user(user_id text, reason text)
  returns table (entry bigint, receipt json, outcomes json)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  erasure uuid := gen_random_uuid();
  fields text[];
  found text[];
  gone text[];
  kept text[];
  plain integer;
  user_is_held boolean;
  held text[];
  originals integer;
  replaced integer;
begin
  perform pii_vault.require_user_id(forget_user.user_id);
  perform pii_vault.require_reason(forget_user.reason);
  perform pii_vault.close_gate();

  select
    coalesce(array_agg(a.field order by a.field desc, a.value collate "C"), '{}'),
    coalesce(array_agg(a.value order by a.field desc, a.value collate "C"), '{}'),
    coalesce(array_agg(a.value) filter (where a.is_token and a.others = 0), '{}'),
    coalesce(array_agg(a.value) filter (where a.is_token and a.others > 0), '{}'),
    count(*) filter (where not a.is_token),
    coalesce(
      json_agg(
        json_build_object(
          'token', case when a.is_token then a.value end,
          'field', a.field,
          'logins', a.logins,
          'outcome', case when not a.is_token then 'replace' when a.others > 0 then 'keep' else 'erase' end
        )
        order by a.field desc, a.value collate "C"
      ),
      '[]'
    )
  into fields, found, gone, kept, plain, outcomes
  from pii_vault.assess_user(forget_user.user_id, 1) a;

  user_is_held := exists (
    select from pii_vault.holds h where h.released_at is null and h.user_id = forget_user.user_id
  );
  held := case when user_is_held then gone || kept else pii_vault.held_among(gone || kept) end;
  perform pii_vault.refuse_held(held, cardinality(gone || kept));
  -- Also where the rows hold nothing that has a name.
  if user_is_held then
    raise exception using
      errcode = 'VL040',
      message = 'this user is under a legal hold, so nothing was erased',
      hint = '`veil hold list` shows the holds, and who added them';
  end if;

  originals := pii_vault.bury(gone, 'forgotten', erasure);
  replaced := pii_vault.replace_values(
    forget_user.user_id, fields, found,
    -- Those of ip stand first.
    pii_vault.fresh_tokens('ip', cardinality(array_positions(fields, 'ip')))
      || pii_vault.fresh_tokens('device_id', cardinality(array_positions(fields, 'device_id')))
  );
  receipt := json_build_object(
    'erasure', erasure,
    'kind', 'user',
    'at', pii_vault.utc_text(clock_timestamp()),
    'subject', pii_vault.user_digest(forget_user.user_id),
    'erased', pii_vault.count_by_field(gone),
    'kept', pii_vault.count_by_field(kept),
    'plain', plain,
    'originals', originals,
    'rows', replaced,
    'digest', pii_vault.token_digest(gone)
  );
  entry := pii_vault.record_erasure(
    'erasure.forget', cardinality(gone), forget_user.reason, receipt
  );
  return next;
end
$$;

-- Erases those of the tokens that no more than one user's rows have, and leaves the others alone.
create function pii_vault.forget_tokens(tokens text[], reason text)
  returns table (entry bigint, receipt json, outcomes json)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  erasure uuid := gen_random_uuid();
  gone text[];
  ips integer;
  kept text[];
  forgotten integer;
  unknown integer;
  originals integer;
  replaced integer;
begin
  perform pii_vault.require_tokens(forget_tokens.tokens);
  perform pii_vault.require_reason(forget_tokens.reason);
  perform pii_vault.close_gate();

  select
    -- Those of ip stand first.
    coalesce(array_agg(a.token order by a.field desc) filter (where a.outcome = 'erase'), '{}'),
    count(*) filter (where a.outcome = 'erase' and a.field = 'ip'),
    coalesce(array_agg(a.token) filter (where a.outcome = 'keep'), '{}'),
    count(*) filter (where a.outcome = 'forgotten'),
    count(*) filter (where a.outcome = 'unknown'),
    json_agg(
      json_build_object('token', a.token, 'field', a.field, 'outcome', a.outcome)
      order by a."position"
    )
  into gone, ips, kept, forgotten, unknown, outcomes
  from pii_vault.assess_tokens(forget_tokens.tokens, 1) a;
  perform pii_vault.refuse_held(pii_vault.held_among(gone), json_array_length(outcomes));

  originals := pii_vault.bury(gone, 'forgotten', erasure);
  replaced := pii_vault.replace_values(
    null,
    array_fill('ip'::text, array[ips]) || array_fill('device_id'::text, array[cardinality(gone) - ips]),
    gone,
    pii_vault.fresh_tokens('ip', ips) || pii_vault.fresh_tokens('device_id', cardinality(gone) - ips)
  );
  receipt := json_build_object(
    'erasure', erasure,
    'kind', 'tokens',
    'at', pii_vault.utc_text(clock_timestamp()),
    'erased', pii_vault.count_by_field(gone),
    'kept', pii_vault.count_by_field(kept),
    'forgotten', forgotten,
    'unknown', unknown,
    'originals', originals,
    'rows', replaced,
    'digest', pii_vault.token_digest(gone)
  );
  entry := pii_vault.record_erasure(
    'erasure.forget', cardinality(gone), forget_tokens.reason, receipt
  );
  return next;
end
$$;

-- Of these tokens, those that a login has had since that day. One without a date counts as new.
create function pii_vault.used_since(day date, tokens text[]) returns text[]
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(t.token), '{}')
  from unnest(tokens) t (token)
  where case
    when starts_with(t.token, 'ip') then exists (
      select from public.user_logins u
      where u.masked_ip = t.token and u.masked_ip collate "C" = t.token
        and (u.create_date < day) is not true
      offset 0
    )
    else exists (
      select from public.user_logins u
      where u.masked_device_id = t.token and u.masked_device_id collate "C" = t.token
        and (u.create_date < day) is not true
      offset 0
    )
  end
$$;

-- How many logins had each, in the order of the tokens.
create function pii_vault.logins_with(tokens text[]) returns bigint[]
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    array_agg(
      case
        when starts_with(t.token, 'ip') then (
          select count(*) from public.user_logins u
          where u.masked_ip = t.token and u.masked_ip collate "C" = t.token
        )
        else (
          select count(*) from public.user_logins u
          where u.masked_device_id = t.token and u.masked_device_id collate "C" = t.token
        )
      end
      order by t.position
    ),
    '{}'
  )
  from unnest(tokens) with ordinality t (token, position)
$$;

-- The next tokens, in their order, that no login has had since that day; those that no row has, by when they were
-- sealed. Few enough of them that their rows are looked at again in a moment. `upto` is null where there are no
-- more.
create function pii_vault.expired_after(
  day date, after text, out tokens text[], out looked integer, out upto text
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  page text[];
  sealed timestamptz[];
  used text[];
  logins bigint[];
  cut integer;
begin
  select
    coalesce(array_agg(p.token order by p.token), '{}'), array_agg(p.sealed_at order by p.token)
  into page, sealed
  from (
    select o.token, o.sealed_at from pii_vault.originals o
    where o.token > coalesce(after, '') collate "C"
      -- Decoys are for good.
      and not exists (select from pii_vault.canaries c where c.token = o.token)
    order by o.token
    limit 5000
  ) p;
  used := pii_vault.used_since(day, page);
  select
    coalesce(array_agg(p.token order by p.position), '{}')
  into tokens
  from unnest(page) with ordinality p (token, position)
  where (p.token in (select unnest(used))) is not true;
  logins := pii_vault.logins_with(tokens);
  select
    coalesce(array_agg(p.token order by p.position), '{}'),
    -- The first one whose predecessors have rows enough.
    min(p.position) filter (where p.before_it > 20000)
  into tokens, cut
  from (
    select c.token, c.position,
      coalesce(
        sum(c.logins) over (
          order by c.position rows between unbounded preceding and 1 preceding
        ),
        0
      ) as before_it
    from (
      select p.token, p.position, coalesce(l.logins, 0) as logins,
        coalesce(l.logins, 0) = 0 as unused, p.sealed_at, l.token is not null as listed
      from unnest(page, sealed) with ordinality p (token, sealed_at, position)
      left join unnest(tokens, logins) l (token, logins) on l.token = p.token
    ) c
    where c.listed and not (c.unused and c.sealed_at >= (day::timestamp at time zone interval '0'))
  ) p;
  if cut is null then
    looked := cardinality(page);
    upto := case when looked = 5000 then page[5000] end;
  else
    looked := cut - 1;
    upto := page[looked];
    tokens := array(
      select t.token from unnest(tokens) with ordinality t (token, position)
      where t.token collate "C" <= upto collate "C" order by t.position
    );
  end if;
end
$$;

create function pii_vault.day_before(older_than integer) returns date
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if (older_than between 1 and 36500) is not true then
    raise exception using errcode = 'VL006', message = 'expected 1 to 36500 days';
  end if;
  return (clock_timestamp() at time zone interval '0')::date - older_than;
end
$$;

-- One step of an expiry, and nothing of it is done: which tokens would go. Begins at the first one if `after` is
-- null, and is over when `upto` is.
create function pii_vault.plan_expire(older_than integer, after text)
  returns table (upto text, looked integer, erased_ip integer, erased_device_id integer, held integer)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  page record;
  kept text[];
begin
  perform set_config('enable_seqscan', 'off', true);
  select * into page
  from pii_vault.expired_after(pii_vault.day_before(plan_expire.older_than), plan_expire.after);
  kept := pii_vault.held_among(page.tokens);
  upto := page.upto;
  looked := page.looked;
  held := cardinality(kept);
  select
    count(*) filter (where starts_with(t.token, 'ip')),
    count(*) filter (where not starts_with(t.token, 'ip'))
  into erased_ip, erased_device_id
  from unnest(page.tokens) t (token)
  where (t.token in (select unnest(kept))) is not true;
  return next;
end
$$;

-- One step of an expiry: a transaction of its own, so that loads wait for a moment each time and not for all of
-- it. What is held is left alone. `run` is the same in each step's receipt.
create function pii_vault.expire(older_than integer, after text, run uuid, reason text)
  returns table (
    entry bigint, upto text, looked integer, erased_ip integer, erased_device_id integer, held integer
  )
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  day date := pii_vault.day_before(expire.older_than);
  erasure uuid := gen_random_uuid();
  page record;
  kept text[] := '{}';
  gone text[];
  originals integer;
begin
  perform pii_vault.require_reason(expire.reason);
  if expire.run is null then
    raise exception using errcode = 'VL006', message = 'expected the id of the run';
  end if;
  perform set_config('enable_seqscan', 'off', true);
  select * into page from pii_vault.expired_after(day, expire.after);
  upto := page.upto;
  looked := page.looked;
  erased_ip := 0;
  erased_device_id := 0;
  held := 0;
  if cardinality(page.tokens) > 0 then
    perform pii_vault.close_gate();
    kept := pii_vault.held_among(page.tokens);
    held := cardinality(kept);
    -- Looked at again: loads went on until the gate was closed.
    gone := array(
      select o.token from pii_vault.originals o
      where o.token in (
        select unnest(page.tokens)
        except select unnest(kept)
        except select unnest(pii_vault.used_since(day, page.tokens))
      )
      order by o.token
    );
    if cardinality(gone) > 0 then
      originals := pii_vault.bury(gone, 'expired', erasure);
      select
        count(*) filter (where starts_with(g.token, 'ip')),
        count(*) filter (where not starts_with(g.token, 'ip'))
      into erased_ip, erased_device_id
      from unnest(gone) g (token);
      entry := pii_vault.record_erasure(
        'erasure.expire', cardinality(gone), expire.reason,
        json_build_object(
          'erasure', erasure,
          'kind', 'expiry',
          'run', expire.run,
          'at', pii_vault.utc_text(clock_timestamp()),
          'before', to_char(day, 'YYYY-MM-DD'),
          'erased', pii_vault.count_by_field(gone),
          'held', held,
          'originals', originals,
          'digest', pii_vault.token_digest(gone)
        )
      );
    end if;
  end if;
  return next;
end
$$;

-- Bodies that nobody replayed or discarded in that time, up to 1000: they become discarded. While anything is
-- held none of them goes: nobody can see into them to tell whose they are.
create function pii_vault.expire_bodies(older_than integer, run uuid, reason text, dry boolean)
  returns table (discarded integer, held integer)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  day timestamptz :=
    pii_vault.day_before(expire_bodies.older_than)::timestamp at time zone interval '0';
  gone text[];
begin
  perform pii_vault.require_reason(expire_bodies.reason);
  if expire_bodies.run is null or expire_bodies.dry is null then
    raise exception using errcode = 'VL006', message = 'expected the id of the run';
  end if;
  discarded := 0;
  held := 0;
  if not expire_bodies.dry then
    -- A hold that comes now waits for this, or this for it.
    perform pii_vault.close_gate();
  end if;
  if exists (select from pii_vault.holds h where h.released_at is null) then
    select count(*) into held from etl.quarantine q where q.state = 'open' and q.sent_at < day;
  elsif expire_bodies.dry then
    select count(*) into discarded from etl.quarantine q where q.state = 'open' and q.sent_at < day;
  else
    with locked as (
      select q.message_id from etl.quarantine q
      where q.state = 'open' and q.sent_at < day
      order by q.message_id
      limit 1000
      for update
    ),
    emptied as (
      update etl.quarantine q
      set state = 'discarded', sealed = null, changed_at = clock_timestamp(),
        changed_by = session_user
      from locked l
      where q.message_id = l.message_id
      returning q.message_id
    )
    select coalesce(array_agg(e.message_id::text order by e.message_id), '{}') into gone
    from emptied e;
    discarded := cardinality(gone);
    if discarded > 0 then
      insert into pii_vault.audit (login_oid, action, message_ids, items, reason, details)
      values (
        pii_vault.caller(), 'quarantine.discard', gone, discarded, btrim(expire_bodies.reason),
        json_build_object('kind', 'expiry', 'run', expire_bodies.run)
      );
    end if;
  end if;
  return next;
end
$$;

-- Where the entry of an erasure stands in the audit's chain; no row until it does. Only to who made it.
create function pii_vault.place_of(entry bigint) returns table ("position" bigint, hash text)
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select c.position, encode(c.hash, 'hex')
    from pii_vault.audit_chain c
    join pii_vault.audit a on a.id = c.entry
    where a.id = place_of.entry and a.login_oid = pii_vault.caller()
      and a.action ~ '^(erasure|hold|tombstone)[.]';
end
$$;

-- Values that were forgotten may be stored again when they come. Returns how many.
create function pii_vault.lift_tombstones(tokens text[], reason text) returns integer
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  lifted text[];
begin
  perform pii_vault.require_tokens(lift_tombstones.tokens);
  perform pii_vault.require_reason(lift_tombstones.reason);
  perform pii_vault.close_gate();
  with gone as (
    delete from pii_vault.tombstones t
    where t.token = any (lift_tombstones.tokens) and t.kind = 'forgotten'
    returning t.token
  )
  select coalesce(array_agg(g.token::text order by g.token), '{}') into lifted from gone g;
  if cardinality(lifted) > 0 then
    perform pii_vault.record(
      'tombstone.lifted', null, lifted, cardinality(lifted), lift_tombstones.reason, null
    );
  end if;
  return cardinality(lifted);
end
$$;

create function pii_vault.describe_hold(hold pii_vault.holds) returns json
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select json_build_object(
    'hold', hold.id,
    'kind', case when hold.token is null then 'user' else 'token' end,
    'subject', coalesce(hold.token, pii_vault.user_digest(hold.user_id))
  )
$$;

-- Of a token, or of every token that stands in a user's rows, also in those to come.
create function pii_vault.add_hold(token text, user_id text, reason text) returns uuid
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  made pii_vault.holds;
begin
  if (add_hold.token is null) = (add_hold.user_id is null) then
    raise exception using errcode = 'VL006', message = 'a hold is of a token or of a user';
  end if;
  if add_hold.token is null then
    perform pii_vault.require_user_id(add_hold.user_id);
  elsif char_length(add_hold.token) > 64
    or add_hold.token !~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$' then
    raise exception using errcode = 'VL006', message = 'expected a token that stands for an original';
  end if;
  perform pii_vault.require_reason(add_hold.reason);
  -- An erasure sees it, or was done before.
  perform pii_vault.close_gate();
  insert into pii_vault.holds (token, user_id, reason)
  values (add_hold.token, add_hold.user_id, btrim(add_hold.reason))
  returning * into made;
  perform pii_vault.record(
    'hold.added', null,
    case when made.token is null then '{}' else array[made.token::text] end,
    1, add_hold.reason, pii_vault.describe_hold(made)
  );
  return made.id;
end
$$;

-- Whether no original and no row is there that it stands for, so far: a slip of the pen, perhaps.
create function pii_vault.is_hold_empty(hold uuid) returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('enable_seqscan', 'off', true);
  return (
    select case
      when h.token is null then
        not exists (
          select from public.user_logins u
          where u.user_id = h.user_id and u.user_id collate "C" = h.user_id
        )
      else
        not exists (select from pii_vault.originals o where o.token = h.token)
        and not exists (
          select from public.user_logins u
          where u.masked_ip = h.token and u.masked_ip collate "C" = h.token
        )
        and not exists (
          select from public.user_logins u
          where u.masked_device_id = h.token and u.masked_device_id collate "C" = h.token
        )
      end
    from pii_vault.holds h
    where h.id = is_hold_empty.hold and h.released_at is null
  );
end
$$;

create function pii_vault.release_hold(hold uuid, reason text) returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  released pii_vault.holds;
begin
  perform pii_vault.require_reason(release_hold.reason);
  update pii_vault.holds h
  set released_by = session_user, released_at = clock_timestamp(),
    release_reason = btrim(release_hold.reason)
  where h.id = release_hold.hold and h.released_at is null
  returning h.* into released;
  if not found then
    raise exception using
      errcode = 'VL042',
      message = 'there is no such hold, or it was released before',
      hint = '`veil hold list` shows the holds';
  end if;
  perform pii_vault.record(
    'hold.released', null,
    case when released.token is null then '{}' else array[released.token::text] end,
    1, release_hold.reason, pii_vault.describe_hold(released)
  );
end
$$;

create function pii_vault.list_holds() returns table (
  id uuid, token text, user_id text, reason text, added_by text, added_at timestamptz,
  released_by text, released_at timestamptz, release_reason text
)
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select h.id, h.token, h.user_id, h.reason, h.added_by, h.added_at, h.released_by, h.released_at,
    h.release_reason
  from pii_vault.holds h
  order by h.added_at, h.id
$$;

grant select on pii_vault.tombstones, pii_vault.holds to veil_auditor;

revoke all on function pii_vault.may_return(text) from public;
revoke all on function pii_vault.field_of(text) from public;
revoke all on function pii_vault.fresh_tokens(text, integer) from public;
revoke all on function pii_vault.freshen(text, text[], text[]) from public;
revoke all on function pii_vault.token_digest(text[]) from public;
revoke all on function pii_vault.count_by_field(text[]) from public;
revoke all on function pii_vault.user_digest(text) from public;
revoke all on function pii_vault.require_tokens(text[]) from public;
revoke all on function pii_vault.require_user_id(text) from public;
revoke all on function pii_vault.at_most(text, text) from public;
revoke all on function pii_vault.close_gate() from public;
revoke all on function pii_vault.values_of_user(text) from public;
revoke all on function pii_vault.held_among(text[]) from public;
revoke all on function pii_vault.refuse_held(text[], integer) from public;
revoke all on function pii_vault.assess_user(text, integer) from public;
revoke all on function pii_vault.users_of_ip(text, integer) from public;
revoke all on function pii_vault.users_of_device(text, integer) from public;
revoke all on function pii_vault.assess_tokens(text[], integer) from public;
revoke all on function pii_vault.bury(text[], text, uuid) from public;
revoke all on function pii_vault.replace_values(text, text[], text[], text[]) from public;
revoke all on function pii_vault.record_erasure(text, integer, text, json) from public;
revoke all on function pii_vault.utc_text(timestamptz) from public;
revoke all on function pii_vault.plan_forget_user(text) from public;
revoke all on function pii_vault.plan_forget_tokens(text[]) from public;
revoke all on function pii_vault.forget_user(text, text) from public;
revoke all on function pii_vault.forget_tokens(text[], text) from public;
revoke all on function pii_vault.used_since(date, text[]) from public;
revoke all on function pii_vault.logins_with(text[]) from public;
revoke all on function pii_vault.expired_after(date, text) from public;
revoke all on function pii_vault.day_before(integer) from public;
revoke all on function pii_vault.plan_expire(integer, text) from public;
revoke all on function pii_vault.expire(integer, text, uuid, text) from public;
revoke all on function pii_vault.expire_bodies(integer, uuid, text, boolean) from public;
revoke all on function pii_vault.place_of(bigint) from public;
revoke all on function pii_vault.lift_tombstones(text[], text) from public;
revoke all on function pii_vault.describe_hold(pii_vault.holds) from public;
revoke all on function pii_vault.add_hold(text, text, text) from public;
revoke all on function pii_vault.is_hold_empty(uuid) from public;
revoke all on function pii_vault.release_hold(uuid, text) from public;
revoke all on function pii_vault.list_holds() from public;

grant execute on function
  pii_vault.plan_forget_user(text),
  pii_vault.plan_forget_tokens(text[]),
  pii_vault.forget_user(text, text),
  pii_vault.forget_tokens(text[], text),
  pii_vault.plan_expire(integer, text),
  pii_vault.expire(integer, text, uuid, text),
  pii_vault.expire_bodies(integer, uuid, text, boolean)
  to veil_eraser;
grant execute on function
  pii_vault.lift_tombstones(text[], text),
  pii_vault.add_hold(text, text, text),
  pii_vault.is_hold_empty(uuid),
  pii_vault.release_hold(uuid, text)
  to veil_policy;
grant execute on function pii_vault.place_of(bigint) to veil_eraser, veil_policy;
grant execute on function pii_vault.list_holds() to veil_policy, veil_eraser, veil_auditor;
