-- The load a fourth time, and the replay: what was forgotten is not stored again. As before (sql/010, sql/007), but
-- for the gate and the tombstones.

set local role veil_owner;

-- Stores the originals that belong to these rows' tokens, the first one of each for good, and refuses rows whose
-- token would be left without an original. Answers with the tokens that were forgotten and stay so: the rows may
-- not have them, and need none of their originals.
--
-- Tombstones are looked for where an original is about to be stored, or is missing, and nowhere else: a forgotten
-- token has none.
drop function etl.store_originals(text[], bytea[], uuid, text[], text[]);
create function etl.store_originals(
  tokens text[], sealed bytea[], data_key uuid, masked_ips text[], masked_device_ids text[],
  out stored integer, out forgotten text[]
)
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  any_erased boolean := exists (select from pii_vault.tombstones);
  returning_now text[];
  lacking text[];
  absent text[];
begin
  stored := 0;
  forgotten := '{}';
  if cardinality(tokens) > 0 then
    if any_erased then
      select
        coalesce(array_agg(e.token) filter (where e.stays), '{}'),
        coalesce(array_agg(e.token) filter (where not e.stays), '{}')
      into forgotten, returning_now
      from pii_vault.erased_among(tokens) e
      where (e.token in (select unnest(masked_ips || masked_device_ids))) is true;
      if cardinality(returning_now) > 0 then
        -- In one order, so that two loads that bring the same back cannot deadlock.
        with locked as (
          select t.token from pii_vault.tombstones t
          where t.token = any (returning_now) order by t.token for update
        )
        delete from pii_vault.tombstones t using locked l where t.token = l.token;
      end if;
    end if;
    insert into pii_vault.originals (token, data_key, sealed)
    select o.token, store_originals.data_key, o.sealed
    from (select unnest(tokens), unnest(store_originals.sealed)) o (token, sealed)
    -- "is true" has the planner hash the list, where it could choose a loop: it takes each for short.
    where (o.token in (select unnest(masked_ips || masked_device_ids))) is true
      and (o.token in (select unnest(forgotten))) is not true
    order by o.token collate "C"
    on conflict do nothing;
    get diagnostics stored = row_count;
  end if;
  -- Whoever deletes originals has locked out loads: what is there now is there when this commits.
  select array_agg(distinct other.token) into lacking
  from (
    select r.token
    from (select unnest(masked_ips || masked_device_ids)) r (token)
    where r.token is not null
      and (r.token in (select unnest(tokens))) is not true
    offset 0
  ) other
  -- One by one: the vault is large.
  where not exists (
    select from pii_vault.originals o where o.token = other.token offset 0
  );
  if lacking is not null then
    absent := array(select e.token from pii_vault.erased_among(lacking) e where e.stays);
    -- What only expired, or may come back, has to be sent.
    if cardinality(absent) < cardinality(lacking) then
      raise exception using errcode = 'VL013', message = 'a row has a token without an original';
    end if;
    forgotten := forgotten || absent;
  end if;
end
$$;

-- Which of these tokens were erased, and whether they stay so when their values come again.
create function pii_vault.erased_among(tokens text[]) returns table (token text, stays boolean)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select g.token, t.kind = 'forgotten' and not pii_vault.may_return(pii_vault.field_of(g.token))
  from (select unnest(tokens)) g (token)
  -- One by one, in whatever order the planner would rather have it.
  cross join lateral (
    select s.kind from pii_vault.tombstones s where s.token = g.token offset 0
  ) t
