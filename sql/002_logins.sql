-- The table that analysts read, and what they read it through.

-- An existing user_logins is adopted with its rows, if it can be: the same seven columns, and nothing
-- on it that would run somebody else's code with veil's rights (triggers, rules, checks, indexes and
-- statistics on expressions, operator classes) or refuse a row (unique, foreign and exclusion constraints, not null).
do $$
declare
  difference text;
begin
  if pg_catalog.to_regclass('public.user_logins') is null then
    return;
  end if;
  -- Nobody adds anything between the check and the change of owner.
  lock table public.user_logins in access exclusive mode;
  with wanted (position, name, type, nullable) as (
    values
      (1, 'user_id', 'character varying(128)', false),
      (2, 'device_type', 'character varying(32)', true),
      (3, 'masked_ip', 'character varying(256)', true),
      (4, 'masked_device_id', 'character varying(256)', true),
      (5, 'locale', 'character varying(32)', true),
      (6, 'app_version', 'integer', true),
      (7, 'create_date', 'date', false)
  ),
  present as (
    select
      a.attname::text as name,
      pg_catalog.format_type(a.atttypid, a.atttypmod) as type,
      a.attnotnull as not_null,
      a.attgenerated::text <> '' or a.attidentity::text <> '' as generated
    from pg_catalog.pg_attribute a
    where a.attrelid = 'public.user_logins'::regclass and a.attnum > 0 and not a.attisdropped
  ),
  differences (position, text) as (
    select 0, 'it is not an ordinary table'
    from pg_catalog.pg_class c
    where c.oid = 'public.user_logins'::regclass and (c.relkind <> 'r' or c.relpersistence <> 'p')
    union all
    select position, case
      when p.name is null then format('column %s is missing', w.name)
      when p.type <> w.type then format('column %s is %s and not %s', w.name, p.type, w.type)
      when p.generated then format('column %s is generated', w.name)
      else format('column %s is not null', w.name)
    end
    from wanted w left join present p using (name)
    where p.name is null or p.type <> w.type or p.generated or (p.not_null and w.nullable)
    union all
    select 8, format('column %s is not known', p.name)
    from present p where not exists (select from wanted w where w.name = p.name)
    union all
    select 9, format('it has the constraint %s', c.conname)
    from pg_catalog.pg_constraint c
    where c.conrelid = 'public.user_logins'::regclass and c.contype <> 'n'
    union all
    select 10, format('it has the index %s, which is unique or on an expression', c.relname)
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid
    where i.indrelid = 'public.user_logins'::regclass
      and (i.indisunique or i.indexprs is not null or i.indpred is not null)
      and not exists (select from pg_catalog.pg_constraint c where c.conindid = i.indexrelid)
    union all
    -- Its functions would run with veil's rights, at each insert or each analyze.
    select 10, format('it has the index %s, whose operator class is not PostgreSQL''s own', c.relname)
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_opclass o on o.oid = any (i.indclass::oid[])
    where i.indrelid = 'public.user_logins'::regclass
      and o.opcnamespace <> 'pg_catalog'::regnamespace
    union all
    select 10, format('it has the extended statistics %s', s.stxname)
    from pg_catalog.pg_statistic_ext s
    where s.stxrelid = 'public.user_logins'::regclass
    union all
    select 11, format('it has the trigger %s', t.tgname)
    from pg_catalog.pg_trigger t
    where t.tgrelid = 'public.user_logins'::regclass and not t.tgisinternal
    union all
    select 12, format('it has the rule %s', r.rulename)
    from pg_catalog.pg_rewrite r where r.ev_class = 'public.user_logins'::regclass
    union all
    select 13, 'it has row-level security'
    from pg_catalog.pg_class c
    where c.oid = 'public.user_logins'::regclass and (c.relrowsecurity or c.relforcerowsecurity)
    union all
    select 14, 'it inherits from, or is inherited by, another table'
    where exists (
      select from pg_catalog.pg_inherits i
      where 'public.user_logins'::regclass in (i.inhrelid, i.inhparent)
    )
  )
  select string_agg(text, '; ' order by position, text) into difference from differences;
  if difference is not null then
    raise exception using
      errcode = 'VL090',
      message = 'the existing table public.user_logins cannot be adopted: ' || difference,
      hint = 'rename it or change it to the published columns, and migrate again';
  end if;
end
$$;

-- Creating and owning tables in public takes a privilege there; it is given for this transaction only.
do $$
begin
  if not pg_catalog.has_schema_privilege('veil_owner', 'public', 'create') then
    grant create on schema public to veil_owner;
  end if;
  if not pg_catalog.has_schema_privilege('veil_owner', 'public', 'usage') then
    grant usage on schema public to veil_owner;
  end if;
  if not pg_catalog.has_schema_privilege('veil_analyst', 'public', 'usage') then
    grant usage on schema public to veil_analyst;
  end if;
