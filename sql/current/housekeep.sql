-- The periods, and the ledger's daily partitions. The latter: from two weeks back (SQS keeps a message that long) to a week ahead; away 36 days
-- after their day, well after any redelivery. In a transaction of its own: DDL inside a load deadlocks and stalls.
--
-- Where loads are busy just now, each part here gives up, undoes nothing of the others, and the next call does it.
-- What takes long comes before the locks that a load would wait for.

-- Of messages so old that they have no partition any more: their number is written down, and they go.
create or replace function etl.count_old_messages(today date) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  with gone as (
    delete from etl.ledger_default l where l.sent_on < today - 36 returning l.sent_on
  )
  insert into etl.ledger_totals as t (sent_on, messages)
  select g.sent_on, count(*) from gone g group by g.sent_on
  on conflict (sent_on) do update set messages = t.messages + excluded.messages;
exception when lock_not_available or deadlock_detected then
  null;
end
$$;

-- Drops the old partitions; what each held is written down before it goes. Returns how many there were.
create or replace function etl.drop_old_days(today date) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  old text[];
  partition text;
begin
  select coalesce(array_agg(c.relname::text order by c.relname), '{}') into old
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'etl.ledger'::regclass
    and c.relname ~ '^ledger_[0-9]{8}$'
    and to_date(right(c.relname, 8), 'YYYYMMDD') < today - 36;
  foreach partition in array old loop
    -- Against a load that would add to it between the count and the end.
    execute format('lock table etl.%I in share row exclusive mode', partition);
    execute format(
      'insert into etl.ledger_totals as t (sent_on, messages)
       select l.sent_on, count(*) from etl.%I l group by l.sent_on
       on conflict (sent_on) do update set messages = t.messages + excluded.messages',
      partition
    );
  end loop;
  foreach partition in array old loop
    execute format('drop table etl.%I', partition);
  end loop;
  return cardinality(old);
exception when lock_not_available or deadlock_detected then
  return 0;
end
$$;

-- Makes the missing partitions of these days. Returns how many there were. `near`: of days that loads may be writing to.
create or replace function etl.make_days(first date, last date, near boolean) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  day date;
  missing date[];
  partition text;
  made integer := 0;
begin
  -- A day that has rows in the default partition keeps them there, all of its rows: each id is known there as well
  -- as anywhere, and they go when they are old.
  select coalesce(array_agg(first + n order by n), '{}') into missing
  from generate_series(0, last - first) n
  where to_regclass('etl.ledger_' || to_char(first + n, 'YYYYMMDD')) is null
    and not exists (select from etl.ledger_default l where l.sent_on = first + n);
  if cardinality(missing) > 0 then
    -- A load that has looked for its partition before this one is attached would go on to the default partition and
    -- be refused there (23514). So no load may be under way: they wait here, for a moment and after an idle week
    -- only. Nobody loads the days ahead.
    if near then
      lock table only etl.ledger in share row exclusive mode;
    end if;
    -- Before looking into it again: what a load has put there and not committed yet would not be seen, and a
    -- partition beside such rows is refused.
    lock table etl.ledger_default in access exclusive mode;
  end if;
  foreach day in array missing loop
    continue when exists (select from etl.ledger_default l where l.sent_on = day);
    partition := 'ledger_' || to_char(day, 'YYYYMMDD');
    -- Made apart and attached, because that locks the ledger only against other changes of its shape.
    -- "create table … partition of" would wait for every load, and make every load wait.
    execute format(
      'create table etl.%I (like etl.ledger including defaults including constraints)', partition
    );
    execute format(
      'alter table etl.ledger attach partition etl.%I for values from (%L) to (%L)',
      partition, day, day + 1
    );
    made := made + 1;
  end loop;
  return made;
exception when lock_not_available or deadlock_detected then
  return 0;
end
$$;

-- Where it has made periods, that is all it does: whoever calls it calls again. The day is a parameter so that a test
-- can be its own clock.
create or replace function etl.housekeep_on(today date)
  returns table (created integer, dropped integer, periods integer)
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '250ms'
as $$
begin
  perform pii_vault.require_read_committed('housekeeping');
  -- Whoever calls this and goes without a word would keep loads and readers waiting.
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '10s');
  created := 0;
  dropped := 0;
  periods := 0;
  -- One at a time; whoever comes second has nothing to do. A lock on a table of the owner's, because any login could
  -- hold an advisory one.
  begin
    lock table etl.migrations in exclusive mode nowait;
  exception when lock_not_available then
    return next;
    return;
  end;
  periods := etl.make_periods(today);
  -- The locks of that should not last longer, and those of the ledger's days would keep loads waiting beside them.
  if periods > 0 then
    return next;
    return;
  end if;
  perform etl.count_old_messages(today);
  dropped := etl.drop_old_days(today);
  -- First the days ahead, then those that messages may be coming for.
  created := etl.make_days(today + 2, today + 7, false);
  created := created + etl.make_days(today - 14, today + 1, true);
  return next;
end
$$;

-- Which day it is, no session's time zone says.
create or replace function etl.housekeep()
  returns table (created integer, dropped integer, periods integer)
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select created, dropped, periods from etl.housekeep_on(etl.utc_day(now()))
$$;
