-- What the expiry of a period waits for, and what it puts on record. The waiting holds up no load: between its attempts
-- it has no lock that one would want.

-- What a drop locks of originals, and of user_logins where rows go, too. A default partition is locked with its parent.
create or replace function pii_vault.locks_of_drop(originals regclass, logins regclass) returns regclass[]
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select
    case when originals is null then '{}' else array[
      'pii_vault.originals'::regclass, 'pii_vault.originals_default'::regclass, originals
    ] end
    || case when logins is null then '{}' else array[
      'public.user_logins'::regclass, 'etl.user_logins_default'::regclass,
      'etl.user_logins_without_date'::regclass, 'etl.user_logins_without_period'::regclass, logins
    ] end
$$;

-- The sessions that use one of these tables, or hold the gate: the transaction of each, and what a person is told.
-- Since when, no role of veil's may see. Where rows may be read and changed, only those that lock more than that.
create or replace function pii_vault.in_the_way(relations regclass[], is_change_allowed boolean)
  returns table (transaction text, told text)
  language sql volatile
  set search_path = pg_catalog, pg_temp
as $$
  select distinct on (k.virtualtransaction) k.virtualtransaction,
    case
      when k.pid is null then 'a prepared transaction'
      else format(
        'session %s (%s%s)', k.pid, coalesce('login ' || r.rolname, 'of the server itself'),
        coalesce(', application ' || nullif(a.application_name, ''), '')
      )
    end || ', which uses ' || k.relation::regclass
  from pg_locks k
  left join lateral pg_stat_get_activity(k.pid) a on a.pid = k.pid
  left join pg_roles r on r.oid = a.usesysid
  where k.locktype = 'relation' and k.granted and k.pid is distinct from pg_backend_pid()
    and k.database = (select d.oid from pg_database d where d.datname = current_database())
    and (
      (
        k.relation in (select unnest(relations))
        and not (
          is_change_allowed and k.mode in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
        )
      )
      or (
        k.relation = 'pii_vault.erasure_gate'::regclass and k.mode <> 'AccessShareLock'
        and not is_change_allowed
      )
    )
  order by k.virtualtransaction, k.relation
$$;

create or replace function pii_vault.refuse_busy(first date, told text[], since timestamptz) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = '55P03',
    message = format(
      'the period that begins on %s could not be expired, and is as it was; in the way at %s already: %s',
      etl.day_text(first), pii_vault.utc_text(since),
      coalesce(nullif(array_to_string(told[1:3], '; ', ''), ''), 'many short transactions')
    ),
    hint = 'loads go on meanwhile; run it again when the session has ended. A superuser may end it: pg_terminate_backend, or rollback prepared';
end
$$;

-- Keeps other expiries and vacuum away from these tables until the end of the transaction; an automatic vacuum gives
-- way. Loads and readers do not notice.
create or replace function pii_vault.lock_for_expiry(first date, with_rows boolean) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  started timestamptz := clock_timestamp();
  parts record;
  relation regclass := 'pii_vault.originals_default';
begin
  perform pii_vault.at_most('lock_timeout', '5s');
  -- First, because partitions are only looked up by one expiry at a time: the one before may drop some.
  lock table only pii_vault.originals_default in share update exclusive mode;
  select * into parts from pii_vault.partitions_of(first);
  foreach relation in array
    pii_vault.locks_of_drop(parts.originals, case when with_rows then parts.logins end)
  loop
    -- The parents are changed by whoever makes periods.
    continue when relation in ('pii_vault.originals'::regclass, 'public.user_logins'::regclass);
    execute format('lock table only %s in share update exclusive mode', relation);
  end loop;
exception when lock_not_available then
  perform pii_vault.refuse_busy(
    first, array(select w.told from pii_vault.in_the_way(array[relation], true) w), started
  );
end
$$;

-- Tries until it could do it, or something has changed, for some seconds. While the same transaction is in the way as
-- before, it does not even try: loads would stand behind it each time.
create or replace function pii_vault.drop_when_free(
  first date, until date, originals regclass, logins regclass, changes bigint
) returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  started timestamptz := clock_timestamp();
  relations regclass[] := pii_vault.locks_of_drop(originals, logins);
  outcome text := 'busy';
  before text[] := '{}';
  now_there text[];
  told text[];
