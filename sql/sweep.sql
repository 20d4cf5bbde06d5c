-- What `veil migrate` does when sql/current/ is written: whatever that does not have goes.
--
-- A function that this transaction has written carries its id. So nothing between the first `create or replace` and
-- here may be a subtransaction (a block with an exception handler), which has an id of its own. And grants come after
-- this: they write, too.

do $$
declare
  stale record;
begin
  for stale in
    select t.tgname as name, t.tgrelid::regclass as place
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_class c on c.oid = t.tgrelid
    where c.relnamespace in ('etl'::regnamespace, 'pii_vault'::regnamespace)
      and not t.tgisinternal
      and t.xmin <> pg_current_xact_id()::xid
  loop
    execute format('drop trigger %I on %s', stale.name, stale.place);
  end loop;
  for stale in
    select c.oid::regclass as name
    from pg_catalog.pg_class c
    where c.relnamespace in ('etl'::regnamespace, 'pii_vault'::regnamespace)
      and c.relkind = 'v'
      and c.xmin <> pg_current_xact_id()::xid
  loop
    execute format('drop view %s', stale.name);
  end loop;
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
