-- What `veil migrate` does before its tables are made, where a table public.user_logins is there already: looks whether
-- it is the published one, and gives it another name. It stays its owner's, with all that hangs on it.
--
-- This runs as the login that migrates, which may be a superuser. So the catalogs are read here and nothing of the
-- table's: a function, a rule or a policy on it would run with this login's rights.

-- Whether it can be renamed and read; and if so, it is locked.
do $$
declare
  old oid;
  kind "char";
  is_super boolean := (select r.rolsuper from pg_roles r where r.rolname = current_user);
  may_bypass boolean := (select r.rolbypassrls from pg_roles r where r.rolname = current_user);
  needed text;
begin
  if to_regclass('public.user_logins') is null and to_regtype('public.user_logins') is null then
    return;
  end if;
  -- A schema that this transaction has changed cannot be renamed by another one, so each name here means one thing.
  if pg_has_role((select n.nspowner from pg_namespace n where n.nspname = 'public'), 'usage') then
    grant usage on schema public to veil_owner;
  end if;
  old := to_regclass('public.user_logins');
  -- A type has the name of a table, too.
  kind := coalesce((select c.relkind from pg_class c where c.oid = old), 'c');
  if kind <> 'r' then
    raise exception using
      errcode = 'VL090',
      message = format(
        'public.user_logins was there before veil, and is not copied: it is %s, and no ordinary table',
        case kind
          when 'v' then 'a view'
          when 'm' then 'a materialized view'
          when 'p' then 'a partitioned table'
          when 'f' then 'a foreign table'
          when 'S' then 'a sequence'
          when 'c' then 'a type'
          else 'something else'
        end
      ),
      hint = format(
        'alter %s public.user_logins rename to user_logins_before_veil; then migrate again, and begin without its rows',
        case kind when 'c' then 'type' else 'table' end
      );
  end if;

  select case
    when not is_super and not pg_has_role(c.relowner, 'usage')
      then format('grant %I to %I', pg_get_userbyid(c.relowner), current_user)
    when not has_table_privilege(old, 'select')
      then format('grant select on public.user_logins to %I', current_user)
    when not has_schema_privilege('public', 'create')
      then format('grant create on schema public to %I', current_user)
    when c.relrowsecurity and c.relforcerowsecurity and not (is_super or may_bypass)
      then 'alter table public.user_logins no force row level security'
  end
  into needed
  from pg_class c where c.oid = old;
  if needed is not null then
    raise exception using
      errcode = 'VL090',
      message = format(
        'public.user_logins was there before veil, and the login %I may not rename and read it', current_user
      ),
      hint = format('migrate as a superuser, or have the table''s owner or a superuser run: %s;', needed);
  end if;

  -- "only": a view's tables, or a table's children, would be locked as well.
  begin
    lock table only public.user_logins in access exclusive mode;
  exception when lock_not_available then
    raise exception using
      errcode = '55P03',
      message = 'public.user_logins is in use, and is to be renamed; nothing was changed',
      hint = 'migrate again when nobody uses it; pg_locks of public.user_logins names the session that does';
  end;
  if to_regclass('public.user_logins') is distinct from old then
    raise exception using errcode = '40001', message = 'public.user_logins was replaced meanwhile';
  end if;
end
$$;

-- Whether it is as it should be.
do $$
declare
  old oid := to_regclass('public.user_logins');
  faults text[];
begin
  if old is null then
    return;
  end if;
  faults := array(
    select case
      when f.name is null then format('there is no column %s', e.name)
      when e.name is null then format('the column %s is one too many', quote_ident(f.name))
      when f.is_made then format('the column %s is generated', f.name)
      else format('the column %s is %s and not %s', f.name, f.type, e.type)
    end
    from (
      values
        ('user_id', 'character varying(128)'), ('device_type', 'character varying(32)'),
        ('masked_ip', 'character varying(256)'), ('masked_device_id', 'character varying(256)'),
        ('locale', 'character varying(32)'), ('app_version', 'integer'), ('create_date', 'date')
    ) e (name, type)
    full join (
      -- A type of somebody else's does not look like these: its name comes out with its schema.
      select a.attname::text, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '' or a.attidentity <> ''
      from pg_attribute a where a.attrelid = old and a.attnum > 0 and not a.attisdropped
    ) f (name, type, is_made) on f.name = e.name
    where (f.type = e.type and not f.is_made) is not true
    order by coalesce(e.name, f.name)
  );
  if exists (select from pg_inherits i where old in (i.inhrelid, i.inhparent)) then
    faults := faults || 'it inherits from another table, or another one from it'::text;
  end if;
  -- To plan any query, PostgreSQL works out what is constant in these expressions.
  faults := faults || array(
    select distinct format(
      '%s uses a function or a type that is not PostgreSQL''s own', pg_describe_object(d.classid, d.objid, 0)
    )
    from pg_depend d
    where (
      (
        d.classid = 'pg_class'::regclass and d.objid in (
          select i.indexrelid from pg_index i
          where i.indrelid = old and (i.indexprs is not null or i.indpred is not null)
        )
      ) or (
        d.classid = 'pg_statistic_ext'::regclass and d.objid in (
          select s.oid from pg_statistic_ext s where s.stxrelid = old
        )
      )
    ) and d.refclassid not in (
      'pg_class'::regclass, 'pg_constraint'::regclass, 'pg_namespace'::regclass, 'pg_am'::regclass,
      'pg_opclass'::regclass, 'pg_collation'::regclass, 'pg_extension'::regclass
    )
  );
  if cardinality(faults) > 0 then
    raise exception using
      errcode = 'VL090',
      message = 'public.user_logins was there before veil, and is not copied: ' || array_to_string(faults, '; '),
      hint = 'change the table so that it fits; or, to begin without its rows: alter table public.user_logins rename to user_logins_before_veil; then migrate again';
  end if;

  if to_regclass('public.user_logins_before_veil') is not null then
    raise exception using
      errcode = 'VL090',
      message = 'public.user_logins_before_veil is there already, and public.user_logins is to get this name',
      hint = 'rename the older one: alter table public.user_logins_before_veil rename to user_logins_older; then migrate again';
  end if;
  alter table public.user_logins rename to user_logins_before_veil;
end
$$;
