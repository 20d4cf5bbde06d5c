-- What must always hold, checked on a living database: a function for each invariant. Each says how many things were
-- checked, how many break it, and which ones, up to five: tokens, ids and days, never a value. Each answer is of one
-- snapshot, so loads may go on.

-- One way to write a day, whatever DateStyle its caller has set.
create or replace function etl.day_text(day date) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when day is null then 'without a date'
    when isfinite(day) then to_char(day, 'YYYY-MM-DD')
    else day::text
  end
$$;

create or replace function etl.check_data_keys_are_whole(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  -- The header of a binary age file ends with its MAC, after which come a nonce of 16 bytes and the data key's 32
  -- with their tag. Every stanza of the header is somebody who can open it.
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
  judged as (
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
    (select count(*) from judged),
    (select count(j.what) from judged j),
    array(
      select format('%s: %s', j.id, j.what) from judged j where j.what is not null order by j.id limit 5
    )
$$;

create or replace function etl.check_originals_have_data_keys(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with lost as (
    select o.token from pii_vault.originals o
    where not exists (select from pii_vault.data_keys k where k.id = o.data_key)
  )
  select
    (select count(*) from pii_vault.originals),
    (select count(*) from lost),
    array(select l.token::text from lost l order by l.token limit 5)
$$;

create or replace function etl.check_bodies_have_data_keys(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with lost as (
    select q.message_id from etl.quarantine q
    where q.sealed is not null
      and not exists (select from pii_vault.data_keys k where k.id = q.data_key)
  )
  select
    (select count(*) from etl.quarantine q where q.sealed is not null),
    (select count(*) from lost),
    array(select l.message_id::text from lost l order by l.message_id limit 5)
$$;

-- Under one data key, that is. The same seal twice has the same nonce twice.
create or replace function etl.check_nonces_are_used_once(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
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
  from nonces n
$$;

-- Generation 0 stands for nothing recoverable, and what has expired was erased.
create or replace function etl.check_tokens_have_originals(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with lost as (
    select distinct t.token
    from (
      select o.token collate "C" as token from pii_vault.occurrences o
      where not exists (select from pii_vault.originals v where v.token = o.token collate "C")
      -- The join first: the form of a million values costs ten times as much.
      offset 0
    ) t
    where t.token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'
      and not exists (
        select from pii_vault.tombstones s where s.token = t.token and s.kind = 'expired'
      )
  )
  select
    (select count(*) from pii_vault.occurrences),
    (select count(*) from lost),
    array(select l.token::text from lost l order by l.token limit 5)
$$;

-- Told by day, because what stands there instead of a token may be personal data itself.
create or replace function etl.check_values_are_tokens(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with others as (
    select p.create_date as day, count(*) as amount
    from (
      select o.create_date, o.field, o.token from pii_vault.occurrences o
      -- What has an original is a token. The form of each value would cost ten times this join.
      where not exists (
        select from pii_vault.originals v
        where v.token = o.token collate "C"
          and starts_with(v.token, case o.field when 'ip' then 'ip' else 'dev' end)
      )
      offset 0
    ) p
    where p.token collate "C" !~ case p.field
      when 'ip' then '^ip(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
      else '^dev(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
    end
    group by p.create_date
  ),
  broken as (
    select d.day, sum(d.plain)::bigint as plain
    from (
      select o.day, o.amount as plain from others o
      union all
      select a.day, -a.plain_values from etl.adopted a where a.plain_values > 0
    ) d
    group by d.day
    having sum(d.plain) > 0
  )
  select
    (select count(*) from pii_vault.occurrences),
    (select coalesce(sum(b.plain), 0)::bigint from broken b),
    array(
      select format('%s: %s values', etl.day_text(b.day), b.plain) from broken b order by b.day limit 5
    )
$$;

create or replace function etl.check_days_add_up(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with days as (
    select s.day, sum(s.held)::bigint as held, sum(s.stored)::bigint as stored
    from (
      select l.create_date, count(*), 0 from public.user_logins l group by l.create_date
      union all
      select (q.sent_at at time zone interval '0')::date, count(*), 0
      from etl.quarantine q where q.state <> 'replayed' group by 1
      union all
      select l.sent_on, 0, count(*) from etl.ledger l group by l.sent_on
      union all
      select t.sent_on, 0, t.messages from etl.ledger_totals t
      union all
      select a.day, 0, a.messages from etl.adopted a
    ) s (day, held, stored)
    group by s.day
  ),
  broken as (
    select d.day, format(
      '%s: %s rows and quarantined, %s stored messages', etl.day_text(d.day), d.held, d.stored
    ) as what
    from days d where d.held <> d.stored
  )
  select
    (select count(*) from days),
    (select count(*) from broken),
    array(select b.what from broken b order by b.day limit 5)
$$;

create or replace function etl.check_messages_are_stored_once(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with ids as (
    select l.message_id, count(*) as times from etl.ledger l group by l.message_id
  )
  select
    coalesce(sum(i.times), 0)::bigint,
    count(*) filter (where i.times > 1),
    coalesce((array_agg(i.message_id order by i.message_id) filter (where i.times > 1))[1:5], '{}')
  from ids i
$$;

create or replace function etl.check_requests_are_on_record(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
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
    array(select l.id::text from lost l order by l.id limit 5)
$$;

-- A load that stores an expired value anew takes its tombstone away.
create or replace function etl.check_erased_stay_erased(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with back as (
    select s.token from pii_vault.tombstones s
    where exists (select from pii_vault.originals v where v.token = s.token)
    union
    select s.token from pii_vault.tombstones s
    join pii_vault.occurrences o on o.token collate "C" = s.token
    where s.kind = 'forgotten'
  )
  select
    (select count(*) from pii_vault.tombstones),
    (select count(*) from back),
    array(select b.token::text from back b order by b.token limit 5)
$$;

-- Tombstones may have become fewer since: lifted, or of values that came again. What is left of one that is whole
-- makes its digest.
create or replace function etl.check_erasures_are_on_record(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with stones as (
    select s.erasure, count(*) as erased, pii_vault.token_digest(array_agg(s.token::text)) as digest
    from pii_vault.tombstones s group by s.erasure
  ),
  receipts as (
    select
      a.details ->> 'erasure' as erasure,
      (a.details #>> '{erased,ip}')::bigint + (a.details #>> '{erased,device_id}')::bigint as erased,
      a.details ->> 'digest' as digest
    from pii_vault.audit a where a.action in ('erasure.forget', 'erasure.expire')
  ),
  lost as (
    select s.erasure from stones s
    where not exists (
      select from receipts r
      where r.erasure = s.erasure::text
        and (s.erased < r.erased or (s.erased = r.erased and s.digest = r.digest))
    )
  )
  select
    (select count(*) from stones),
    (select count(*) from lost),
    array(select l.erasure::text from lost l order by l.erasure limit 5)
$$;

create or replace function etl.check_invariant(invariant text)
  returns table (checked bigint, offenders bigint, examples text[])
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  checks text[] := '{data-keys-are-whole,originals-have-data-keys,bodies-have-data-keys,nonces-are-used-once,tokens-have-originals,values-are-tokens,days-add-up,messages-are-stored-once,requests-are-on-record,erased-stay-erased,erasures-are-on-record}';
begin
  -- A snapshot from before could miss both a dropped partition and its total.
  perform pii_vault.require_read_committed('a check');
  if (invariant = any (checks)) is not true then
    raise exception using errcode = 'VL006', message = 'there is no such invariant';
  end if;
  -- Before the snapshot, so that it sees either a partition of the ledger or its total.
  if invariant in ('days-add-up', 'messages-are-stored-once') then
    lock table etl.ledger in access share mode;
  end if;
  return query execute format('select * from etl.%I()', 'check_' || replace(invariant, '-', '_'));
end
$$;
