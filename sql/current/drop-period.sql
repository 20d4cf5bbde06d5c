-- How a period goes: its partitions are dropped, and what is held of it takes their place in fresh ones. That costs the
-- same however much goes.
--
-- What takes long comes before any lock that a load waits for: the counts, and copies of what is held. Under the lock,
-- etl.periods tells whether anything has changed since: each load, hold and forgetting that touches an old period raises
-- `changes` there.

-- What stays of a period. `users` and `tokens` are held by name. `kept` are the tokens whose originals stay: those held
-- by name, those in a held user's rows of this period, and decoys, which are for good.
create or replace function pii_vault.held_in(
  first date, until date, logins regclass, out users text[], out tokens text[], out kept text[]
)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  select
    coalesce(array_agg(distinct h.user_id::text) filter (where h.user_id is not null), '{}'),
    coalesce(array_agg(distinct h.token::text) filter (where h.token is not null), '{}')
  into users, tokens
  from pii_vault.holds h where h.released_at is null;
  kept := tokens || array(select c.token::text from pii_vault.canaries c);
  if cardinality(users) > 0 then
    execute format(
      'select $2 || coalesce(array_agg(distinct t.token::text), ''{}'')
       from %s l cross join lateral (values (l.masked_ip), (l.masked_device_id)) t (token)
       where l.user_id = any ($1) and t.token is not null and l.create_date >= $3 and l.create_date < $4',
      logins
    ) into kept using users, kept, first, until;
  end if;
end
$$;

-- Copies what is held of a partition of originals into a table of its own. Answers with how much that is; without any,
-- there is no table.
create or replace function pii_vault.copy_held_originals(
  first date, until date, old regclass, kept text[], copy text
) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  held bigint := 0;
begin
  execute format('drop table if exists pii_vault.%I', copy);
  if cardinality(kept) > 0 then
    perform pii_vault.make_originals_table(copy);
    execute format(
      'insert into pii_vault.%I (token, period, data_key, sealed, sealed_at)
       select o.token, o.period, o.data_key, o.sealed, o.sealed_at
       from %s o where o.token = any ($1) order by o.token',
      copy, old
    ) using kept;
    get diagnostics held = row_count;
    if held = 0 then
      execute format('drop table pii_vault.%I', copy);
    else
      -- With it, attaching the copy does not read it through.
      execute format(
        'alter table pii_vault.%I add constraint in_period check (period >= %L and period < %L)',
        copy, etl.day_text(first), etl.day_text(until)
      );
    end if;
  end if;
  return held;
end
$$;

-- The same of rows.
create or replace function pii_vault.copy_held_logins(
  first date, until date, old regclass, users text[], tokens text[], copy text
) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  held bigint := 0;
begin
  execute format('drop table if exists etl.%I', copy);
  if cardinality(users) + cardinality(tokens) > 0 then
    perform etl.make_logins_table(copy);
    execute format(
      'insert into etl.%I (
         user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
       )
       select l.user_id, l.device_type, l.masked_ip, l.masked_device_id, l.locale, l.app_version, l.create_date
       from %s l
       where l.user_id = any ($1) or l.masked_ip = any ($2) or l.masked_device_id = any ($2)
       order by l.ctid',
      copy, old
    ) using users, tokens;
    get diagnostics held = row_count;
    if held = 0 then
      execute format('drop table etl.%I', copy);
    else
      execute format(
        'alter table etl.%I add constraint in_period
         check (create_date is not null and create_date >= %L and create_date < %L)',
        copy, etl.day_text(first), etl.day_text(until)
      );
    end if;
  end if;
  return held;
end
$$;

