-- What must always hold of the vault, a function for each invariant: how many things were checked, how many break it,
-- and which ones, up to five: tokens, ids and days, never a value. `veil check` asks for each by its name (check.sql).

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