$$;

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
  batch_id uuid, loaded integer, duplicates integer, quarantined integer, new_originals integer
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  rows_in integer := cardinality(message_ids);
  rejected_in integer := cardinality(rejected_ids);
  ids text[];
  days date[];
  fresh text[];
  entered text[];
  forgotten text[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = 'a load needs the isolation level read committed';
  end if;
  if (
    rows_in = all (array[
      cardinality(sent_ats), cardinality(user_ids), cardinality(device_types),
      cardinality(masked_ips), cardinality(masked_device_ids), cardinality(locales),
      cardinality(app_versions)
    ])
    and rejected_in = all (array[
      cardinality(rejected_sent_ats), cardinality(rejected_reasons), cardinality(rejected_bodies)
    ])
    and cardinality(tokens) = cardinality(sealed)
  ) is not true then
    raise exception using
      errcode = 'VL014', message = 'an array of a load is null, or differs from the others in length';
  end if;
  -- And each is a plain list: one that begins at 0, or holds lists, is numbered otherwise than it is read.
  if concat(
      array_dims(message_ids), array_dims(sent_ats), array_dims(user_ids), array_dims(device_types),
      array_dims(masked_ips), array_dims(masked_device_ids), array_dims(locales),
      array_dims(app_versions)
    ) <> repeat(format('[1:%s]', rows_in), 8 * least(rows_in, 1))
    or concat(
      array_dims(rejected_ids), array_dims(rejected_sent_ats), array_dims(rejected_reasons),
      array_dims(rejected_bodies)
    ) <> repeat(format('[1:%s]', rejected_in), 4 * least(rejected_in, 1))
    or concat(array_dims(tokens), array_dims(sealed))
      <> repeat(format('[1:%s]', cardinality(tokens)), 2 * least(cardinality(tokens), 1))
    or array_dims(recipients) <> format('[1:%s]', cardinality(recipients))
  then
    raise exception using errcode = 'VL014', message = 'an array of a load is no plain list';
  end if;
  -- A stored message may be deleted from the queue at once, so its commit has to be on disk, whatever
  -- this session was set to.
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  -- Its caller gives up after a minute and asks again. A load that still waited here then, for an
  -- administrator's lock say, would be one more waiting connection with each attempt.
  perform pii_vault.at_most('lock_timeout', '20s');
  -- Nor may one that has gone without a word keep erasures waiting.
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '20s');
  -- Before anything is read: no erasure is under way from here on, and what was erased before is seen.
  lock table pii_vault.erasure_gate in row share mode;
  -- Plans are made once a session: one that was made for an empty vault must not read a full one through.
  perform set_config('enable_seqscan', 'off', true);

  perform etl.check_key(load.generation, load.key_check, rows_in + rejected_in > 0);

  -- Ids are made distinct first: the same id twice in one batch would join back to two rows. Sorted,
  -- because overlapping loads that lock in one order cannot deadlock (unsorted, 95 of 160 did).
  select
    coalesce(array_agg(m.id order by m.sent_on, m.id), '{}'),
    coalesce(array_agg(m.sent_on order by m.sent_on, m.id), '{}')
  into ids, days
  from (
    select distinct on (b.id collate "C")
      b.id collate "C" as id, (b.sent_at at time zone interval '0')::date as sent_on
    from (
      select unnest(message_ids || rejected_ids), unnest(sent_ats || rejected_sent_ats)
    ) b (id, sent_at)
    order by b.id collate "C", b.sent_at
  ) m;
  -- Nearly always all of them are new, and then an insert that takes nothing else is half of the price of one
  -- that asks about each first (4.7 against 9 a row).
  begin
    insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids);
    fresh := ids;
  exception when unique_violation then
    with stored as (
      insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids)
      on conflict do nothing
      returning message_id
    )
    select coalesce(array_agg(message_id), '{}') into fresh from stored;
  end;

  loaded := 0;
  quarantined := 0;
  new_originals := 0;
  if cardinality(fresh) > 0 then
    if data_key is not null then
      perform etl.register_data_key(load.data_key, load.generation, wrapped, recipients, proof);
    end if;

    if rows_in > 0 then
      if cardinality(fresh) < rows_in + rejected_in then
        -- Only the fresh ones, each once, in the order of the batch: a FIFO queue's messages become rows
        -- in the order in which they were sent.
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
      select s.stored, s.forgotten into new_originals, forgotten
      from etl.store_originals(
        tokens, sealed, load.data_key, masked_ips, masked_device_ids
      ) s;
      if cardinality(forgotten) > 0 then
        masked_ips := pii_vault.freshen('ip', masked_ips, forgotten);
        masked_device_ids := pii_vault.freshen('device_id', masked_device_ids, forgotten);
      end if;
      -- Elements come in the arrays' order, so rows stand in the order of the batch.
      insert into public.user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
      )
      select
        r.user_id, r.device_type, r.ip, r.device, r.locale, r.version,
        (r.sent_at at time zone interval '0')::date
      from (
        select
          unnest(user_ids), unnest(device_types), unnest(masked_ips), unnest(masked_device_ids),
          unnest(locales), unnest(app_versions), unnest(sent_ats)
      ) r (user_id, device_type, ip, device, locale, version, sent_at);
      get diagnostics loaded = row_count;
      -- Otherwise a message would be deleted whose row is nowhere.
      if loaded <> cardinality(user_ids) then
        raise exception using
          errcode = 'VL016',
          message = format('public.user_logins took %s of %s rows', loaded, cardinality(user_ids)),
          hint = 'a trigger or a rule on it drops rows: veil needs each of them stored';
      end if;
    end if;

    if rejected_in > 0 then
      with stored as (
        insert into etl.quarantine (message_id, sent_at, reason, data_key, sealed)
        select distinct on (r.id collate "C") r.id, r.sent_at, r.reason, load.data_key, r.body
        from unnest(rejected_ids, rejected_sent_ats, rejected_reasons, rejected_bodies)
          as r (id, sent_at, reason, body)
        where r.id in (select unnest(fresh)) and r.id not in (select unnest(message_ids))
        order by r.id collate "C", r.sent_at
        on conflict do nothing
        returning message_id
      )
      select coalesce(array_agg(message_id), '{}') into entered from stored;
      quarantined := cardinality(entered);
      -- Known to the quarantine and not to the ledger: sent on another day than it was at first, or back
      -- after the ledger has forgotten it. A duplicate, then, and no stored message of this day.
      if loaded + quarantined < cardinality(fresh) then
        delete from etl.ledger l
        using unnest(rejected_ids, rejected_sent_ats) as r (id, sent_at)
        where l.sent_on = (r.sent_at at time zone interval '0')::date
          and l.message_id = r.id
          and r.id in (select unnest(fresh))
          and r.id not in (select unnest(entered))
          and r.id not in (select unnest(message_ids));
      end if;
    end if;
  end if;

  batch_id := batch;
  duplicates := rows_in + rejected_in - loaded - quarantined;
  return next;
