-- The one statement that stores a batch: key check, ledger, data key, originals, rows, quarantine.
-- All of it or nothing, and a message that is in the ledger already changes nothing.

set local role veil_owner;

-- Two hosts with two keys would silently split every join, so the first load registers its key and
-- every later one is held against it.
create function etl.check_key(generation integer, key_check bytea, register boolean) returns void
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

create function etl.register_data_key(
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

-- Stores the originals that belong to these rows' tokens, the first one of each for good. Refuses rows
-- whose token would be left without an original: that also keeps anything that is no token out of
-- user_logins.
create function etl.store_originals(
  tokens text[], sealed bytea[], data_key uuid, masked_ips text[], masked_device_ids text[]
) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  stored integer;
begin
  insert into pii_vault.originals (token, data_key, sealed)
  select distinct on (o.token collate "C") o.token, store_originals.data_key, o.sealed
  from unnest(tokens, store_originals.sealed) as o (token, sealed)
  where o.token in (select unnest(masked_ips) union all select unnest(masked_device_ids))
  order by o.token collate "C"
  on conflict do nothing;
  get diagnostics stored = row_count;
  if exists (
    select from (
      select unnest(masked_ips) union all select unnest(masked_device_ids)
      except
      select unnest(tokens)
    ) as other (token)
    where other.token is not null
      and not exists (select from pii_vault.originals o where o.token = other.token)
  ) then
    raise exception using errcode = 'VL013', message = 'a row has a token without an original';
  end if;
  return stored;
end
$$;

create function etl.load(
  batch uuid,
  generation integer,
  key_check bytea,
  data_key uuid,
  wrapped bytea,
  recipients text[],
  proof bytea,
  tokens text[],
  sealed bytea[],
  message_ids text[],
  sent_ats timestamptz[],
  user_ids text[],
  device_types text[],
  masked_ips text[],
  masked_device_ids text[],
  locales text[],
  app_versions integer[],
  rejected_ids text[],
  rejected_sent_ats timestamptz[],
  rejected_reasons text[],
  rejected_bodies bytea[]
) returns table (
  batch_id uuid, loaded integer, duplicates integer, quarantined integer, new_originals integer
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  rows_in integer := cardinality(message_ids);
  rejected_in integer := cardinality(rejected_ids);
  fresh text[];
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

  perform etl.check_key(load.generation, load.key_check, rows_in + rejected_in > 0);

  -- Ids are made distinct first: the same id twice in one batch would join back to two rows. Sorted,
  -- because overlapping loads that lock in one order cannot deadlock (unsorted, 95 of 160 did).
  with stored as (
    insert into etl.ledger (sent_on, message_id)
    select distinct (m.sent_at at time zone 'UTC')::date, m.id collate "C"
    from (
      select * from unnest(message_ids, sent_ats)
      union all
      select * from unnest(rejected_ids, rejected_sent_ats)
    ) as m (id, sent_at)
    order by 1, 2
    on conflict do nothing
    returning message_id
  )
  select coalesce(array_agg(message_id), '{}') into fresh from stored;

  loaded := 0;
  quarantined := 0;
  new_originals := 0;
  if cardinality(fresh) > 0 then
    if data_key is not null then
      perform etl.register_data_key(load.data_key, load.generation, wrapped, recipients, proof);
    end if;

    if rows_in > 0 then
      -- Only the fresh ones, each once.
      select
        coalesce(array_agg(m.ip), '{}'), coalesce(array_agg(m.device), '{}'),
        coalesce(array_agg(m.user_id), '{}'), coalesce(array_agg(m.device_type), '{}'),
        coalesce(array_agg(m.locale), '{}'), coalesce(array_agg(m.version), '{}'),
        coalesce(array_agg(m.sent_at), '{}')
      into masked_ips, masked_device_ids, user_ids, device_types, locales, app_versions, sent_ats
      from (
        select distinct on (r.id collate "C") r.*
        from unnest(
          message_ids, sent_ats, user_ids, device_types, masked_ips, masked_device_ids, locales,
          app_versions
        ) as r (id, sent_at, user_id, device_type, ip, device, locale, version)
        where r.id in (select unnest(fresh))
        order by r.id collate "C"
      ) m;
      new_originals := etl.store_originals(
        tokens, sealed, load.data_key, masked_ips, masked_device_ids
      );
      insert into public.user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
      )
      select
        r.user_id, r.device_type, r.ip, r.device, r.locale, r.version,
        (r.sent_at at time zone 'UTC')::date
      from unnest(
        sent_ats, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions
      ) as r (sent_at, user_id, device_type, ip, device, locale, version);
      get diagnostics loaded = row_count;
    end if;

    if rejected_in > 0 then
      insert into etl.quarantine (message_id, sent_at, reason, data_key, sealed)
      select distinct on (r.id collate "C") r.id, r.sent_at, r.reason, load.data_key, r.body
      from unnest(rejected_ids, rejected_sent_ats, rejected_reasons, rejected_bodies)
        as r (id, sent_at, reason, body)
      where r.id in (select unnest(fresh)) and r.id not in (select unnest(message_ids))
      order by r.id collate "C"
      -- Known to the quarantine and not to the ledger: sent on another day than it was at first, or back
      -- after the ledger has forgotten it. A duplicate, then.
      on conflict do nothing;
      get diagnostics quarantined = row_count;
    end if;
  end if;

  batch_id := batch;
  duplicates := rows_in + rejected_in - loaded - quarantined;
  return next;
end
$$;

revoke all on function etl.check_key(integer, bytea, boolean) from public;
revoke all on function etl.register_data_key(uuid, integer, bytea, text[], bytea) from public;
revoke all on function etl.store_originals(text[], bytea[], uuid, text[], text[]) from public;
revoke all on function etl.load(
  uuid, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text[], timestamptz[], text[],
  text[], text[], text[], text[], integer[], text[], timestamptz[], text[], bytea[]
) from public;
grant execute on function etl.load(
  uuid, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text[], timestamptz[], text[],
  text[], text[], text[], text[], integer[], text[], timestamptz[], text[], bytea[]
) to veil_etl;