-- Counts what is there and copies what is held of it, beside loads. `changes` is as it was before. A table that is not
-- given is not looked at, and its counts are null.
create or replace function pii_vault.look_at_period(
  first date, until date, old_originals regclass, logins regclass, with_rows boolean,
  out changes bigint, out originals bigint, out held_originals bigint,
  out "rows" bigint, out held_rows bigint, out days json
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  held record;
  copy text := etl.partition_name('user_logins', first) || '_held';
begin
  select p.changes into changes from etl.periods p where p.first = look_at_period.first;
  perform set_config('enable_seqscan', 'on', true);
  if old_originals is not null then
    execute format('select count(*) from %s', old_originals) into originals;
  end if;
  if with_rows then
    execute format(
      'select coalesce(json_object_agg(etl.day_text(d.day), d.logins), ''{}''), coalesce(sum(d.logins), 0)
       from (select l.create_date, count(*) from %s l group by l.create_date) d (day, logins)',
      logins
    ) into days, "rows";
  end if;
  -- Token by token, however little is known of the tables' sizes.
  perform set_config('enable_seqscan', 'off', true);
  select * into held
  from pii_vault.held_in(first, until, coalesce(logins, 'etl.user_logins_without_period'));
  if old_originals is not null then
    held_originals := pii_vault.copy_held_originals(
      first, until, old_originals, held.kept, etl.partition_name('originals', first) || '_held'
    );
    originals := originals - held_originals;
  end if;
  if with_rows then
    held_rows := pii_vault.copy_held_logins(first, until, logins, held.users, held.tokens, copy);
    "rows" := "rows" - held_rows;
    if held_rows > 0 then
      execute format(
        'select coalesce(json_object_agg(d.day, d.logins), ''{}'')
         from (
           select c.day, sum(c.logins) as logins
           from (
             select t.key as day, t.value::bigint as logins from json_each_text($1) t
             union all
             select etl.day_text(l.create_date), -count(*) from etl.%I l group by l.create_date
           ) c
           group by c.day having sum(c.logins) > 0
         ) d',
        copy
      ) into days using days;
    end if;
  end if;
end
$$;

-- Locks these tables, the partitions of none, all of them in this time together.
create or replace function pii_vault.lock_within(relations regclass[], most interval) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  ends timestamptz := clock_timestamp() + most;
  relation regclass;
  left_ms integer;
begin
  foreach relation in array relations loop
    left_ms := extract(epoch from ends - clock_timestamp()) * 1000;
    if left_ms < 1 then
      raise lock_not_available;
    end if;
    perform pii_vault.at_most('lock_timeout', left_ms || 'ms');
    execute format('lock table only %s in access exclusive mode', relation);
  end loop;
end
$$;

-- Drops the old partition. Its copy, if there is one, takes its place and its name.
create or replace function pii_vault.replace_partition(
  first date, until date, parent regclass, schema text, name text
) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  copy regclass := to_regclass(format('%I.%I', schema, name || '_held'));
begin
  execute format('drop table %I.%I', schema, name);
  if copy is not null then
    execute format('alter table %s rename to %I', copy, name);
    execute format(
      'alter table %s attach partition %s for values from (%L) to (%L)', parent, copy,
      etl.day_text(first), etl.day_text(until)
    );
    execute format('alter table %s drop constraint in_period', copy);
  end if;
end
$$;

-- One attempt, under locks that keep no load waiting for longer than a fifth of a second: 'done', 'busy' where they
-- could not be had, 'changed' where not everything is as it was counted. Only the first leaves a lock behind.
create or replace function pii_vault.try_drop(
  first date, until date, relations regclass[], changes bigint, with_originals boolean, with_rows boolean
) returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pii_vault.at_most('lock_timeout', '120ms');
  lock table pii_vault.erasure_gate in exclusive mode;
  if (with_originals or with_rows)
    and changes is distinct from (select p.changes from etl.periods p where p.first = try_drop.first)
  then
    raise serialization_failure;
  end if;
  perform pii_vault.lock_within(relations, interval '80 milliseconds');
  if with_originals then
    perform pii_vault.replace_partition(
      first, until, 'pii_vault.originals', 'pii_vault', etl.partition_name('originals', first)
    );
  end if;
  if with_rows then
    perform pii_vault.replace_partition(
      first, until, 'public.user_logins', 'etl', etl.partition_name('user_logins', first)
    );
    -- Late rows of the period go to the default partition's own partitions, whose bounds sessions have cached. PostgreSQL
    -- has them look again at the default partition only, and would refuse such rows (23514). This changes nothing else.
    alter table etl.user_logins_without_period reset (fillfactor);
  end if;
  return 'done';
exception
  when lock_not_available or deadlock_detected then
    return 'busy';
  when serialization_failure then
    return 'changed';
end
$$;
