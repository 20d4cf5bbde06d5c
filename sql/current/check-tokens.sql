-- What must always hold between the rows and the vault: each token has its original in its row's period, nothing but tokens
-- stands there, and what was forgotten stays so. Partition by partition, so that a check takes no more memory than one
-- period needs.

-- Of one partition of user_logins: the values that have no original in their rows' period. Where originals have
-- expired these are all of them. Of rows without a date: those that have an original in no period.
create or replace function etl.values_without_original(partition regclass)
  returns table (day date, field text, value text)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  period etl.periods;
begin
  select p.* into period from etl.periods p
  where to_regclass(format('etl.%I', etl.partition_name('user_logins', p.first)))
    = values_without_original.partition;
  return query execute format(
    'select v.* from (
       select l.create_date, t.field, t.value
       from %s l
       cross join lateral (
         values (''ip'', l.masked_ip::text), (''device_id'', l.masked_device_id::text)
       ) t (field, value)
       where t.value is not null
     ) v
     where not exists (
       select from pii_vault.originals o
       where o.token = v.value collate "C"
         and starts_with(o.token, case v.field when ''ip'' then ''ip'' else ''dev'' end)
         and %s
     )',
    values_without_original.partition,
    case
      when period.first is not null then format('o.period = %L::date', etl.day_text(period.first))
      when values_without_original.partition = 'etl.user_logins_without_period'::regclass
        then 'o.period = v.create_date'
      else 'true'
    end
  );
end
$$;

-- All of them, and the days whose originals have expired, as is_expired.
create or replace function etl.rows_by_partition()
  returns table (partition regclass, is_expired boolean)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select t.relid, p.originals_expired_at is not null
  from pg_partition_tree('public.user_logins') t
  left join etl.periods p
    on to_regclass(format('etl.%I', etl.partition_name('user_logins', p.first))) = t.relid
  where t.isleaf
$$;

create or replace function etl.count_values() returns bigint
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select count(l.masked_ip) + count(l.masked_device_id) from public.user_logins l
$$;

-- Generation 0 stands for nothing recoverable, and what has expired was erased. A copied row's token may be of another
-- vault. As many of a day may lack an original as were copied; where there are more, all of that day are named, because
-- nothing tells the copied ones.
create or replace function etl.check_tokens_have_originals(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with lacking as (
    select v.day, v.value collate "C" as token, count(*) as amount
    from etl.rows_by_partition() r
    cross join lateral etl.values_without_original(r.partition) v
    where not r.is_expired
      and v.value collate "C" ~ case v.field
        when 'ip' then '^ip[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'
        else '^dev[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'
      end
      and not exists (
        select from etl.periods p
        where p.first = v.day and p.until = v.day + 1 and p.originals_expired_at is not null
      )
    group by v.day, v.value collate "C"
  ),
  lost as (
    select distinct l.token
    from (
      select d.day from (
        select g.day, g.amount from lacking g
        union all
        select a.day, -a.tokens from etl.adopted a where a.tokens > 0
      ) d
      group by d.day
      having sum(d.amount) > 0
    ) b
    join lacking l on l.day = b.day or (l.day is null and b.day is null)
  )
  select
    etl.count_values(),
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
    select v.day, count(*) as amount
    from etl.rows_by_partition() r
    -- What has an original is a token. The form of each value would cost ten times this join.
    cross join lateral etl.values_without_original(r.partition) v
    where v.value collate "C" !~ case v.field
      when 'ip' then '^ip(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
      else '^dev(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
    end
    group by v.day
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
    etl.count_values(),
    (select coalesce(sum(b.plain), 0)::bigint from broken b),
    array(
      select format('%s: %s values', etl.day_text(b.day), b.plain) from broken b order by b.day limit 5
    )
$$;

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
  )
  select
    (select count(*) from pii_vault.tombstones),
    (select count(*) from back),
    array(select b.token::text from back b order by b.token limit 5)
$$;
