-- What `veil migrate` does before it changes anything: makes it possible to make tables and views in public.
-- That takes a privilege there, which is taken back at the end of this transaction (sql/close.sql). Up to 15, a login that does not inherit acts for the schema's owner only where it says so.
do $$
declare
  owner name := (
    select pg_catalog.pg_get_userbyid(n.nspowner) from pg_catalog.pg_namespace n
    where n.nspname = 'public'
  );
begin
  if pg_catalog.pg_has_role(owner, 'member') then
    perform pg_catalog.set_config('role', owner::text, true);
  end if;
  if not pg_catalog.has_schema_privilege('veil_owner', 'public', 'create') then
    grant create on schema public to veil_owner;
  end if;
  if not pg_catalog.has_schema_privilege('veil_owner', 'public', 'usage') then
    grant usage on schema public to veil_owner;
  end if;
  if not pg_catalog.has_schema_privilege('veil_analyst', 'public', 'usage') then
    grant usage on schema public to veil_analyst;
  end if;
  perform pg_catalog.set_config('role', 'none', true);
end
$$;
