-- The table that analysts read, and the periods by which it and the vault's originals are partitioned.

-- A relation that is there under one of our names is somebody else's: its triggers, types or rules would run with
-- veil's rights, so it is not taken over. A table of logins has been given another name by now (sql/copy/rename.sql).
do $$
declare
  found text;
begin
  select r.name into found
  from (values ('user_logins_shared_tokens'), ('user_logins_per_token_and_day')) r (name)
  where pg_catalog.to_regclass('public.' || r.name) is not null
  limit 1;
  if found is not null then
    raise exception using
      errcode = 'VL090',
      message = format('public.%s was there before veil, and veil makes its own', found),
      hint = format('alter table public.%s rename to %s_before_veil; then migrate again', found, found);
  end if;
end
$$;

-- Of the periods that are yet to be made; those that there are keep theirs.
create table etl.period_length (
  length text not null default 'month',
  constraint period_length_key primary key (length),
  constraint period_length_length check (length in ('month', 'week', 'day'))
);

create unique index period_length_only on etl.period_length ((true));

insert into etl.period_length default values;

-- Each has a partition of user_logins and one of originals. A day of the default partitions is a period of its own,
-- and stands here only once it has expired.
create table etl.periods (
  first date not null,
  until date not null,
  originals_expired_at timestamptz,
  logins_expired_at timestamptz,
  changes bigint not null default 0,
  constraint periods_key primary key (first),
  constraint periods_until unique (until),
  constraint periods_range check (first < until),
  -- Two periods of one day would store its rows twice.
  constraint periods_apart exclude using gist (daterange(first, until) with &&)
);

comment on table etl.periods is
  'from which day to before which one, what of it has expired, and how often what is old in it was changed';

create table etl.expired_logins (
  day date not null,
  logins bigint not null,
  constraint expired_logins_key primary key (day),
  constraint expired_logins_logins check (logins > 0)
);

comment on table etl.expired_logins is 'how many rows of each day have expired';

create table public.user_logins (
  user_id varchar(128),
  device_type varchar(32),
  masked_ip varchar(256),
  masked_device_id varchar(256),
  locale varchar(32),
  app_version integer,
  create_date date
) partition by range (create_date);

-- In etl, as the partitions of the periods are: in public, somebody else could have taken their names. Rows without a
-- date come from a table of before only. They stand apart, and the constraint says so, so that no new period has to
-- look through them: a million took 70 ms, in which nobody could read.
--
-- Neither of the two is a default partition. With one among them, a query that names no date was planned by proving it
-- against every period: with 400 of them in 340 ms, and so in 14 (PostgreSQL 18).
create table etl.user_logins_default
  partition of public.user_logins default partition by list ((create_date is null));
create table etl.user_logins_without_date partition of etl.user_logins_default (
  constraint user_logins_without_date check (create_date is null)
) for values in (true);
create table etl.user_logins_without_period partition of etl.user_logins_default for values in (false);

-- A row has no key, and could not be changed where a publication has this table.
alter table public.user_logins replica identity full;
alter table etl.user_logins_default replica identity full;
alter table etl.user_logins_without_date replica identity full;
alter table etl.user_logins_without_period replica identity full;

-- What look-ups by user, token and date need. With these, loads run at 0.84 of their rate without any index
-- (PostgreSQL 18, bench/indexes.ts). With a btree on the date, too, it is 0.79. With hash indexes instead of btrees it
-- is 0.85, which is not worth what those cannot do: order, group, range. The indexes have no names of ours: those may
-- be taken, by a table that was renamed.
create index on public.user_logins using btree (user_id);
create index on public.user_logins using btree (masked_ip);
create index on public.user_logins using btree (masked_device_id);
create index on public.user_logins using brin (create_date);
