-- What belongs to the database itself and not to a schema, and so is in no dump of it: looked at by every
-- `veil migrate`, the one after a restore too, and set where it is missing.

do $$
declare
  role_name text;
begin
  if pg_catalog.has_database_privilege('public', current_database(), 'temporary') then
    execute format('revoke temporary on database %I from public', current_database());
  end if;
  foreach role_name in array array[
    'veil_owner', 'veil_etl', 'veil_analyst', 'veil_revealer', 'veil_operator', 'veil_auditor',
    'veil_policy', 'veil_approver', 'veil_breakglass', 'veil_eraser'
  ] loop
    if not exists (
      select
      from pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
      where d.datname = current_database()
        and a.grantee = role_name::regrole and a.privilege_type = 'CONNECT'
    ) then
      execute format('grant connect on database %I to %I', current_database(), role_name);
    end if;
  end loop;
end
$$;
