-- What must always hold of the vault by itself, a function for each invariant: how many things were checked, how many break it,
-- and which ones, up to five: tokens, ids and days, never a value. `veil check` asks for each by its name (check.sql). What holds of tokens: check-tokens.sql.

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

-- Under one data key, that is. The same seal twice has the same nonce twice, but not where one load stored it in two
-- periods: that is one seal.
create or replace function etl.check_nonces_are_used_once(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with seals as (
    select o.data_key, o.sealed, o.token as place from pii_vault.originals o
    union all
    select q.data_key, q.sealed, q.message_id from etl.quarantine q where q.sealed is not null
  ),
  nonces as (
    select s.data_key, count(*) as times,
      count(*) > 1 and (
        min(s.digest) <> max(s.digest)
        or min(s.place) <> max(s.place)
      ) as is_used_twice
    from (
      select a.data_key, a.place, substring(a.sealed for 12) as nonce,
        hashtextextended(encode(a.sealed, 'hex') collate "C", 0) as digest
      from seals a
    ) s
    group by s.data_key, s.nonce
  )
  select
    coalesce(sum(n.times), 0)::bigint,
    coalesce(sum(n.times) filter (where n.is_used_twice), 0)::bigint,
    coalesce((array_agg(distinct n.data_key::text) filter (where n.is_used_twice))[1:5], '{}')
  from nonces n
$$;
