-- The load again: rows stand in the order in which their messages were received, and a load waits for
-- another one's lock for a bounded time.

set local role veil_owner;

create or replace function etl.load(
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

  perform etl.check_key(load.generation, load.key_check, rows_in + rejected_in > 0);

  -- Ids are made distinct first: the same id twice in one batch would join back to two rows. Sorted,
  -- because overlapping loads that lock in one order cannot deadlock (unsorted, 95 of 160 did).
  with stored as (
    insert into etl.ledger (sent_on, message_id)
    select m.sent_on, m.id
    from (
      select distinct on (b.id collate "C")
        (b.sent_at at time zone 'UTC')::date as sent_on, b.id collate "C" as id
      from (
        select * from unnest(message_ids, sent_ats)
        union all
        select * from unnest(rejected_ids, rejected_sent_ats)
      ) as b (id, sent_at)
      order by b.id collate "C", b.sent_at
    ) m
    order by m.sent_on, m.id
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
      ) with ordinality
        as r (sent_at, user_id, device_type, ip, device, locale, version, position)
      order by r.position;
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
$$;

revoke all on function etl.load(
  uuid, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text[], timestamptz[], text[],
  text[], text[], text[], text[], integer[], text[], timestamptz[], text[], bytea[]
) from public;
grant execute on function etl.load(
  uuid, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text[], timestamptz[], text[],
  text[], text[], text[], text[], integer[], text[], timestamptz[], text[], bytea[]
) to veil_etl;
