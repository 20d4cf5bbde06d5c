-- Whether a recorded request may be served now. What is asked here is asked again at every fetch.

-- Committed is not flushed: with synchronous_commit off, a crash loses the last commits, the approver's too. From 17
-- on a flush can be asked for; before, it is waited for.
create or replace function pii_vault.require_flushed() returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  target pg_lsn;
  give_up timestamptz;
begin
  if current_setting('server_version_num')::integer >= 170000 then
    perform pg_logical_emit_message(false, 'veil', '', true);
    return;
  end if;
  target := pg_current_wal_insert_lsn();
  give_up := clock_timestamp() + interval '2 seconds';
  while pg_current_wal_flush_lsn() < target loop
    if clock_timestamp() > give_up then
      raise exception using
        errcode = 'VL004',
        message = 'the request is not known to be on disk yet',
        hint = 'commit anything that writes, which flushes, and try again';
    end if;
    perform pg_sleep(0.005);
  end loop;
end
$$;

-- Raises the error that says why a request in this state is not served; nothing if it is ready.
create or replace function pii_vault.refuse_unready(request pii_vault.requests, state text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if state = 'refused' then
    raise exception using
      errcode = request.refusal,
      message = case request.refusal
        when 'VL030' then 'the policy wants a reason, and this request gives none'
        when 'VL033' then 'the policy does not allow the purpose of this request, or it names none'
        when 'VL035' then format(
          'this request would exceed the budget of this login: %s', request.refusal_detail
        )
      end,
      hint = case request.refusal
        when 'VL030' then 'ask again with a reason; the refusal is on record'
        when 'VL033' then format(
          'ask again with one of these: %s; the refusal is on record', request.refusal_detail
        )
        when 'VL035' then 'ask for less or later, or have the policy changed; the refusal is on record'
      end;
  elsif state = 'waiting' then
    raise exception using
      errcode = 'VL031',
      message = format('request %s waits for approval', request.id),
      hint = 'somebody else with the approver role decides; then fetch it';
  elsif state = 'denied' then
    raise exception using
      errcode = 'VL032',
      message = format('request %s was denied', request.id),
      hint = 'ask the approver why; the audit has the reason';
  elsif state = 'expired' then
    raise exception using
      errcode = 'VL003',
      message = 'the request, or its approval, is older than the policy allows',
      hint = 'record a new one';
  end if;
end
$$;

-- The request, if its caller may be served now; otherwise an error that says why not.
create or replace function pii_vault.admit(request uuid, kind text) returns pii_vault.requests
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  found_request pii_vault.requests;
  caller oid;
begin
  if pg_is_in_recovery() then
    raise exception using
      errcode = 'VL005',
      message = 'a standby serves no request',
      hint = 'connect to the primary';
  end if;
  caller := pii_vault.caller();
  select r.* into found_request
  from pii_vault.requests r
  where r.id = admit.request and r.kind = admit.kind
    and r.login = session_user
    and r.login_oid = caller;
  if not found then
    raise exception using
      errcode = 'VL001',
      message = 'no such request of this login',
      hint = 'record a request, commit, and fetch it as the same login';
  end if;
  -- Visible and of another transaction: committed, then. The top-level id, because a savepoint has an id (and an
  -- xmin) of its own.
  if found_request.recorded_xid is not distinct from pg_current_xact_id_if_assigned() then
    raise exception using
      errcode = 'VL002',
      message = 'the request was recorded by this very transaction, which may still be rolled back',
      hint = 'commit first, then fetch';
  end if;
  perform pii_vault.refuse_unready(found_request, pii_vault.state_of(found_request));
  perform pii_vault.require_read_committed('a fetch');
  perform pii_vault.require_flushed();
  return found_request;
end
$$;
