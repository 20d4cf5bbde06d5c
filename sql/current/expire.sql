-- Retention: whole periods whose last day is so long ago, and quarantined bodies that are as old. A day of the default
-- partitions is a period of its own, and goes row by row. Rows without a date never go.

-- What ended before this day is so old. No younger than 15 days: SQS brings messages back for 14.
create or replace function pii_vault.day_before(older_than integer) returns date
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if (older_than between 15 and 36500) is not true then
    raise exception using errcode = 'VL006', message = 'older_than is out of range, expected 15 to 36500 days';
  end if;
  return etl.utc_day(clock_timestamp()) - older_than;
end
$$;

-- The table that the originals and the one that the rows of this period stand in; null where it was dropped.
create or replace function pii_vault.partitions_of(first date, out originals regclass, out logins regclass)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select
    to_regclass(format('pii_vault.%I', etl.partition_name('originals', first))),
    to_regclass(format('etl.%I', etl.partition_name('user_logins', first)))
$$;

-- The periods that an expiry looks at, the oldest first, and how much of the disk dropping them gives back. The
-- default partitions' days are dates of our era: others never expire.
create or replace function pii_vault.plan_expire(older_than integer, with_rows boolean)
  returns table (first text, until text, bytes bigint)
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  last date := pii_vault.day_before(plan_expire.older_than);
begin
  if plan_expire.with_rows is null then
    raise exception using errcode = 'VL006', message = 'with_rows is null, expected true or false';
  end if;
  return query
    with days as (
      select o.period as day from pii_vault.originals_default o
      where o.period >= '0001-01-01' and o.period < last
      union
      select l.create_date from etl.user_logins_without_period l
      where plan_expire.with_rows and l.create_date >= '0001-01-01' and l.create_date < last
    ),
    found as (
      select s.first, s.until,
        coalesce(pg_total_relation_size(t.originals), 0)
          + case when plan_expire.with_rows then coalesce(pg_total_relation_size(t.logins), 0) else 0 end
          as bytes
      from etl.periods s cross join lateral pii_vault.partitions_of(s.first) t
      where t.originals is not null or (plan_expire.with_rows and t.logins is not null)
      union all
      select p.first, p.until, 0
      from etl.periods_of(array(select d.day from days d)) p
    )
    select etl.day_text(f.first), etl.day_text(f.until), sum(f.bytes)::bigint
    from found f where f.until <= last
    group by f.first, f.until
    order by f.first;
end
$$;

-- Which period this is; refused unless it ended 15 days ago or before.
create or replace function pii_vault.old_period(first date) returns etl.periods
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  period etl.periods;
begin
  select p.* into period from etl.periods p where p.first = old_period.first;
  if not found then
    period.first := old_period.first;
    period.until := old_period.first + 1;
  end if;
  if (period.until <= pii_vault.day_before(15)) is not true then
    raise exception using
      errcode = 'VL006', message = 'expected the first day of a period that ended 15 days ago or before';
  end if;
  if etl.period_of(period.first) <> period.first or period.first < '0001-01-01' then
    raise exception using errcode = 'VL042', message = 'no period begins on this day';
  end if;
  return period;
end
$$;

-- How much of this period would go, and how much is held. Nothing is done.
create or replace function pii_vault.plan_expire_period(first date, with_rows boolean)
  returns table (originals bigint, "rows" bigint, held_originals bigint, held_rows bigint)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  period etl.periods := pii_vault.old_period(plan_expire_period.first);
  source record;
  held record;
