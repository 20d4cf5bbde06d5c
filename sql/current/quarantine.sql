-- Handling what could not become a row. A body may hold personal data, so it is handed out as an original is: for a
-- committed request only, which is on record. The replay: replay.sql.

create or replace function etl.request_bodies(message_ids text[], purpose text, reason text)
  returns uuid
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked text[];
begin
  perform pii_vault.require_reason_length(reason);
  if purpose is null or purpose not in ('show', 'replay') then
    raise exception using errcode = 'VL006', message = 'expected the purpose show or replay';
  end if;
  perform pii_vault.require_message_ids(message_ids);
  if exists (
    select from unnest(message_ids) m (id) where id is null or char_length(id) not between 1 and 128
  ) then
    raise exception using
      errcode = 'VL006', message = 'one of the message ids is not of 1 to 128 characters';
  end if;
  asked := array(select distinct m.id from unnest(message_ids) m (id));
  return pii_vault.record_request(purpose, asked, reason, null, false);
end
$$;

create or replace function etl.fetch_bodies(request uuid, purpose text) returns table (
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
    from unnest(admitted.subjects) as h (message_id)
    join etl.quarantine q on q.message_id = h.message_id
      and q.sealed is not null and q.quarantined_at < admitted.recorded_at
    left join pii_vault.data_keys k on k.id = q.data_key
    order by q.sent_at, q.message_id;
  get diagnostics served = row_count;
  -- Its caller can roll this back; the request he cannot.
  perform pii_vault.record('quarantine.fetch', admitted.id, '{}', '{}', served, null, null);
end
$$;

-- Empties these bodies, in one order, so that two that overlap cannot deadlock. Returns the ids of those that
-- were open.
create or replace function etl.empty_bodies(message_ids text[]) returns text[]
  language sql
  set search_path = pg_catalog, pg_temp
as $$
  with locked as (
    select q.message_id
    from etl.quarantine q
    where q.message_id in (select unnest(message_ids)) and q.state = 'open'
    order by q.message_id
    for update
  ),
  discarded as (
    update etl.quarantine q
    set state = 'discarded', sealed = null, changed_at = clock_timestamp(), changed_by = session_user
    from locked
    where q.message_id = locked.message_id
    returning q.message_id
  )
  select coalesce(array_agg(d.message_id::text order by d.message_id), '{}') from discarded d
$$;

-- Gives up open entries for good: the row stays, its body goes. Returns how many there were.
create or replace function etl.discard(message_ids text[], reason text) returns integer
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  gone text[];
begin
  perform pii_vault.require_reason_length(discard.reason);
  perform pii_vault.require_message_ids(discard.message_ids);
  gone := etl.empty_bodies(discard.message_ids);
  if cardinality(gone) > 0 then
    perform pii_vault.record(
      'quarantine.discard', null, '{}', gone, cardinality(gone), discard.reason, null
    );
  end if;
  return cardinality(gone);
end
$$;
