-- Closes the quarantine entry and writes its row, with the message's own id and date. The entry, not the ledger (which
-- has had the id since the message was quarantined), makes it happen once.

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
begin
  perform pii_vault.require_read_committed('a replay');
  admitted := pii_vault.admit(replay.request, 'replay');
  if (replay.message_id = any (admitted.subjects)) is not true then
    raise exception using
      errcode = 'VL001', message = 'the request does not name this message';
  end if;
  perform pii_vault.at_most('lock_timeout', '20s');
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
  if entry.quarantined_at >= admitted.recorded_at then
    raise exception using
      errcode = 'VL001', message = 'the request is older than the body that is quarantined now';
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
  perform etl.store_rows(
    replay.tokens, replay.sealed, replay.data_key, array[replay.user_id], array[replay.device_type],
    array[replay.masked_ip], array[replay.masked_device_id], array[replay.locale],
    array[replay.app_version], array[entry.sent_at]
  );
  perform pii_vault.record(
    'quarantine.replayed', admitted.id, '{}', array[replay.message_id], 1, null, null
  );
  return true;
end
$$;

