-- Stores rows together with their originals, period by period: those of loads, and the one of a replay.

-- One period's: all arrays are of the same rows. A change in an old period is counted in etl.periods. An expiry that has
-- counted before then counts again.
create or replace function etl.store_period(
  first date, until date, is_expired boolean,
  tokens text[], sealed bytea[], data_key uuid,
  user_ids text[], device_types text[], masked_ips text[], masked_device_ids text[], locales text[],
  app_versions integer[], days date[],
  out loaded integer, out new_originals integer
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  forgotten text[];
begin
  if until <= etl.utc_day(clock_timestamp()) - 14 then
    update etl.periods p set changes = p.changes + 1 where p.first = store_period.first;
  end if;
  if is_expired then
    -- Its originals are gone for good: no row brings one back, or is left without.
    new_originals := 0;
    forgotten := masked_ips || masked_device_ids;
  else
    select s.stored, s.forgotten into new_originals, forgotten
    from etl.store_originals(first, tokens, sealed, store_period.data_key, masked_ips, masked_device_ids) s;
  end if;
  if cardinality(forgotten) > 0 then
    masked_ips := pii_vault.freshen('ip', masked_ips, forgotten);
    masked_device_ids := pii_vault.freshen('device_id', masked_device_ids, forgotten);
  end if;
  -- Elements come in the arrays' order, so rows stand in the order of the batch.
  insert into public.user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
  )
  select r.*
  from (
    select
      unnest(user_ids), unnest(device_types), unnest(masked_ips), unnest(masked_device_ids),
      unnest(locales), unnest(app_versions), unnest(days)
  ) r;
  get diagnostics loaded = row_count;
  -- Otherwise a message would be deleted whose row is nowhere.
  if loaded is distinct from cardinality(user_ids) then
    raise exception using
      errcode = 'VL016',
      message = format('public.user_logins took %s of %s rows', loaded, cardinality(user_ids)),
      hint = 'a trigger or a rule on it drops rows: veil needs each of them stored';
  end if;
end
$$;

-- Answers with how many rows and originals it has stored, and the bounds of the periods that keep originals.
create or replace function etl.store_rows(
  tokens text[], sealed bytea[], data_key uuid,
  user_ids text[], device_types text[], masked_ips text[], masked_device_ids text[], locales text[],
  app_versions integer[], sent_ats timestamptz[],
  out loaded integer, out new_originals integer, out firsts date[], out untils date[]
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  days date[] := array(select (s.at at time zone interval '0')::date from unnest(sent_ats) s (at));
  period record;
  part record;
  done record;
begin
  loaded := 0;
  new_originals := 0;
  firsts := '{}';
  untils := '{}';
  -- In the order of the periods: loads that overlap lock in one order.
  for period in select * from etl.periods_of(days) loop
    if period.first <= all (days) and period.until > all (days) then
      -- Nearly always, and then no array is copied.
      select s.loaded, s.new_originals into done
      from etl.store_period(
        period.first, period.until, period.is_expired, tokens, sealed, data_key, user_ids, device_types,
        masked_ips, masked_device_ids, locales, app_versions, days
      ) s;
    else
      select
        array_agg(r.user_id) as user_ids, array_agg(r.device_type) as device_types,
        array_agg(r.ip) as ips, array_agg(r.device) as devices, array_agg(r.locale) as locales,
        array_agg(r.version) as versions, array_agg(r.day) as days
      into part
      from (
        select *
        from unnest(
          user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, days
        ) with ordinality as u (user_id, device_type, ip, device, locale, version, day, position)
        where u.day >= period.first and u.day < period.until
        order by u.position
      ) r;
      select s.loaded, s.new_originals into done
      from etl.store_period(
        period.first, period.until, period.is_expired, tokens, sealed, data_key, part.user_ids,
        part.device_types, part.ips, part.devices, part.locales, part.versions, part.days
      ) s;
    end if;
    loaded := loaded + done.loaded;
    new_originals := new_originals + done.new_originals;
    if not period.is_expired then
      firsts := firsts || period.first;
      untils := untils || period.until;
    end if;
  end loop;
  if loaded <> cardinality(sent_ats) then
    raise exception using
      errcode = 'VL016',
      message = format('the periods took %s of %s rows', loaded, cardinality(sent_ats)),
      hint = 'etl.periods is not as veil made it: compare it with a backup';
  end if;
end
$$;
