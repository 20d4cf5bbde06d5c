-- What every `veil migrate` does last: takes back the right to make something in public.

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