end
$$;

create or replace function etl.replay(
  request uuid,
  message_id text,
  generation integer,
  key_check bytea,
  data_key uuid,
  wrapped bytea,
  recipients text[],
  proof bytea,
  tokens text[],
  sealed bytea[],
  user_id text,
  device_type text,
  masked_ip text,
  masked_device_id text,
  locale text,
  app_version integer
) returns boolean
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  entry etl.quarantine;
  forgotten text[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = 'a replay needs the isolation level read committed';
  end if;
  admitted := pii_vault.admit(replay.request, 'replay');
  if (replay.message_id = any (admitted.subjects)) is not true then
    raise exception using
      errcode = 'VL001', message = 'the request does not name this message';
  end if;
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '20s');
  lock table pii_vault.erasure_gate in row share mode;
  perform etl.check_key(replay.generation, replay.key_check, true);
  select q.* into entry
  from etl.quarantine q
  where q.message_id = replay.message_id and q.state = 'open'
  for update;
  if not found then
    return false;
  end if;
  -- The very body that was asked for, so that the record says what this row was made of.
  if not exists (
    select from unnest(admitted.subjects, admitted.digests) as h (id, digest)
    where h.id = replay.message_id and h.digest = sha256(entry.sealed)
  ) then
    raise exception using
      errcode = 'VL001', message = 'the request is not for the body that is quarantined now';
  end if;
  if replay.data_key is not null then
    perform etl.register_data_key(
      replay.data_key, replay.generation, replay.wrapped, replay.recipients, replay.proof
    );
  end if;
  -- What it held stands in the row: nothing of it is kept beside that.
  update etl.quarantine q
  set state = 'replayed', sealed = null, changed_at = clock_timestamp(), changed_by = session_user
  where q.message_id = replay.message_id;
  select s.forgotten into forgotten
  from etl.store_originals(
    replay.tokens, replay.sealed, replay.data_key, array[replay.masked_ip],
    array[replay.masked_device_id]
  ) s;
  insert into public.user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
  ) values (
    replay.user_id, replay.device_type,
    (pii_vault.freshen('ip', array[replay.masked_ip], forgotten))[1],
    (pii_vault.freshen('device_id', array[replay.masked_device_id], forgotten))[1],
    replay.locale, replay.app_version, (entry.sent_at at time zone interval '0')::date
  );
  insert into pii_vault.audit (login_oid, action, request, message_ids, items)
  values (
    admitted.login_oid, 'quarantine.replayed', admitted.id, array[replay.message_id], 1
  );
  return true;
end
$$;

revoke all on function etl.load(
  uuid, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text[], timestamptz[], text[],
  text[], text[], text[], text[], integer[], text[], timestamptz[], text[], bytea[]
) from public;
grant execute on function etl.load(
  uuid, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text[], timestamptz[], text[],
  text[], text[], text[], text[], integer[], text[], timestamptz[], text[], bytea[]
) to veil_etl;
revoke all on function etl.store_originals(text[], bytea[], uuid, text[], text[]) from public;
revoke all on function pii_vault.erased_among(text[]) from public;
revoke all on function etl.replay(
  uuid, text, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text, text, text, text,
  text, integer
) from public;
grant execute on function etl.replay(
  uuid, text, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text, text, text, text,
  text, integer
) to veil_operator;

-- As before (sql/004); which day it is, no session's time zone says.
create or replace function etl.housekeep() returns table (created integer, dropped integer)
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select created, dropped from etl.housekeep_on((now() at time zone interval '0')::date)
$$;

revoke all on function etl.housekeep() from public;
grant execute on function etl.housekeep() to veil_etl;
