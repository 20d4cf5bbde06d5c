-- A second person's verdict, and the review of what went without one.

-- The request, for somebody else than who made it: by the login's id, which no `set role`, no renaming and
-- no new login of an old name changes, and by its name too.
create or replace function pii_vault.request_of_another(request uuid) returns pii_vault.requests
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  caller oid := pii_vault.caller();
  asked pii_vault.requests;
begin
  select r.* into asked from pii_vault.requests r where r.id = request_of_another.request;
  if not found then
    raise exception using
      errcode = 'VL042', message = 'there is no such request', hint = 'was its id copied in full?';
  end if;
  if asked.login_oid = caller or asked.login = session_user then
    raise exception using
      errcode = 'VL036',
      message = 'nobody decides on a request of his own',
      hint = 'another login with the approver role has to';
  end if;
  return asked;
end
$$;

create or replace function pii_vault.decide(request uuid, approve boolean, reason text) returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  asked pii_vault.requests;
begin
  perform pii_vault.require_reason_length(decide.reason);
  if decide.approve is null then
    raise exception using errcode = 'VL006', message = 'expected a verdict';
  end if;
  asked := pii_vault.request_of_another(decide.request);
  if asked.approval <> 'needed' or asked.refusal is not null then
    raise exception using
      errcode = 'VL037', message = 'this request waits for no verdict';
  end if;
  -- Of two verdicts at once, the first one stands.
  insert into pii_vault.verdicts (request, approved, login_oid)
  select asked.id, decide.approve, pii_vault.caller()
  where pii_vault.state_of(asked) = 'waiting'
  on conflict do nothing;
  if not found then
    raise exception using
      errcode = 'VL037',
      message = 'this request has had its verdict, or has expired',
      hint = 'whoever made it can make a new one';
  end if;
  perform pii_vault.record(
    case when decide.approve then 'reveal.approved' else 'reveal.denied' end,
    asked.id, '{}', '{}', cardinality(asked.subjects), decide.reason,
    json_build_object('requester', asked.login)
  );
  perform pg_notify('veil_verdicts', asked.id::text);
end
$$;

-- Takes what was asked for without approval off the open list.
create or replace function pii_vault.review(request uuid, note text) returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  asked pii_vault.requests;
begin
  perform pii_vault.require_reason(review.note);
  asked := pii_vault.request_of_another(review.request);
  if not asked.break_glass then
    raise exception using
      errcode = 'VL037', message = 'this request was no break-glass: there is nothing to review';
  end if;
  insert into pii_vault.reviews (request, login_oid) values (asked.id, pii_vault.caller())
  on conflict do nothing;
  if not found then
    raise exception using errcode = 'VL037', message = 'this request has been reviewed already';
  end if;
  perform pii_vault.record(
    'reveal.reviewed', asked.id, '{}', '{}', cardinality(asked.subjects), review.note,
    json_build_object('requester', asked.login)
  );
end
$$;

-- What waits for a verdict, the oldest first.
create or replace function pii_vault.waiting_requests() returns table (
  request uuid, login text, recorded_at timestamptz, expires_at timestamptz, kind text, items integer,
  reason text, purpose text, subjects text[]
)
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select
    r.id, r.login, r.recorded_at, r.recorded_at + r.request_seconds * interval '1 second', r.kind,
    cardinality(r.subjects), r.reason, r.purpose, r.subjects
  from pii_vault.requests r
  where r.approval = 'needed' and r.refusal is null
    and clock_timestamp() <= r.recorded_at + r.request_seconds * interval '1 second'
    and not exists (select from pii_vault.verdicts v where v.request = r.id)
  order by r.recorded_at, r.id
$$;

-- What went without one and nobody has looked at since, the oldest first.
create or replace function pii_vault.unreviewed_requests() returns table (
  request uuid, login text, recorded_at timestamptz, kind text, items integer, reason text,
  purpose text, subjects text[]
)
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select
    r.id, r.login, r.recorded_at, r.kind, cardinality(r.subjects), r.reason, r.purpose,
    r.subjects
  from pii_vault.requests r
  where r.break_glass and r.refusal is null
    and not exists (select from pii_vault.reviews v where v.request = r.id)
  order by r.recorded_at, r.id
$$;