end
$$;

-- Of an adopted table, who may read it goes on reading. Nothing else is left to anyone: a trigger, for one,
-- would run with veil's rights.
do $$
declare
  granted record;
  former_owner regrole;
begin
  if pg_catalog.to_regclass('public.user_logins') is null then
    return;
  end if;
  select c.relowner::regrole into former_owner
  from pg_catalog.pg_class c where c.oid = 'public.user_logins'::regclass;
  for granted in
    select distinct
      a.privilege_type,
      '' as column_list,
      case a.grantee when 0 then 'public' else a.grantee::regrole::text end as grantee
    from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
    where c.oid = 'public.user_logins'::regclass
      and a.grantee <> c.relowner and a.privilege_type <> 'SELECT'
    union all
    select distinct
      a.privilege_type,
      format('(%I)', t.attname),
      case a.grantee when 0 then 'public' else a.grantee::regrole::text end
    from pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a
    where t.attrelid = 'public.user_logins'::regclass and a.privilege_type <> 'SELECT'
  loop
    execute format(
      'revoke %s %s on public.user_logins from %s cascade',
      granted.privilege_type, granted.column_list, granted.grantee
    );
  end loop;
  alter table public.user_logins owner to veil_owner;
  -- His views read through him.
  if former_owner <> 'veil_owner'::regrole then
    perform pg_catalog.set_config('role', 'veil_owner', true);
    execute format('grant select on public.user_logins to %s', former_owner);
    perform pg_catalog.set_config('role', 'none', true);
  end if;
end
$$;

set local role veil_owner;

create table if not exists public.user_logins (
  user_id varchar(128),
  device_type varchar(32),
  masked_ip varchar(256),
  masked_device_id varchar(256),
  locale varchar(32),
  app_version integer,
  create_date date
);

-- What look-ups by user, token and date need. Loads run at 0.84 of their rate without any index
-- (PostgreSQL 18, bench/indexes.ts); with a btree on the date, too, at 0.79; with hash indexes instead
-- of btrees at 0.85, which is not worth what they cannot do (order, group, range).
do $$
declare
  wanted record;
begin
  for wanted in
    values ('user_id', 'btree'), ('masked_ip', 'btree'), ('masked_device_id', 'btree'),
      ('create_date', 'brin')
  loop
    -- By what it indexes: a name may be taken by another table's.
    if not exists (
      select
      from pg_catalog.pg_index i
      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
      where i.indrelid = 'public.user_logins'::regclass and a.attname = wanted.column1
    ) then
      execute format(
        'create index on public.user_logins using %s (%I)', wanted.column2, wanted.column1
      );
    end if;
  end loop;
end
$$;

grant select on public.user_logins to veil_analyst;

-- The body is parsed here and not at the call, so no caller's search path changes what it means.
create function etl.app_version_text(app_version integer) returns text
  language sql immutable strict parallel safe
  return (app_version / 1000000)::text || '.' || (app_version / 1000 % 1000)::text
    || '.' || (app_version % 1000)::text;

revoke all on function etl.app_version_text(integer) from public;
grant execute on function etl.app_version_text(integer) to veil_analyst;

create view public.user_logins_shared_tokens as
  select
    'ip' as field,
    masked_ip as token,
    count(distinct user_id) as users,
    count(*) as logins,
    min(create_date) as first_day,
    max(create_date) as last_day
  from public.user_logins
  where masked_ip is not null
  group by masked_ip
  having count(distinct user_id) > 1
  union all
  select
    'device_id',
    masked_device_id,
    count(distinct user_id),
    count(*),
    min(create_date),
    max(create_date)
  from public.user_logins
  where masked_device_id is not null
  group by masked_device_id
  having count(distinct user_id) > 1;

comment on view public.user_logins_shared_tokens is
  'tokens that more than one user logged in with';

create view public.user_logins_per_token_and_day as
  select
    'ip' as field,
    masked_ip as token,
    create_date,
    count(*) as logins,
    count(distinct user_id) as users
  from public.user_logins
  where masked_ip is not null
  group by masked_ip, create_date
  union all
  select 'device_id', masked_device_id, create_date, count(*), count(distinct user_id)
  from public.user_logins
  where masked_device_id is not null
  group by masked_device_id, create_date;

comment on view public.user_logins_per_token_and_day is
  'how often each token logged in on each day, and as how many users';

grant select on public.user_logins_shared_tokens, public.user_logins_per_token_and_day
  to veil_analyst;

set local role none;

do $$
begin
  if exists (
    select
    from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
    where n.nspname = 'public' and a.grantee = 'veil_owner'::regrole and a.privilege_type = 'CREATE'
  ) then
    revoke create on schema public from veil_owner;
  end if;
end
$$;
