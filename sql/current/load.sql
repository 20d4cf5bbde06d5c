-- The one statement that stores a batch: key check, ledger, data key, originals, rows, quarantine. All of it or
-- nothing, and a message that is in the ledger already changes nothing.
--
-- An erasure must not meet a load: the one deletes an original while the other still counts on it, or brings it back.
-- So each load holds the gate in row share mode from its first read on, and each erasure holds it exclusively. At
-- READ COMMITTED, whatever either of them reads after that is as the other one left it.
--
-- The figures here are µs of a backend's CPU a row, from PostgreSQL 18 (bench/load.ts). They compare with each other
-- only.

-- "[1:n]" of a plain list, one that begins at 1 and holds no lists; null of none.
create or replace function etl.shape(list anyarray) returns text
  language sql immutable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_dims(list), format('[1:%s]', cardinality(list)))
  where list is not null
$$;

-- Puts the messages into the ledger, each id once. Answers with those that were not there.
create or replace function etl.enter_ledger(message_ids text[], sent_ats timestamptz[]) returns text[]
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  ids text[];
  days date[];
begin
  -- Ids are made distinct first: the same id twice in one batch would join back to two rows. Sorted, because
  -- overlapping loads that lock in one order cannot deadlock (unsorted, 95 of 160 did).
  select
    coalesce(array_agg(m.id order by m.sent_on, m.id), '{}'),
    coalesce(array_agg(m.sent_on order by m.sent_on, m.id), '{}')
  into ids, days
  from (
    select distinct on (b.id collate "C")
      b.id collate "C" as id, (b.sent_at at time zone interval '0')::date as sent_on
    from (select unnest(message_ids), unnest(sent_ats)) b (id, sent_at)
    order by b.id collate "C", b.sent_at
  ) m;
  -- Nearly always all of them are new, and then an insert that takes nothing else is half of the price of one that
  -- asks about each first (4.7 against 9).
  begin
    insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids);
    return ids;
  exception when unique_violation then
    with stored as (
      insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids)
      on conflict do nothing
      returning message_id
    )
    select coalesce(array_agg(s.message_id), '{}') into ids from stored s;
    return ids;
  end;
end
$$;

-- Puts those of the rejected messages into the quarantine that are fresh and no rows. Returns how many. Those that the
-- quarantine has already are taken out of the ledger again.
create or replace function etl.quarantine_fresh(
  data_key uuid, fresh text[], row_ids text[],
  ids text[], sent_ats timestamptz[], reasons text[], bodies bytea[]
) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  given integer;
  entered text[];
begin
  with wanted as (
    select distinct on (r.id collate "C") r.id, r.sent_at, r.reason, r.body
    from unnest(ids, sent_ats, reasons, bodies) as r (id, sent_at, reason, body)
    where r.id in (select unnest(fresh)) and r.id not in (select unnest(row_ids))
    order by r.id collate "C", r.sent_at
  ),
  stored as (
    insert into etl.quarantine (message_id, sent_at, reason, data_key, sealed)
    select w.id, w.sent_at, w.reason, quarantine_fresh.data_key, w.body from wanted w
    on conflict do nothing
    returning message_id
  )
  select (select count(*) from wanted), coalesce(array_agg(s.message_id), '{}')
  into given, entered
  from stored s;
  -- Known to the quarantine and not to the ledger: sent on another day than it was at first, or back after the
  -- ledger has forgotten it. A duplicate, then, and no stored message of this day.
  if cardinality(entered) < given then
    delete from etl.ledger l
    using unnest(ids, sent_ats) as r (id, sent_at)
    where l.sent_on = (r.sent_at at time zone interval '0')::date
      and l.message_id = r.id
      and r.id in (select unnest(fresh))
      and r.id not in (select unnest(entered))
      and r.id not in (select unnest(row_ids));
  end if;
  return cardinality(entered);
end
$$;