begin
  loop
    select coalesce(array_agg(w.transaction), '{}'), array_agg(w.told) filter (where w.transaction = any (before))
    into now_there, told
    from pii_vault.in_the_way(relations, false) w;
    if told is null then
      outcome := pii_vault.try_drop(
        first, until, relations, changes, originals is not null, logins is not null
      );
    end if;
    exit when outcome <> 'busy';
    if clock_timestamp() > started + interval '6 seconds' then
      perform pii_vault.refuse_busy(first, told, started);
    end if;
    before := now_there;
    perform pg_sleep(0.2);
  end loop;
  return outcome;
end
$$;

-- Puts on record, in the audit and in etl.periods, what one call has done. Tables that were not touched have null.
create or replace function pii_vault.record_expiry(
  period etl.periods, originals bigint, "rows" bigint, held_originals bigint, held_rows bigint, days json,
  run uuid, reason text
) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
begin
  insert into etl.periods as p (first, until, originals_expired_at, logins_expired_at)
  values (
    period.first, period.until,
    case when originals is not null then at end, case when "rows" is not null then at end
  )
  on conflict (first) do update set
    originals_expired_at = coalesce(p.originals_expired_at, excluded.originals_expired_at),
    logins_expired_at = coalesce(p.logins_expired_at, excluded.logins_expired_at);
  insert into etl.expired_logins as e (day, logins)
  select t.key::date, t.value::bigint from json_each_text(days) t order by 1
  on conflict (day) do update set logins = e.logins + excluded.logins;
  return pii_vault.record(
    'erasure.expire', null, '{}', '{}',
    least(coalesce(originals, 0) + coalesce("rows", 0), 2147483647)::integer, reason,
    json_build_object(
      'erasure', gen_random_uuid(),
      'kind', 'expiry',
      'run', run,
      'at', pii_vault.utc_text(at),
      'first', etl.day_text(period.first),
      'until', etl.day_text(period.until),
      'originals', originals,
      'rows', "rows",
      'days', days,
      'held', json_build_object('originals', held_originals, 'rows', held_rows)
    )
  );
end
$$;

-- Drops what partitions the period has, unless they are empty, or all in them is held.
create or replace function pii_vault.drop_period(
  period etl.periods, old_originals regclass, logins regclass, with_rows boolean, run uuid, reason text,
  out entry bigint, out originals bigint, out "rows" bigint, out held_originals bigint, out held_rows bigint
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  look record;
  is_idle boolean;
  outcome text;
begin
  for look_number in 1..5 loop
    select * into look
    from pii_vault.look_at_period(
      period.first, period.until, old_originals, logins, with_rows and logins is not null
    );
    originals := look.originals;
    "rows" := look."rows";
    held_originals := coalesce(look.held_originals, 0);
    held_rows := coalesce(look.held_rows, 0);
    is_idle := coalesce(originals, 0) + coalesce("rows", 0) = 0;
    -- Where anything goes, all that has not expired yet counts as expired, empty or not.
    if is_idle or (period.originals_expired_at is not null and originals = 0) then
      execute format(
        'drop table if exists pii_vault.%I', etl.partition_name('originals', period.first) || '_held'
      );
      originals := null;
    end if;
    if is_idle or (period.logins_expired_at is not null and "rows" = 0) then
      execute format(
        'drop table if exists etl.%I', etl.partition_name('user_logins', period.first) || '_held'
      );
      "rows" := null;
    end if;
    exit when is_idle;
    outcome := pii_vault.drop_when_free(
      period.first, period.until, case when originals is not null then old_originals end,
      case when "rows" is not null then logins end, look.changes
    );
    if outcome = 'done' then
      entry := pii_vault.record_expiry(
        period, originals, "rows", held_originals, held_rows,
        case when "rows" is not null then look.days end, run, reason
      );
      exit;
    end if;
  end loop;
  if outcome = 'changed' and not is_idle then
    raise exception using
      errcode = '55P03',
      message = format(
        'old logins and erasures kept changing the period that begins on %s; it is as it was',
        etl.day_text(period.first)
      ),
      hint = 'run it again';
  end if;
  originals := coalesce(originals, 0);
  "rows" := coalesce("rows", 0);
end
$$;
