-- The table that analysts read.

-- A relation that is there under one of our names is somebody else's: its triggers, types or rules would run with
-- veil's rights, so it is not taken over.
do $$
declare
  found text;
begin
  select r.name into found
  from (
    values ('user_logins'), ('user_logins_shared_tokens'), ('user_logins_per_token_and_day')
  ) r (name)
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

create table public.user_logins (
  user_id varchar(128),
  device_type varchar(32),
  masked_ip varchar(256),
  masked_device_id varchar(256),
  locale varchar(32),
  app_version integer,
  create_date date
);

-- What look-ups by user, token and date need. With these, loads run at 0.84 of their rate without any index
-- (PostgreSQL 18, bench/indexes.ts). With a btree on the date, too, it is 0.79. With hash indexes instead of btrees it
-- is 0.85, which is not worth what those cannot do: order, group, range. The indexes have no names of ours: those may
-- be taken, by a table that was renamed.
create index on public.user_logins using btree (user_id);
create index on public.user_logins using btree (masked_ip);
create index on public.user_logins using btree (masked_device_id);
create index on public.user_logins using brin (create_date);