-- Answers with the batch's id and what became of its messages. When it has committed, they may be deleted from the
-- queue. It also names the periods that it stored originals in, so that its sender need not send those again. And it
-- says which day it is: all hosts judge the age of messages by one clock.
create or replace function etl.load(
  batch uuid,
  generation integer,
  key_check bytea,
  data_key uuid,
  wrapped bytea,
  recipients text[],
  proof bytea,
  tokens text[],
  sealed bytea[],
  message_ids text[],
  sent_ats timestamptz[],
  user_ids text[],
  device_types text[],
  masked_ips text[],
  masked_device_ids text[],
  locales text[],
  app_versions integer[],
  rejected_ids text[],
  rejected_sent_ats timestamptz[],
  rejected_reasons text[],
  rejected_bodies bytea[]
) returns table (
  batch_id uuid, loaded integer, duplicates integer, quarantined integer, new_originals integer,
  period_firsts date[], period_untils date[], today date
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  rows_in integer := cardinality(message_ids);
  rejected_in integer := cardinality(rejected_ids);
  fresh text[];
begin
  perform pii_vault.require_read_committed('a load');
  -- A list of another length, or numbered otherwise than it is read, would mix up messages.
  if (
    etl.shape(message_ids) = format('[1:%s]', rows_in)
    and etl.shape(message_ids) = all (array[
      etl.shape(sent_ats), etl.shape(user_ids), etl.shape(device_types), etl.shape(masked_ips),
      etl.shape(masked_device_ids), etl.shape(locales), etl.shape(app_versions)
    ])
    and etl.shape(rejected_ids) = format('[1:%s]', rejected_in)
    and etl.shape(rejected_ids) = all (array[
      etl.shape(rejected_sent_ats), etl.shape(rejected_reasons), etl.shape(rejected_bodies)
    ])
    and etl.shape(tokens) = format('[1:%s]', cardinality(tokens))
    and etl.shape(tokens) = etl.shape(sealed)
    -- A day without end is in no period.
    and 'infinity' <> all (sent_ats || rejected_sent_ats) and '-infinity' <> all (sent_ats || rejected_sent_ats)
    and (etl.shape(recipients) = format('[1:%s]', cardinality(recipients))) is not false
  ) is not true then
    raise exception using
      errcode = 'VL014',
      message = 'an array of a load is null, no plain list, of another length than the others, or holds an endless time';
  end if;
  -- A stored message may be deleted from the queue at once.
  perform pii_vault.commit_to_disk();
  -- Its caller gives up after a minute and asks again. A load that still waited here then, for an administrator's
  -- lock say, would be one more waiting connection with each attempt.
  perform pii_vault.at_most('lock_timeout', '20s');
  -- Nor may one that has gone without a word keep erasures waiting.
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '20s');
  lock table pii_vault.erasure_gate in row share mode;
  -- Plans are made once a session: one that was made for an empty vault must not read a full one through.
  perform set_config('enable_seqscan', 'off', true);

  perform etl.check_key(load.generation, load.key_check, rows_in + rejected_in > 0);
  fresh := etl.enter_ledger(message_ids || rejected_ids, sent_ats || rejected_sent_ats);
  if cardinality(fresh) > 0 and data_key is not null then
    perform etl.register_data_key(load.data_key, load.generation, wrapped, recipients, proof);
  end if;

  loaded := 0;
  new_originals := 0;
  period_firsts := '{}';
  period_untils := '{}';
  today := etl.utc_day(clock_timestamp());
  if cardinality(fresh) > 0 and rows_in > 0 then
    if cardinality(fresh) < rows_in + rejected_in then
      -- Only the fresh ones, each once, in the order of the batch: a FIFO queue's messages become rows in the order
      -- in which they were sent.
      select
        coalesce(array_agg(m.ip), '{}'), coalesce(array_agg(m.device), '{}'),
        coalesce(array_agg(m.user_id), '{}'), coalesce(array_agg(m.device_type), '{}'),
        coalesce(array_agg(m.locale), '{}'), coalesce(array_agg(m.version), '{}'),
        coalesce(array_agg(m.sent_at), '{}')
      into masked_ips, masked_device_ids, user_ids, device_types, locales, app_versions, sent_ats
      from (
        select * from (
          select distinct on (r.id collate "C") r.*
          from unnest(
            message_ids, sent_ats, user_ids, device_types, masked_ips, masked_device_ids, locales,
            app_versions
          ) with ordinality
            as r (id, sent_at, user_id, device_type, ip, device, locale, version, position)
          where r.id in (select unnest(fresh))
          order by r.id collate "C", r.sent_at, r.position
        ) distinct_rows
        order by position
      ) m;
    end if;
    select s.loaded, s.new_originals, s.firsts, s.untils
    into loaded, new_originals, period_firsts, period_untils
    from etl.store_rows(
      tokens, sealed, load.data_key, user_ids, device_types, masked_ips, masked_device_ids, locales,
      app_versions, sent_ats
    ) s;
  end if;

  quarantined := case when rejected_in > 0 then etl.quarantine_fresh(
    load.data_key, fresh, message_ids, rejected_ids, rejected_sent_ats, rejected_reasons, rejected_bodies
  ) else 0 end;
  batch_id := batch;
  duplicates := rows_in + rejected_in - loaded - quarantined;
  return next;
end
$$;

-- Reads a version back, for analysts. The body is parsed here and not at the call, so no caller's search path changes what it means.
create or replace function etl.app_version_text(app_version integer) returns text
  language sql immutable strict parallel safe
  return (app_version / 1000000)::text || '.' || (app_version / 1000 % 1000)::text
    || '.' || (app_version % 1000)::text;
