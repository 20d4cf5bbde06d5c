-- What every `veil migrate` looks at first: the roles, the two schemas, and what belongs to the database itself
-- and so is in no dump of it. Run as the login that migrates, in the transaction of the whole migration.
--
-- Roles belong to the cluster, and migrations run per database: twenty databases of one cluster that migrate at
-- once meet here. A role that another one has made meanwhile is what we wanted (duplicate_object,
-- unique_violation). A catalog row that both touch is tried again (XX000, "tuple concurrently updated").

do $$
declare
  wanted text;
begin
  foreach wanted in array array[
    'veil_owner', 'veil_etl', 'veil_analyst', 'veil_revealer', 'veil_operator', 'veil_auditor',
    'veil_policy', 'veil_approver', 'veil_breakglass', 'veil_eraser'
  ] loop
    for attempt in 1..50 loop
      begin
        if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
          execute format('create role %I nologin', wanted);
        end if;
        exit;
      exception
        when duplicate_object or unique_violation then
          exit;
        when internal_error then
          if attempt = 50 then raise; end if;
          perform pg_catalog.pg_sleep(random() * 0.05);
      end;
    end loop;
  end loop;
end
$$;

-- Who migrates must be able to act as veil_owner. A superuser is. Whoever made the roles, or holds them with admin
-- option, may grant himself the right (from PostgreSQL 16 on, making a role does not give it).
do $$
begin
  for attempt in 1..50 loop
    begin
      if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        begin
          perform pg_catalog.set_config('role', 'veil_owner', true);
          perform pg_catalog.set_config('role', 'none', true);
        exception when insufficient_privilege then
          grant veil_owner to current_user;
        end;
      end if;
      exit;
    exception
      when unique_violation then
        null;
      when internal_error then
        if attempt = 50 then raise; end if;
        perform pg_catalog.pg_sleep(random() * 0.05);
    end;
  end loop;
end
$$;

-- In a fresh database this lets one migration through; the others fail here, and find the schemas when they run again.
do $$
begin
  if pg_catalog.to_regnamespace('etl') is null then
    create schema etl authorization veil_owner;
  end if;
  if pg_catalog.to_regnamespace('pii_vault') is null then
    create schema pii_vault authorization veil_owner;
  end if;
  -- The owner of a schema may drop and replace whatever stands in it.
  if exists (
    select from pg_catalog.pg_namespace n
    where n.nspname in ('etl', 'pii_vault') and n.nspowner <> 'veil_owner'::regrole
  ) then
    raise exception using
      errcode = 'VL090',
      message = 'a schema etl or pii_vault was there before veil, and belongs to somebody else',
      hint = 'drop it, or give it another name; then migrate again';
  end if;
end
$$;

do $$
declare
  wanted text;
begin
  if pg_catalog.has_database_privilege('public', current_database(), 'temporary') then
    execute format('revoke temporary on database %I from public', current_database());
  end if;
  foreach wanted in array array[
    'veil_owner', 'veil_etl', 'veil_analyst', 'veil_revealer', 'veil_operator', 'veil_auditor',
    'veil_policy', 'veil_approver', 'veil_breakglass', 'veil_eraser'
  ] loop
    if not exists (
      select
      from pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
      where d.datname = current_database()
        and a.grantee = wanted::regrole and a.privilege_type = 'CONNECT'
    ) then
      execute format('grant connect on database %I to %I', current_database(), wanted);
    end if;
  end loop;
end
$$;

set local role veil_owner;

-- Without `for role`, or in the form `in schema`, these would change nothing. They come before the first function:
-- it would be born with execute for everybody.
alter default privileges for role veil_owner revoke execute on functions from public;
alter default privileges for role veil_owner revoke all on tables from public;

set local role none;
