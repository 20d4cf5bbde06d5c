-- What `veil migrate` does last: takes back the right to make something in public (sql/open.sql).

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
  if exists (
    select
    from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
    where n.nspname = 'public' and a.grantee = 'veil_owner'::regrole and a.privilege_type = 'CREATE'
  ) then
    revoke create on schema public from veil_owner;
  end if;
  perform pg_catalog.set_config('role', 'none', true);
end
$$;