begin
  select
    coalesce(t.originals, 'pii_vault.originals_default') as originals,
    coalesce(t.logins, 'etl.user_logins_without_period') as logins
  into source from pii_vault.partitions_of(period.first) t;
  "rows" := 0;
  held_rows := 0;
  execute format('select count(*) from %s o where o.period >= $1 and o.period < $2', source.originals)
  into originals using period.first, period.until;
  if plan_expire_period.with_rows then
    execute format(
      'select count(*) from %s l where l.create_date >= $1 and l.create_date < $2', source.logins
    ) into "rows" using period.first, period.until;
  end if;
  perform set_config('enable_seqscan', 'off', true);
  select * into held from pii_vault.held_in(period.first, period.until, source.logins);
  held_originals := pii_vault.count_held_originals(period, source.originals, held.kept);
  originals := originals - held_originals;
  if plan_expire_period.with_rows then
    held_rows := pii_vault.count_held_logins(period, source.logins, held.users, held.tokens);
    "rows" := "rows" - held_rows;
  end if;
  return next;
end
$$;

-- Expires one period, or the next part of one that goes row by row: call it again until it is over. All of what one
-- call does is one transaction, and one entry in the audit, which is null where nothing was to be done.
create or replace function pii_vault.expire_period(first date, with_rows boolean, run uuid, reason text)
  returns table (
    entry bigint, originals bigint, "rows" bigint, held_originals bigint, held_rows bigint, is_over boolean
  )
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  period etl.periods;
  old record;
begin
  perform pii_vault.require_reason(expire_period.reason);
  if expire_period.run is null or expire_period.with_rows is null then
    raise exception using
      errcode = 'VL006', message = 'run or with_rows is null, expected an id, and true or false';
  end if;
  perform pii_vault.require_read_committed('an expiry');
  perform pii_vault.commit_to_disk();
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '10s');
  period := pii_vault.old_period(expire_period.first);
  perform pii_vault.lock_for_expiry(period.first, expire_period.with_rows);
  -- As whoever had the lock before has left it.
  period := pii_vault.old_period(expire_period.first);
  select * into old from pii_vault.partitions_of(period.first);
  select d.* into entry, originals, "rows", held_originals, held_rows
  from pii_vault.drop_period(
    period, old.originals, old.logins, expire_period.with_rows, expire_period.run, expire_period.reason
  ) d;
  is_over := old.originals is not null and (old.logins is not null or not expire_period.with_rows);
  if entry is null and not is_over then
    select
      d.entry, d.originals, d."rows", expire_period.held_originals + d.held_originals,
      expire_period.held_rows + d.held_rows, d.entry is null
    into entry, originals, "rows", held_originals, held_rows, is_over
    from pii_vault.expire_by_row(
      period, old.originals is null, expire_period.with_rows and old.logins is null,
      expire_period.run, expire_period.reason
    ) d;
  end if;
  return next;
end
$$;

-- Bodies that nobody replayed or discarded in that time, up to 1000: they become discarded. One that came late has its
-- time from when it came, so that somebody can look at it. While anything is
-- held none of them goes: nobody can see into them to tell whose they are.
create or replace function pii_vault.expire_bodies(older_than integer, run uuid, reason text, dry boolean)
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
    raise exception using errcode = 'VL006', message = 'run or dry is null, expected an id, and true or false';
  end if;
  discarded := 0;
  held := 0;
  if not expire_bodies.dry then
    -- A hold that comes now waits for this, or this for it.
    perform pii_vault.close_gate();
  end if;
  if exists (select from pii_vault.holds h where h.released_at is null) then
    select count(*) into held from etl.quarantine q where q.state = 'open' and greatest(q.sent_at, q.quarantined_at) < day;
  elsif expire_bodies.dry then
    select count(*) into discarded from etl.quarantine q where q.state = 'open' and greatest(q.sent_at, q.quarantined_at) < day;
  else
    gone := etl.empty_bodies(array(
      select q.message_id from etl.quarantine q
      where q.state = 'open' and greatest(q.sent_at, q.quarantined_at) < day
      order by q.message_id
      limit 1000
    ));
    discarded := cardinality(gone);
    if discarded > 0 then
      perform pii_vault.record(
        'quarantine.discard', null, '{}', gone, discarded, expire_bodies.reason,
        json_build_object('kind', 'expiry', 'run', expire_bodies.run)
      );
    end if;
  end if;
  return next;
end
$$;

