-- Periods: user_logins is partitioned by the day of a row, and the vault's originals by the same periods. What a load
-- touches then is the newest partitions, whose indexes stay in memory however much is stored.
--
-- A row and its originals stand in one period. A day that no period has lies in the default partitions, and is a
-- period of its own.

create or replace function etl.utc_day(moment timestamptz) returns date
  language sql immutable
  set search_path = pg_catalog, pg_temp
as $$
  select (moment at time zone interval '0')::date
$$;

-- One way to write a day, whatever DateStyle a session has: for people, and for statements that name it as a literal.
create or replace function etl.day_text(day date) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when day is null then 'without a date'
    when not isfinite(day) then day::text
    when day < '0001-01-01' then to_char(day, 'YYYY-MM-DD BC')
    else to_char(day, 'YYYY-MM-DD')
  end
$$;

-- The first day of the period that this day lies in: the day itself where there is no period.
create or replace function etl.period_of(day date) returns date
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select p.first
      from (
        select s.first, s.until from etl.periods s where s.first <= day order by s.first desc limit 1
      ) p
      where day < p.until
    ),
    day
  )
$$;

-- The periods of these days, in their order.
create or replace function etl.periods_of(days date[])
  returns table (first date, until date, is_expired boolean)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select distinct
    coalesce(p.first, d.day), coalesce(p.until, d.day + 1), p.originals_expired_at is not null
  from (select distinct unnest(days)) d (day)
  left join lateral (
    select s.first, s.until, s.originals_expired_at
    from etl.periods s where s.first <= d.day order by s.first desc limit 1
  ) p on d.day < p.until
  order by 1
$$;

-- The day before which a period ends that begins on `first`: the next Monday, the next first of a month, or the next day.
create or replace function etl.period_end(first date, length text) returns date
  language sql immutable
  set search_path = pg_catalog, pg_temp
as $$
  select (date_trunc(length, first::timestamp) + ('1 ' || length)::interval)::date
$$;

create or replace function etl.partition_name(parent text, first date) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select parent || '_' || to_char(first, 'YYYYMMDD')
$$;

-- Vacuumed early, after 10,000 new rows. Pages that no vacuum has marked would be marked by the count of an expiry, and
-- each would go to the WAL: 50 MB for 3,000,000 originals, of which a sixth came late.
create or replace function etl.vacuum_early(partition regclass) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'alter table %s set (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000)',
    partition
  );
end
$$;

-- An empty table like user_logins, not attached. Replica identity is not inherited. With its indexes, because attaching
-- would make them under a lock. It is veil_owner's also where a superuser has called this.
create or replace function etl.make_logins_table(name text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'create table etl.%I (
       like public.user_logins including defaults including constraints including indexes
     )',
    name
  );
  execute format('alter table etl.%I owner to veil_owner', name);
  execute format('alter table etl.%I replica identity full', name);
  perform etl.vacuum_early(format('etl.%I', name));
end
$$;

-- The same of originals. That no samples of seals are kept is not inherited either.
create or replace function pii_vault.make_originals_table(name text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'create table pii_vault.%I (
       like pii_vault.originals including defaults including constraints including indexes
     )',
    name
  );
  execute format('alter table pii_vault.%I owner to veil_owner', name);
  execute format('alter table pii_vault.%I alter column sealed set statistics 0', name);
  perform etl.vacuum_early(format('pii_vault.%I', name));
end
$$;

-- Attached, and not made as a partition, because that would wait for every load, and make every load wait.
create or replace function etl.make_period(first date, until date) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  logins text := etl.partition_name('user_logins', first);
  originals text := etl.partition_name('originals', first);
begin
  perform pii_vault.make_originals_table(originals);
  execute format(
    'alter table pii_vault.originals attach partition pii_vault.%I for values from (%L) to (%L)',
    originals, etl.day_text(first), etl.day_text(until)
  );
  perform etl.make_logins_table(logins);
  execute format(
    'alter table public.user_logins attach partition etl.%I for values from (%L) to (%L)',
    logins, etl.day_text(first), etl.day_text(until)
  );
  insert into etl.periods (first, until) values (make_period.first, make_period.until);
end
$$;

-- The first of these days that the default partitions hold something of.
create or replace function etl.first_without_period(first date, until date) returns date
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select least(
    (
      select min(l.create_date) from etl.user_logins_without_period l
      where l.create_date >= first and l.create_date < until
    ),
    (
      select min(o.period) from pii_vault.originals_default o
      where o.period >= first and o.period < until
    )
  )
$$;

-- Makes this period, unless loads or readers are in the way. A day that the default partitions hold something of stays
-- there: the period ends before it, and the next one begins after it. Answers with the first day that is not settled;
-- null if somebody was in the way.
create or replace function etl.try_period(first date, until date, out next date, out made integer)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  stray date := etl.first_without_period(first, until);
begin
  made := 0;
  if stray = first then
    next := first + 1;
    return;
  end if;
  -- A load that has looked for its partition before this one is attached would go on to the default partition, and be
  -- refused there (23514). So none may be under way.
  lock table pii_vault.erasure_gate in exclusive mode;
  -- Before looking again: what a load has put there and not committed yet would not be seen.
  lock table pii_vault.originals_default, etl.user_logins_default in access exclusive mode;
  stray := etl.first_without_period(first, until);
  next := coalesce(stray, until);
  if stray = first then
    next := first + 1;
  else
    perform etl.make_period(first, next);
    made := 1;
  end if;
exception when lock_not_available or deadlock_detected then
  next := null;
  made := 0;
end
$$;

-- Makes the missing periods from five weeks back, as old as what loads take, to two weeks ahead. Answers with how many.
-- Also where there are some beyond a gap, as a clock may have left them that was wrong for a while.
create or replace function etl.make_periods(today date) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  length text := (select l.length from etl.period_length l);
  made integer := 0;
  next date := date_trunc(length, (today - 35)::timestamp)::date;
  covered date;
  step record;
begin
  while next <= today + 14 loop
    select p.until into covered
    from etl.periods p where p.first <= next and next < p.until;
    if covered is null then
      select * into step
      from etl.try_period(
        next,
        least(etl.period_end(next, length), (select min(p.first) from etl.periods p where p.first > next))
      );
      made := made + step.made;
      next := step.next;
    else
      next := covered;
    end if;
  end loop;
  return made;
end
$$;
