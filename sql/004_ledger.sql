-- What was stored already (the ledger), what could not become a row (the quarantine), and the
-- housekeeping of the ledger's daily partitions.

set local role veil_owner;

-- One row per stored message, so that a redelivery changes nothing. Partitioned by the day on which
-- the message was sent: its id always comes with the same day, so (day, id) is as unique as the id.
create table etl.ledger (
  sent_on date not null,
  message_id text collate "C" not null,
  constraint ledger_key primary key (sent_on, message_id),
  constraint ledger_message_id check (char_length(message_id) between 1 and 128)
) partition by range (sent_on);

-- Where a message lands whose day has no partition: ingestion never waits for housekeeping.
create table etl.ledger_default partition of etl.ledger default;

create table etl.quarantine (
  message_id text collate "C" not null,
  sent_at timestamptz not null,
  reason text not null,
  data_key uuid not null,
  sealed bytea,
  state text not null default 'open',
  quarantined_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz,
  changed_by text,
  constraint quarantine_key primary key (message_id),
  constraint quarantine_message_id check (char_length(message_id) between 1 and 128),
  constraint quarantine_reason check (char_length(reason) between 1 and 500),
  constraint quarantine_state check (state in ('open', 'replayed', 'discarded')),
  constraint quarantine_sealed check ((sealed is null) = (state = 'discarded'))
);

create index quarantine_open on etl.quarantine (sent_at) where state = 'open';

grant select (message_id, sent_at, reason, state, quarantined_at, changed_at, changed_by)
  on etl.quarantine to veil_operator;

-- Partitions from two weeks back (SQS keeps a message that long) to a week ahead; away 30 days after
-- their day, well after any redelivery. The day is a parameter so that a test can be its own clock.
create function etl.housekeep_on(today date) returns table (created integer, dropped integer)
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '250ms'
as $$
declare
  day date;
  missing date[];
  partition text;
begin
  created := 0;
  dropped := 0;
  -- One at a time; whoever comes second has nothing to do. A lock on a table of the owner's, because any
  -- login could hold an advisory one.
  begin
    lock table etl.migrations in exclusive mode nowait;
  exception when lock_not_available then
    return next;
    return;
  end;

  -- Two blocks: where loads are busy just now, one gives up, undoes nothing of the other, and the next
  -- call does it.
  begin
    select coalesce(array_agg(today + n order by n), '{}') into missing
    from generate_series(-14, 7) n
    where to_regclass('etl.ledger_' || to_char(today + n, 'YYYYMMDD')) is null;
    if cardinality(missing) > 0 then
      -- Before looking into it: what a load has put there and not committed yet would not be seen, and
      -- a partition beside such rows is refused.
      lock table etl.ledger_default in access exclusive mode;
    end if;
    foreach day in array missing loop
      -- Rows of that day in the default partition stay there.
      continue when exists (select from etl.ledger_default l where l.sent_on = day);
      partition := 'ledger_' || to_char(day, 'YYYYMMDD');
      -- Made apart and attached, because that locks the ledger against other changes of its shape
      -- only; "create table … partition of" would wait for every load, and make every load wait.
      execute format(
        'create table etl.%I (like etl.ledger including defaults including constraints)', partition
      );
      execute format(
        'alter table etl.ledger attach partition etl.%I for values from (%L) to (%L)',
        partition, day, day + 1
      );
      created := created + 1;
    end loop;
  exception when lock_not_available or deadlock_detected then
    created := 0;
  end;

  begin
    for partition in
      select c.relname
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'etl.ledger'::regclass
        and c.relname ~ '^ledger_[0-9]{8}$'
        and to_date(right(c.relname, 8), 'YYYYMMDD') < today - 30
    loop
      execute format('drop table etl.%I', partition);
      dropped := dropped + 1;
    end loop;
    delete from etl.ledger_default l where l.sent_on < today - 30;
  exception when lock_not_available or deadlock_detected then
    dropped := 0;
  end;
  return next;
end
$$;

create function etl.housekeep() returns table (created integer, dropped integer)
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select created, dropped from etl.housekeep_on((now() at time zone 'UTC')::date)
$$;

revoke all on function etl.housekeep_on(date) from public;
revoke all on function etl.housekeep() from public;
grant execute on function etl.housekeep() to veil_etl;
