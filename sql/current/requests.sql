-- Requests: what a login asks for is recorded, committed, and only then served.
--
-- Everything here defends one sentence: no original without a record. A caller controls his own transactions,
-- savepoints, cursors, settings and timing, so nothing that he could still undo counts.

-- Writes the request, what the policy makes of it, and the audit entries. Asking discloses nothing, not even which
-- tokens exist.
create or replace function pii_vault.record_request(
  kind text, subjects text[], reason text, purpose text, break_glass boolean
) returns uuid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked pii_vault.requests;
  items integer := cardinality(record_request.subjects);
  is_reveal boolean := record_request.kind = 'reveal';
begin
  asked.login_oid := pii_vault.caller();
  perform pii_vault.require_read_committed('a request');
  -- A commit that is not flushed could be lost in a crash. The caller may set this back: fetch_reveal does not rely
  -- on it, it only makes its wait short.
  perform pii_vault.commit_to_disk();
  asked.reason := nullif(btrim(record_request.reason), '');
  asked.purpose := record_request.purpose;
  asked.break_glass := record_request.break_glass;
  select count(*) filter (where is_reveal and starts_with(s.token, 'ip')),
    count(*) filter (where is_reveal and starts_with(s.token, 'dev')),
    count(*) filter (where not is_reveal)
  into asked.ip_tokens, asked.device_tokens, asked.bodies
  from unnest(record_request.subjects) s (token);
  asked := pii_vault.judge(asked);

  insert into pii_vault.requests (
    kind, login_oid, subjects, reason, purpose, break_glass, approval, refusal, refusal_detail,
    request_seconds, approval_seconds, ip_tokens, device_tokens, bodies
  ) values (
    record_request.kind, asked.login_oid, record_request.subjects, asked.reason,
    asked.purpose, asked.break_glass, asked.approval, asked.refusal, asked.refusal_detail,
    asked.request_seconds, asked.approval_seconds, asked.ip_tokens, asked.device_tokens, asked.bodies
  )
  returning id into asked.id;
  perform pii_vault.record(
    case when is_reveal then 'reveal.request' else 'quarantine.' || kind end,
    asked.id,
    case when is_reveal then record_request.subjects else '{}' end,
    case when is_reveal then '{}' else record_request.subjects end,
    items,
    asked.reason,
    nullif(
      json_strip_nulls(json_build_object(
        'purpose', asked.purpose, 'approval', nullif(asked.approval, 'none')
      ))::text,
      '{}'
    )::json
  );
  if asked.break_glass then
    perform pii_vault.record('reveal.breakglass', asked.id, '{}', '{}', items, asked.reason, null);
  end if;
  if asked.refusal is not null then
    perform pii_vault.record(
      case when is_reveal then 'reveal.refused' else 'quarantine.refused' end,
      asked.id, '{}', '{}', items, null,
      json_strip_nulls(json_build_object('refusal', asked.refusal, 'expected', asked.refusal_detail))
    );
    -- Stays in the server's log also where the caller rolls this back.
    raise log 'veil: request % of % is refused: %', asked.id, session_user, asked.refusal;
  elsif asked.approval = 'needed' then
    -- Anybody may listen: the id says nothing to who may not look it up.
    perform pg_notify('veil_approvals', asked.id::text);
  end if;
  return asked.id;
end
$$;

-- Whether a request may be served now: 'ready', or why not.
create or replace function pii_vault.state_of(request pii_vault.requests) returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  verdict pii_vault.verdicts;
begin
  if request.refusal is not null then
    return 'refused';
  end if;
  if request.approval = 'needed' then
    select v.* into verdict from pii_vault.verdicts v where v.request = state_of.request.id;
    if not found then
      return case when clock_timestamp()
          > request.recorded_at + request.request_seconds * interval '1 second'
        then 'expired' else 'waiting' end;
    end if;
    return case
      when not verdict.approved then 'denied'
      when clock_timestamp()
        > verdict.decided_at + request.approval_seconds * interval '1 second' then 'expired'
      else 'ready'
    end;
  end if;
  return case when clock_timestamp() > request.recorded_at + interval '1 second'
      * case request.approval
        when 'skipped' then request.approval_seconds else request.request_seconds
      end
    then 'expired' else 'ready' end;
end
$$;

-- How it stands with a request of the caller's own.
create or replace function pii_vault.request_state(request uuid) returns text
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select pii_vault.state_of(r)
      from pii_vault.requests r
      where r.id = request_state.request and r.login = session_user
        and r.login_oid = (select p.oid from pg_roles p where p.rolname = session_user)
    ),
    'unknown'
  )
$$;

