-- The days that the default partitions hold something of: each is a period of its own, and expires row by row, in steps
-- that keep loads waiting for a moment only. So do late rows of a period whose partition is gone.

-- Of these originals of one period: how many stay.
create or replace function pii_vault.count_held_originals(period etl.periods, source regclass, kept text[])
  returns bigint
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  held bigint;
begin
  execute format(
    'select count(*) from %s o where o.token = any ($1) and o.period >= $2 and o.period < $3', source
  ) into held using kept, period.first, period.until;
  return held;
end
$$;

-- The same of rows: of users who are held, and with tokens that are held by name.
create or replace function pii_vault.count_held_logins(
  period etl.periods, source regclass, users text[], tokens text[]
) returns bigint
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  held bigint;
begin
  execute format(
    'select count(*) from %s l
     where (l.user_id = any ($1) or l.masked_ip = any ($2) or l.masked_device_id = any ($2))
       and l.create_date >= $3 and l.create_date < $4',
    source
  ) into held using users, tokens, period.first, period.until;
  return held;
end
$$;

-- Places of what is not held, up to 2000 in each table.
create or replace function pii_vault.expiring_places(
  period etl.periods, with_originals boolean, with_rows boolean, out originals tid[], out logins tid[]
)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  held record;
begin
  select * into held
  from pii_vault.held_in(period.first, period.until, 'etl.user_logins_without_period');
  originals := array(
    select o.ctid from pii_vault.originals_default o
    where with_originals and o.period >= period.first and o.period < period.until
      and (o.token in (select unnest(held.kept))) is not true
    limit 2000
  );
  logins := array(
    select l.ctid from etl.user_logins_without_period l
    where with_rows and l.create_date >= period.first and l.create_date < period.until
      and (l.user_id in (select unnest(held.users))) is not true
      and (l.masked_ip in (select unnest(held.tokens))) is not true
      and (l.masked_device_id in (select unnest(held.tokens))) is not true
    limit 2000
  );
end
$$;

-- One step: what is found before the gate is closed, and is not held after that, goes. No entry says that nothing was
-- left to do.
create or replace function pii_vault.expire_by_row(
  period etl.periods, with_originals boolean, with_rows boolean, run uuid, reason text,
  out entry bigint, out originals bigint, out "rows" bigint, out held_originals bigint, out held_rows bigint
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  found_places record;
  held record;
  days json;
begin
  select * into found_places from pii_vault.expiring_places(period, with_originals, with_rows);
  if cardinality(found_places.originals) + cardinality(found_places.logins) > 0 then
    perform pii_vault.drop_when_free(period.first, period.until, null, null, null);
  end if;
  perform set_config('enable_seqscan', 'off', true);
  select * into held
  from pii_vault.held_in(period.first, period.until, 'etl.user_logins_without_period');
  with gone as (
    delete from pii_vault.originals_default o
    where o.ctid = any (found_places.originals)
      and o.period >= period.first and o.period < period.until
      and (o.token in (select unnest(held.kept))) is not true
    returning o.period
  )
  select count(*) into originals from gone;
  with gone as (
    delete from etl.user_logins_without_period l
    where l.ctid = any (found_places.logins)
      and l.create_date >= period.first and l.create_date < period.until
      and (l.user_id in (select unnest(held.users))) is not true
      and (l.masked_ip in (select unnest(held.tokens))) is not true
      and (l.masked_device_id in (select unnest(held.tokens))) is not true
    returning l.create_date
  ),
  counts as (
    select g.create_date as day, count(*) as logins from gone g group by g.create_date
  )
  select coalesce(json_object_agg(etl.day_text(c.day), c.logins), '{}'), coalesce(sum(c.logins), 0)
  into days, "rows"
  from counts c;
  held_originals := case when with_originals then pii_vault.count_held_originals(
    period, 'pii_vault.originals_default', held.kept
  ) else 0 end;
  held_rows := case when with_rows then pii_vault.count_held_logins(
    period, 'etl.user_logins_without_period', held.users, held.tokens
  ) else 0 end;
  if originals + "rows" > 0 then
    entry := pii_vault.record_expiry(
      period, case when with_originals then originals end, case when with_rows then "rows" end,
      held_originals, held_rows, case when with_rows then days end, run, reason
    );
  end if;
end
$$;
