-- What `veil migrate` does when the views and triggers of sql/current/ are written: whatever that does not have goes,
-- rules that somebody has made included. As in sql/sweep-routines.sql, what this transaction has written stays.

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
    select r.rulename as name, r.ev_class::regclass as place
    from pg_catalog.pg_rewrite r
    join pg_catalog.pg_class c on c.oid = r.ev_class
    where c.relnamespace in ('etl'::regnamespace, 'pii_vault'::regnamespace)
      and r.rulename <> '_RETURN'
  loop
    execute format('drop rule %I on %s', stale.name, stale.place);
  end loop;
  for stale in
    select c.oid::regclass as name
    from pg_catalog.pg_class c
    join pg_catalog.pg_rewrite r on r.ev_class = c.oid and r.rulename = '_RETURN'
    where c.relnamespace in ('etl'::regnamespace, 'pii_vault'::regnamespace)
      and c.relkind = 'v'
      and r.xmin <> pg_current_xact_id()::xid
  loop
    execute format('drop view %s', stale.name);
  end loop;
end
$$;
