-- Recovery: a request is recorded and committed, and only then is a sealed original handed out.
--
-- Everything here defends one sentence: no original without a record. A caller controls his own
-- transactions, savepoints, cursors, settings and timing, so nothing that he could still undo counts.

set local role veil_owner;

-- Writes the audit entry and the request. What the vault holds of it is kept for fetch_reveal and not
-- returned: asking discloses nothing, not even which tokens exist.
create function pii_vault.record_request(
  purpose text, subjects text[], digests bytea[], reason text
) returns uuid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  request uuid;
  caller oid := (select r.oid from pg_roles r where r.rolname = session_user);
begin
  -- A commit that is not flushed could be lost in a crash. The caller may set this back: fetch_reveal
  -- does not rely on it, it only makes its wait short.
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  insert into pii_vault.requests (purpose, login_oid, subjects, digests)
  values (record_request.purpose, caller, record_request.subjects, record_request.digests)
  returning id into request;
  insert into pii_vault.audit (login_oid, action, request, tokens, message_ids, items, reason)
  values (
    caller,
    case record_request.purpose when 'reveal' then 'reveal.request' else 'quarantine.' || purpose end,
    request,
    case record_request.purpose when 'reveal' then record_request.subjects else '{}' end,
    case record_request.purpose when 'reveal' then '{}' else record_request.subjects end,
    cardinality(record_request.subjects),
    nullif(btrim(record_request.reason), '')
  );
  return request;
end
$$;

-- What stands for the digest of a seal where there is none.
create function pii_vault.random_digest() returns bytea
  language sql volatile
  set search_path = pg_catalog, pg_temp
as $$
  select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
$$;

create function pii_vault.require_reason_length(reason text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if char_length(reason) > 1000 then
    raise exception using
      errcode = 'VL006', message = 'a reason has up to 1000 characters';
  end if;
end
$$;

create function pii_vault.request_reveal(tokens text[], reason text) returns uuid
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked text[];
  digests bytea[];
begin
  perform pii_vault.require_reason_length(reason);
  if coalesce(array_ndims(tokens), 0) <> 1 or cardinality(tokens) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 tokens';
  end if;
  if exists (
    select from unnest(tokens) t (token)
    where token is null or char_length(token) > 64 or token !~ '^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
  ) then
    raise exception using errcode = 'VL006', message = 'one of the tokens is not written as a token is';
  end if;
  -- As of this statement's snapshot: what is sealed or sealed anew later is not part of the request.
  -- Recorded as digests and not as transaction ids, which would mean nothing after a restore.
  --
  -- A caller may roll this back and look at what it cost (statistics, buffers, the size of the WAL). So a
  -- token that the vault does not hold costs what one does that it holds: its successor is read, and the
  -- random digest is made for both.
  select
    array_agg(t.token order by t.position),
    array_agg(
      case when o.token = t.token then sha256(o.sealed) else t.otherwise end order by t.position
    )
  into asked, digests
  from (
    select u.token, min(u.position) as position, pii_vault.random_digest() as otherwise
    from unnest(tokens) with ordinality as u (token, position)
    group by u.token
  ) t
  left join lateral (
    select s.token, s.sealed
    from pii_vault.originals s
    where s.token >= t.token collate "C"
    order by s.token
    limit 1
  ) o on true;
  return pii_vault.record_request('reveal', asked, digests, reason);
end
$$;

-- The request, if its caller may be served now; otherwise an error that says why not.
create function pii_vault.admit(request uuid, purpose text) returns pii_vault.requests
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  found_request pii_vault.requests;
  target pg_lsn;
  give_up timestamptz;
begin
  if pg_is_in_recovery() then
    raise exception using
      errcode = 'VL005',
      message = 'a standby serves no request',
      hint = 'connect to the primary';
  end if;
  select r.* into found_request
  from pii_vault.requests r
  where r.id = admit.request and r.purpose = admit.purpose
    and r.login = session_user
    and r.login_oid = (select p.oid from pg_roles p where p.rolname = session_user);
  if not found then
    raise exception using
      errcode = 'VL001',
      message = 'no such request of this login',
      hint = 'record a request, commit, and fetch it as the same login';
  end if;
  -- Visible and of another transaction: committed, then. The top-level id, because a savepoint has an
  -- id (and an xmin) of its own.
  if found_request.recorded_xid is not distinct from pg_current_xact_id_if_assigned() then
    raise exception using
      errcode = 'VL002',
      message = 'the request was recorded by this very transaction, which may still be rolled back',
      hint = 'commit first, then fetch';
  end if;
  if clock_timestamp() > found_request.recorded_at + interval '15 minutes' then
    raise exception using
      errcode = 'VL003',
      message = 'the request is older than fifteen minutes',
      hint = 'record a new one';
  end if;
  -- Committed is not flushed: with synchronous_commit off, a crash loses the last commits. From 17 on a
  -- flush can be asked for.
  if current_setting('server_version_num')::integer >= 170000 then
    perform pg_logical_emit_message(false, 'veil', '', true);
  else
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
  end if;
  return found_request;
end
$$;

-- Writes down that a request was served. Its caller can roll this back; the request he cannot.
create function pii_vault.record_fetch(request pii_vault.requests, action text, items integer)
  returns void
  language sql
  set search_path = pg_catalog, pg_temp
as $$
  insert into pii_vault.audit (login_oid, action, request, items)
  values (request.login_oid, record_fetch.action, request.id, record_fetch.items)
$$;

create function pii_vault.fetch_reveal(request uuid) returns table (
  token text, data_key uuid, sealed bytea, sealed_at timestamptz, wrapped bytea, proof bytea,
  generation integer
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  served integer;
begin
  admitted := pii_vault.admit(fetch_reveal.request, 'reveal');
  return query
    select o.token::text, o.data_key, o.sealed, o.sealed_at, k.wrapped, k.proof, k.generation
    from unnest(admitted.subjects, admitted.digests) as h (token, digest)
    join pii_vault.originals o on o.token = h.token and sha256(o.sealed) = h.digest
    left join pii_vault.data_keys k on k.id = o.data_key;
  get diagnostics served = row_count;
  perform pii_vault.record_fetch(admitted, 'reveal.fetch', served);
end
$$;

revoke all on function pii_vault.record_request(text, text[], bytea[], text) from public;
revoke all on function pii_vault.random_digest() from public;
revoke all on function pii_vault.require_reason_length(text) from public;
revoke all on function pii_vault.request_reveal(text[], text) from public;
revoke all on function pii_vault.admit(uuid, text) from public;
revoke all on function pii_vault.record_fetch(pii_vault.requests, text, integer) from public;
revoke all on function pii_vault.fetch_reveal(uuid) from public;
revoke all on function pii_vault.refuse_change() from public;
grant execute on function pii_vault.request_reveal(text[], text) to veil_revealer;
grant execute on function pii_vault.fetch_reveal(uuid) to veil_revealer;
