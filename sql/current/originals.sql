-- What a load, a replay and a planted canary have in common: the token key is checked, the data key registered,
-- originals are stored, and what was forgotten is not stored again.

-- Two hosts with two keys would silently split every join, so the first load registers its key and every later one
-- is held against it.
create or replace function etl.check_key(generation integer, key_check bytea, register boolean) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
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
$$;

create or replace function etl.register_data_key(
  id uuid, generation integer, wrapped bytea, recipients text[], proof bytea
) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
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
$$;

-- Whether policy lets values of this field come back that were forgotten.
create or replace function pii_vault.may_return(field text) returns boolean
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (select p.erased_may_return from pii_vault.policies p where p.field = may_return.field), false
  )
$$;

create or replace function pii_vault.field_of(token text) returns text
  language sql immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case when starts_with(token, 'ip') then 'ip' else 'device_id' end
$$;

-- Tokens that stand for nothing: 128 random bits, written as those of a key are. Each of a digest's letters in
-- base64 is one of base32, two to one, and the last of 26, which has only three bits left to say, one of eight.
-- Folding the case does most of it: a translate of all 64 costs twice as much.
create or replace function pii_vault.fresh_tokens(field text, amount integer) returns text[]
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
create or replace function pii_vault.freshen(field text, tokens text[], forgotten text[]) returns text[]
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

-- Which of these tokens were forgotten, and whether they stay so when their values come again.
create or replace function pii_vault.erased_among(tokens text[]) returns table (token text, stays boolean)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select g.token, not pii_vault.may_return(pii_vault.field_of(g.token))
  from (select unnest(tokens)) g (token)
  -- One by one: "offset 0" keeps the planner from joining instead.
  where exists (select from pii_vault.tombstones s where s.token = g.token offset 0)
$$;

-- Those of the tokens, null left out, that have no original in this period.
--
-- The period stands in the statement as a literal: a plan for any period would lock all of them with each load.
create or replace function etl.lacking_originals(period date, tokens text[]) returns text[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  lacking text[];
begin
  if cardinality(tokens) > 0 then
    execute format(
      'select array_agg(distinct g.token)
       from (select unnest($1)) g (token)
       -- One by one: the vault is large.
       where not exists (
         select from pii_vault.originals o where o.token = g.token and o.period = %L::date offset 0
       )',
      etl.day_text(period)
    ) into lacking using tokens;
  end if;
  return coalesce(lacking, '{}');
end
$$;

-- Stores the originals that belong to these rows' tokens in their period, the first one of each for good, and refuses
-- rows whose token would be left without an original. Lifts the tombstones of what may return. Answers with the tokens
-- that were forgotten and stay so: the rows may not have them, and need none of their originals.
--
-- Tombstones are looked for where an original is about to be stored, or is missing, and nowhere else: a forgotten
-- token has none.
create or replace function etl.store_originals(
  period date, tokens text[], sealed bytea[], data_key uuid, masked_ips text[], masked_device_ids text[],
  out stored integer, out forgotten text[]
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  returning_now text[];
  lacking text[];
  absent text[];
begin
  stored := 0;
  forgotten := '{}';
  if cardinality(tokens) > 0 then
    if exists (select from pii_vault.tombstones) then
      select
        coalesce(array_agg(e.token) filter (where e.stays), '{}'),
        coalesce(array_agg(e.token) filter (where not e.stays), '{}')
      into forgotten, returning_now
      from pii_vault.erased_among(tokens) e
      where (e.token in (select unnest(masked_ips || masked_device_ids))) is true;
      if cardinality(returning_now) > 0 then
        -- In one order, so that two loads that bring the same back cannot deadlock.
        with locked as (
          select t.token from pii_vault.tombstones t
          where t.token = any (returning_now) order by t.token for update
        )
        delete from pii_vault.tombstones t using locked l where t.token = l.token;
      end if;
    end if;
    insert into pii_vault.originals (token, period, data_key, sealed)
    select o.token, store_originals.period, store_originals.data_key, o.sealed
    from (select unnest(tokens), unnest(store_originals.sealed)) o (token, sealed)
    -- "is true" has the planner hash the list, where it could choose a loop: it takes each for short.
    where (o.token in (select unnest(masked_ips || masked_device_ids))) is true
      and (o.token in (select unnest(forgotten))) is not true
    order by o.token collate "C"
    on conflict do nothing;
    get diagnostics stored = row_count;
  end if;
  -- Whoever deletes originals has locked out loads: what is there now is there when this commits.
  lacking := etl.lacking_originals(store_originals.period, array(
    select r.token
    from (select unnest(masked_ips || masked_device_ids)) r (token)
    where r.token is not null
      and (r.token in (select unnest(tokens))) is not true
  ));
  if cardinality(lacking) > 0 then
    absent := array(select e.token from pii_vault.erased_among(lacking) e where e.stays);
    -- What may come back has to be sent.
    if cardinality(absent) < cardinality(lacking) then
      raise exception using errcode = 'VL013', message = 'a row has a token without an original';
    end if;
    forgotten := forgotten || absent;
  end if;
end
$$;
