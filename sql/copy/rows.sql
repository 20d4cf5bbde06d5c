-- What `veil migrate` does at its end where it has given a table of before another name (rename.sql): copies its rows
-- into periods, and writes down what they are. The table is locked until all is done.

do $$
declare
  -- It was renamed by this very transaction; one that somebody else has renamed is nobody's business.
  is_ours boolean := exists (
    select from pg_class c
    where c.oid = to_regclass('public.user_logins_before_veil')
      and c.relkind = 'r' and c.xmin = pg_current_xact_id()::xid
  );
  is_super boolean := (select r.rolsuper from pg_roles r where r.rolname = current_user);
  login name := current_user;
  month date;
  months date[];
  start date;
  indexes text[];
  index text;
begin
  if not is_ours then
    return;
  end if;
  -- No policy filters what is read; nothing of the table but its rows is looked at; and it takes as long as it takes.
  perform set_config('row_security', 'off', true);
  perform set_config('constraint_exclusion', 'off', true);
  perform set_config('enable_indexscan', 'off', true);
  perform set_config('enable_indexonlyscan', 'off', true);
  perform set_config('enable_bitmapscan', 'off', true);
  perform set_config('statement_timeout', '0', true);

  -- First those that loads write to: housekeeping goes on after the last one.
  perform set_config('role', 'veil_owner', true);
  perform etl.make_periods(etl.utc_day(now()));
  start := (select min(p.first) from etl.periods p);
  perform set_config('role', 'none', true);
  months := array(
    select distinct date_trunc('month', o.create_date::timestamp)::date
    from only public.user_logins_before_veil o
    where o.create_date >= date '1970-01-01' and o.create_date < start
  );
  perform set_config('role', 'veil_owner', true);
  -- The rest stays in the default partition: every plan of a query looks at all partitions.
  for month in select m from unnest(months) m order by m desc limit 240 loop
    perform etl.make_period(month, least((month + interval '1 month')::date, start));
  end loop;
  -- Indexes that are made at the end take half of the time of those that are filled row by row.
  select array_agg(pg_get_indexdef(i.indexrelid)) into indexes
  from pg_index i where i.indrelid = 'public.user_logins'::regclass;
  for index in
    select i.indexrelid::regclass::text from pg_index i where i.indrelid = 'public.user_logins'::regclass
  loop
    execute format('drop index %s', index);
  end loop;
  if not is_super then
    execute format('grant insert on public.user_logins to %I', login);
  end if;

  perform set_config('role', 'none', true);
  insert into public.user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
  )
  select o.user_id, o.device_type, o.masked_ip, o.masked_device_id, o.locale, o.app_version, o.create_date
  from only public.user_logins_before_veil o;

  perform set_config('role', 'veil_owner', true);
  if not is_super then
    execute format('revoke insert on public.user_logins from %I', login);
  end if;
  foreach index in array indexes loop
    execute replace(index, ' ON ONLY ', ' ON ');
  end loop;
  perform set_config('role', 'none', true);
end
$$;

-- What they are, and who may select them.
do $$
declare
  old oid := (
    select c.oid from pg_class c
    where c.oid = to_regclass('public.user_logins_before_veil')
      and c.relkind = 'r' and c.xmin = pg_current_xact_id()::xid
  );
  given record;
begin
  if old is null then
    return;
  end if;
  perform set_config('role', 'veil_owner', true);
  -- A token here is one of another vault: this one holds no original yet. That there are 26 letters is said as in the
  -- vault's own constraint, which takes less than half of the time of a counted repetition.
  insert into etl.adopted (day, messages, plain_values, tokens)
  select r.create_date, count(*),
    count(r.masked_ip) - count(*) filter (where r.ip)
      + count(r.masked_device_id) - count(*) filter (where r.device),
    count(*) filter (where r.ip and not starts_with(r.masked_ip, 'ip0_'))
      + count(*) filter (where r.device and not starts_with(r.masked_device_id, 'dev0_'))
  from (
    select l.create_date, l.masked_ip, l.masked_device_id,
      starts_with(l.masked_ip, 'ip') and substr(l.masked_ip, char_length(l.masked_ip) - 26, 1) = '_'
        and l.masked_ip::text collate "C" ~ '^ip(0|[1-9][0-9]*)_[a-z2-7]+[aeimquy4]$' as ip,
      starts_with(l.masked_device_id, 'dev')
        and substr(l.masked_device_id, char_length(l.masked_device_id) - 26, 1) = '_'
        and l.masked_device_id::text collate "C" ~ '^dev(0|[1-9][0-9]*)_[a-z2-7]+[aeimquy4]$' as device
    from public.user_logins l
    -- Each expression once a row.
    offset 0
  ) r
  group by r.create_date;

  -- Where policies said who sees which of its rows, nobody is given all of them. What veil's roles may do, it says
  -- itself (grants.sql).
  for given in
    select a.grantee, null as name from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
    where c.oid = old and not c.relrowsecurity and a.privilege_type = 'SELECT'
    union
    select a.grantee, t.attname from pg_class c, pg_attribute t, aclexplode(t.attacl) a
    where c.oid = old and not c.relrowsecurity and t.attrelid = old and t.attnum > 0 and not t.attisdropped
      and a.privilege_type = 'SELECT'
  loop
    continue when exists (
      select from pg_roles r
      where r.oid = given.grantee
        and r.rolname ~ '^veil_(owner|etl|analyst|revealer|operator|auditor|policy|approver|breakglass|eraser)$'
    );
    execute format(
      'grant select%s on public.user_logins to %s',
      ' (' || quote_ident(given.name) || ')',
      case given.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(given.grantee)) end
    );
  end loop;
  perform set_config('role', 'none', true);
end
$$;
