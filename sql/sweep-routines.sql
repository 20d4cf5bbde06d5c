-- What `veil migrate` does when the routines of sql/current/ are written: whatever that does not have goes.
--
-- A routine that this transaction has written carries its id. So nothing between the first `create or replace` and
-- here may be a subtransaction (a block with an exception handler), which has an id of its own. And grants come after
-- this: they write, too.

do $$
declare
  stale record;
begin
  for stale in
    select p.oid::regprocedure as name
    from pg_catalog.pg_proc p
    where p.pronamespace in ('etl'::regnamespace, 'pii_vault'::regnamespace)
      and p.xmin <> pg_current_xact_id()::xid
  loop
    execute format('drop routine %s', stale.name);
  end loop;
end
$$;
