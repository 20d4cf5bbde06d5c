-- Handling what could not become a row. A body may hold personal data, so it is handed out as an
-- original is: for a committed request only, which is on record.

set local role veil_owner;

create function etl.request_bodies(message_ids text[], purpose text, reason text) returns uuid
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked text[];
  digests bytea[];
begin
  perform pii_vault.require_reason_length(reason);
  if purpose is null or purpose not in ('show', 'replay') then
    raise exception using errcode = 'VL006', message = 'expected the purpose show or replay';
  end if;
  if coalesce(array_ndims(message_ids), 0) <> 1 or cardinality(message_ids) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 message ids';
  end if;
  if exists (
    select from unnest(message_ids) m (id) where id is null or char_length(id) not between 1 and 128
  ) then
    raise exception using
      errcode = 'VL006', message = 'one of the message ids is not of 1 to 128 characters';
  end if;
  select array_agg(m.id), array_agg(coalesce(sha256(q.sealed), pii_vault.random_digest()))
  into asked, digests
  from (select distinct id from unnest(message_ids) u (id)) m
  left join etl.quarantine q on q.message_id = m.id;
  return pii_vault.record_request(purpose, asked, digests, reason);
end
$$;

create function etl.fetch_bodies(request uuid, purpose text) returns table (
  message_id text, sent_at timestamptz, reason text, state text, data_key uuid, sealed bytea,
  wrapped bytea, proof bytea, generation integer
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  served integer;
begin
  admitted := pii_vault.admit(fetch_bodies.request, fetch_bodies.purpose);
  return query
    select
      q.message_id::text, q.sent_at, q.reason, q.state, q.data_key, q.sealed, k.wrapped, k.proof,
      k.generation
    from unnest(admitted.subjects, admitted.digests) as h (message_id, digest)
    join etl.quarantine q on q.message_id = h.message_id and sha256(q.sealed) = h.digest
    left join pii_vault.data_keys k on k.id = q.data_key
    order by q.sent_at, q.message_id;
  get diagnostics served = row_count;
  perform pii_vault.record_fetch(admitted, 'quarantine.fetch', served);
end
$$;

-- Closes the quarantine entry and writes its row, with the message's own id and date. The entry, not
-- the ledger (which has had the id since the message was quarantined), makes it happen once.
create function etl.replay(
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
begin
  admitted := pii_vault.admit(replay.request, 'replay');
  if (replay.message_id = any (admitted.subjects)) is not true then
    raise exception using
      errcode = 'VL001', message = 'the request does not name this message';
  end if;
  perform etl.check_key(replay.generation, replay.key_check, true);
  update etl.quarantine q
  set state = 'replayed', changed_at = clock_timestamp(), changed_by = session_user
  where q.message_id = replay.message_id and q.state = 'open'
  returning q.* into entry;
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
  perform etl.store_originals(
    replay.tokens, replay.sealed, replay.data_key, array[replay.masked_ip],
    array[replay.masked_device_id]
  );
  insert into public.user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
  ) values (
    replay.user_id, replay.device_type, replay.masked_ip, replay.masked_device_id, replay.locale,
    replay.app_version, (entry.sent_at at time zone 'UTC')::date
  );
  insert into pii_vault.audit (login_oid, action, request, message_ids, items)
  values (
    admitted.login_oid, 'quarantine.replayed', admitted.id, array[replay.message_id], 1
  );
  return true;
end
$$;

-- Gives up open entries for good: the row stays, its body goes. Returns how many there were.
create function etl.discard(message_ids text[], reason text) returns integer
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  gone text[];
begin
  perform pii_vault.require_reason_length(reason);
  if coalesce(array_ndims(message_ids), 0) <> 1 or cardinality(message_ids) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 message ids';
  end if;
  with locked as (
    -- In one order, so that two that overlap cannot deadlock.
    select q.message_id
    from etl.quarantine q
    where q.message_id in (select unnest(message_ids)) and q.state = 'open'
    order by q.message_id
    for update
  ),
  discarded as (
    update etl.quarantine q
    set state = 'discarded', sealed = null, changed_at = clock_timestamp(),
      changed_by = session_user
    from locked
    where q.message_id = locked.message_id
    returning q.message_id
  )
  select coalesce(array_agg(message_id::text), '{}') into gone from discarded;
  if cardinality(gone) > 0 then
    insert into pii_vault.audit (login_oid, action, message_ids, items, reason)
    values (
      (select r.oid from pg_roles r where r.rolname = session_user),
      'quarantine.discard', gone, cardinality(gone), nullif(btrim(discard.reason), '')
    );
  end if;
  return cardinality(gone);
end
$$;

revoke all on function etl.request_bodies(text[], text, text) from public;
revoke all on function etl.fetch_bodies(uuid, text) from public;
revoke all on function etl.replay(
  uuid, text, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text, text, text, text,
  text, integer
) from public;
revoke all on function etl.discard(text[], text) from public;
grant execute on function etl.request_bodies(text[], text, text) to veil_operator;
grant execute on function etl.fetch_bodies(uuid, text) to veil_operator;
grant execute on function etl.replay(
  uuid, text, integer, bytea, uuid, bytea, text[], bytea, text[], bytea[], text, text, text, text,
  text, integer
) to veil_operator;
grant execute on function etl.discard(text[], text) to veil_operator;
