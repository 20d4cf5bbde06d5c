-- Policy: what a request has to say, how much a login may ask for, and whether somebody else has to agree.
-- Held against a request when it is recorded and kept with it, so that nothing rests on the fetch, which
-- its caller can roll back: a request that breaks the policy commits as refused, and is never served.

set local role veil_owner;

create table pii_vault.policies (
  field text not null,
  reason_required boolean not null default false,
  purposes text[] not null default '{}',
  hourly integer,
  daily integer,
  approval boolean not null default false,
  request_seconds integer not null default 900,
  approval_seconds integer not null default 900,
  erased_may_return boolean not null default false,
  constraint policies_key primary key (field),
  constraint policies_field check (field in ('ip', 'device_id', 'body')),
  constraint policies_purposes check (
    cardinality(purposes) <= 50 and coalesce(array_position(purposes, null), 0) = 0
    and array_to_string(purposes, ' ') ~ '^([a-z][a-z0-9-]{0,31}( |$))*$'
  ),
  constraint policies_hourly check (hourly >= 0),
  constraint policies_daily check (daily >= 0),
  constraint policies_request_seconds check (request_seconds between 60 and 2592000),
  constraint policies_approval_seconds check (approval_seconds between 60 and 2592000),
  -- request_bodies takes no purpose, and a body has no token that could return.
  constraint policies_body check (
    field <> 'body' or (purposes = '{}' and not erased_may_return)
  )
);

comment on table pii_vault.policies is
  'what a request for originals of a field, or for quarantined bodies, has to meet; null: no limit';

insert into pii_vault.policies (field) values ('ip'), ('device_id'), ('body');

grant select on pii_vault.policies to veil_policy, veil_approver, veil_auditor;

-- What was decided when the request was recorded. A later change of the policy changes no request.
alter table pii_vault.requests
  add column reason text,
  add column stated_purpose text,
  add column break_glass boolean not null default false,
  add column approval text not null default 'none',
  add column refusal text,
  add column refusal_detail text,
  add column request_seconds integer not null default 900,
  add column approval_seconds integer not null default 900,
  add column ip_tokens integer not null default 0,
  add column device_tokens integer not null default 0,
  add column bodies integer not null default 0,
  add constraint requests_approval check (approval in ('none', 'needed', 'skipped'));

create index requests_of_login on pii_vault.requests (login_oid, recorded_at);
create index requests_waiting on pii_vault.requests (recorded_at) where approval = 'needed';
create index requests_break_glass on pii_vault.requests (recorded_at) where break_glass;

-- One line a login, only to be locked: of two sessions that ask for the last budgeted token, the second one
-- waits for the first, and then sees what it took (or, in an older snapshot, fails with 40001).
create table pii_vault.spenders (
  login_oid oid not null,
  requests bigint not null default 1,
  constraint spenders_key primary key (login_oid)
);

create table pii_vault.verdicts (
  request uuid not null,
  approved boolean not null,
  login text not null default session_user,
  login_oid oid not null,
  decided_at timestamptz not null default clock_timestamp(),
  constraint verdicts_key primary key (request)
);

create trigger verdicts_append_only
  before update or delete or truncate on pii_vault.verdicts
  for each statement execute function pii_vault.refuse_change();

grant select on pii_vault.verdicts to veil_auditor;

-- Decoys (sql/016): a request treats them as what the vault does not hold.
create table pii_vault.canaries (
  token text collate "C" not null,
  login text not null default session_user,
  added_at timestamptz not null default clock_timestamp(),
  constraint canaries_key primary key (token)
);

comment on table pii_vault.canaries is 'tokens of originals that no login uses: whoever asks for one has them from elsewhere';

-- Sorts behind every token: whatever is looked up has a successor, so that what is found tells nothing.
insert into pii_vault.canaries (token) values ('~');

grant select on pii_vault.canaries to veil_policy;

-- The field whose budget this request would exceed and by which limit; null if none.
create function pii_vault.exceeded_budget(
  caller oid, ip_tokens integer, device_tokens integer, bodies integer
) returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  exceeded text;
begin
  if not exists (
    select from pii_vault.policies p where p.hourly is not null or p.daily is not null
  ) then
    return null;
  end if;
  insert into pii_vault.spenders as s (login_oid) values (exceeded_budget.caller)
  on conflict (login_oid) do update set requests = s.requests + 1;
  -- A statement of its own, with a snapshot of after the wait.
  select case when s.hour + f.asked > p.hourly
    then format('%s %s an hour', p.hourly, f.what)
    else format('%s %s a day', p.daily, f.what)
  end
  into exceeded
  from (
    values ('ip', exceeded_budget.ip_tokens, 'tokens of ip'),
      ('device_id', exceeded_budget.device_tokens, 'tokens of device_id'),
      ('body', exceeded_budget.bodies, 'bodies')
  ) f (field, asked, what)
  join pii_vault.policies p on p.field = f.field
  cross join lateral (
    select
      coalesce(
        sum(u.tokens) filter (where u.recorded_at > clock_timestamp() - interval '1 hour'), 0
      ) as hour,
      coalesce(sum(u.tokens), 0) as day
    from (
      select r.recorded_at, case f.field
        when 'ip' then r.ip_tokens when 'device_id' then r.device_tokens else r.bodies
      end as tokens
      from pii_vault.requests r
      where r.login_oid = exceeded_budget.caller
        -- Not a day, which is as long as the caller's time zone says.
        and r.recorded_at > clock_timestamp() - interval '24 hours'
        and r.refusal is null
        and not exists (
          select from pii_vault.verdicts v where v.request = r.id and not v.approved
        )
    ) u
  ) s
  where f.asked > 0 and (s.hour + f.asked > p.hourly or s.day + f.asked > p.daily)
  limit 1;
  return exceeded;
end
$$;

-- In a transaction's old snapshot, a policy that has been tightened is as it was, and what has been erased is
-- there.
create function pii_vault.require_read_committed() returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = 'requests and fetches need the isolation level read committed',
      hint = 'begin isolation level read committed';
  end if;
end
$$;

-- A caller may have every plan printed to his screen, with its constants: the digests among them.
create function pii_vault.print_no_plans() returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config(name, 'off', true)
  from unnest('{debug_print_parse,debug_print_rewritten,debug_print_plan}'::text[]) s (name);
end
$$;

drop function pii_vault.record_request(text, text[], bytea[], text);

-- Writes the request, what the policy makes of it, and the audit entries. What the vault holds of it is kept for
-- fetch_reveal and not returned: asking discloses nothing, not even which tokens exist.
create function pii_vault.record_request(
  kind text, subjects text[], digests bytea[], reason text, purpose text, break_glass boolean
) returns uuid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  caller oid := pii_vault.caller();
  asked pii_vault.requests;
  rule record;
  why text := nullif(btrim(record_request.reason), '');
  what text;
begin
  perform pii_vault.require_read_committed();
  -- A commit that is not flushed could be lost in a crash. The caller may set this back: fetch_reveal
  -- does not rely on it, it only makes its wait short.
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  if record_request.kind = 'reveal' then
    select count(*) filter (where starts_with(s.token, 'ip')),
      count(*) filter (where starts_with(s.token, 'dev'))
    into asked.ip_tokens, asked.device_tokens
    from unnest(record_request.subjects) s (token);
    asked.bodies := 0;
  else
    asked.ip_tokens := 0;
    asked.device_tokens := 0;
    asked.bodies := cardinality(record_request.subjects);
  end if;
  -- Of several fields, whatever is stricter.
  select
    bool_or(p.reason_required) as reason_required,
    bool_or(p.approval) as approval,
    min(p.request_seconds) as request_seconds,
    min(p.approval_seconds) as approval_seconds,
    bool_and(
      p.purposes = '{}' or coalesce(record_request.purpose = any (p.purposes), false)
    ) as purpose_allowed,
    (
      select string_agg(distinct w.word, ', ' order by w.word)
      from pii_vault.policies q cross join lateral unnest(q.purposes) w (word)
      where (q.field = 'ip' and asked.ip_tokens > 0)
        or (q.field = 'device_id' and asked.device_tokens > 0)
    ) as purposes
  into rule
  from pii_vault.policies p
  where (p.field = 'ip' and asked.ip_tokens > 0)
    or (p.field = 'device_id' and asked.device_tokens > 0)
    or (p.field = 'body' and asked.bodies > 0);

  if why is null and (rule.reason_required or record_request.break_glass) then
    asked.refusal := 'VL030';
  elsif not rule.purpose_allowed then
    asked.refusal := 'VL033';
    what := rule.purposes;
  else
    what := pii_vault.exceeded_budget(
      caller, asked.ip_tokens, asked.device_tokens, asked.bodies
    );
    if what is not null then
      asked.refusal := 'VL035';
    end if;
  end if;
  asked.approval := case
    when not rule.approval then 'none'
    when record_request.break_glass then 'skipped'
    else 'needed'
  end;

  insert into pii_vault.requests (
    purpose, login_oid, subjects, digests, reason, stated_purpose, break_glass, approval, refusal,
    refusal_detail, request_seconds, approval_seconds, ip_tokens, device_tokens, bodies
  ) values (
    record_request.kind, caller, record_request.subjects, record_request.digests, why,
    record_request.purpose, record_request.break_glass, asked.approval, asked.refusal, what,
    rule.request_seconds, rule.approval_seconds, asked.ip_tokens, asked.device_tokens, asked.bodies
  )
  returning id into asked.id;
  insert into pii_vault.audit (
    login_oid, action, request, tokens, message_ids, items, reason, details
  ) values (
    caller,
    case kind when 'reveal' then 'reveal.request' else 'quarantine.' || kind end,
    asked.id,
    case kind when 'reveal' then record_request.subjects else '{}' end,
    case kind when 'reveal' then '{}' else record_request.subjects end,
    cardinality(record_request.subjects),
    why,
    nullif(
      json_strip_nulls(json_build_object(
        'purpose', record_request.purpose, 'approval', nullif(asked.approval, 'none')
      ))::text,
      '{}'
    )::json
  );
  if record_request.break_glass then
    perform pii_vault.record(
      'reveal.breakglass', asked.id, '{}', cardinality(record_request.subjects), why, null
    );
  end if;
  if asked.refusal is not null then
    perform pii_vault.record(
      case kind when 'reveal' then 'reveal.refused' else 'quarantine.refused' end,
      asked.id, '{}', cardinality(record_request.subjects), null,
      json_strip_nulls(json_build_object('refusal', asked.refusal, 'expected', what))
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

-- The tokens, made distinct, with a digest for each of what is sealed for it.
create function pii_vault.request_tokens(
  tokens text[], reason text, purpose text, break_glass boolean
) returns uuid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked text[];
  digests bytea[];
begin
  perform pii_vault.print_no_plans();
  perform pii_vault.require_reason_length(reason);
  if char_length(purpose) > 32 then
    raise exception using errcode = 'VL006', message = 'a purpose has up to 32 characters';
  end if;
  if coalesce(array_ndims(tokens), 0) <> 1 or cardinality(tokens) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 tokens';
  end if;
  if exists (
    select from unnest(tokens) t (token)
    where token is null or char_length(token) > 64
      -- As in sql/010: a counted repetition costs four times as much.
      or token !~ '^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]+[aeimquy4]$'
      or substr(token, char_length(token) - 26, 1) <> '_'
  ) then
    raise exception using errcode = 'VL006', message = 'one of the tokens is not written as a token is';
  end if;
  -- As of this statement's snapshot: what is sealed or sealed anew later is not part of the request.
  -- Recorded as digests and not as transaction ids, which would mean nothing after a restore.
  --
  -- A caller may roll this back and look at what it cost (statistics, buffers, the size of the WAL). So a
  -- token that the vault does not hold costs what one does that it holds: its successor is read, and the
  -- random digest is made for both. Canaries are looked up in the same way, and their alarm comes when the
  -- entry is chained (sql/016), which is after the commit.
  select
    array_agg(t.token order by t.position),
    array_agg(
      case when o.token = t.token and c.token is distinct from t.token
        then sha256(o.sealed) else t.otherwise
      end
      order by t.position
    )
  into asked, digests
  from (
    -- As random_digest() makes it, whose call costs more than all the rest.
    select u.token, min(u.position) as position,
      sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) as otherwise
    from unnest(tokens) with ordinality as u (token, position)
    group by u.token
  ) t
  left join lateral (
    select s.token, s.sealed
    from pii_vault.originals s
    where s.token >= t.token collate "C"
    order by s.token
    limit 1
  ) o on true
  left join lateral (
    select d.token
    from pii_vault.canaries d
    where d.token >= t.token collate "C"
    order by d.token
    limit 1
  ) c on true;
  return pii_vault.record_request('reveal', asked, digests, reason, purpose, break_glass);
end
$$;

create or replace function pii_vault.request_reveal(tokens text[], reason text) returns uuid
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pii_vault.request_tokens(tokens, reason, null, false)
$$;

create function pii_vault.request_reveal(tokens text[], reason text, purpose text) returns uuid
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pii_vault.request_tokens(tokens, reason, nullif(btrim(purpose), ''), false)
$$;

-- Needs no approval, but a reason, and somebody's review afterwards.
create function pii_vault.break_glass(tokens text[], reason text, purpose text) returns uuid
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pii_vault.request_tokens(tokens, reason, nullif(btrim(purpose), ''), true)
$$;

create or replace function etl.request_bodies(message_ids text[], purpose text, reason text)
  returns uuid
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked text[];
  digests bytea[];
begin
  perform pii_vault.print_no_plans();
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
  return pii_vault.record_request(purpose, asked, digests, reason, null, false);
end
$$;

-- Whether a request may be served now: 'ready', or why not.
create function pii_vault.state_of(request pii_vault.requests) returns text
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

-- The request, if its caller may be served now; otherwise an error that says why not.
create or replace function pii_vault.admit(request uuid, purpose text) returns pii_vault.requests
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  found_request pii_vault.requests;
  caller oid;
  state text;
  target pg_lsn;
  give_up timestamptz;
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
  where r.id = admit.request and r.purpose = admit.purpose
    and r.login = session_user
    and r.login_oid = caller;
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
  state := pii_vault.state_of(found_request);
  if state = 'refused' then
    raise exception using
      errcode = found_request.refusal,
      message = case found_request.refusal
        when 'VL030' then 'the policy wants a reason, and this request gives none'
        when 'VL033' then 'the policy does not allow the purpose of this request, or it names none'
        when 'VL035' then format(
          'this request would exceed the budget of this login: %s', found_request.refusal_detail
        )
      end,
      hint = case found_request.refusal
        when 'VL030' then 'ask again with a reason; the refusal is on record'
        when 'VL033' then format(
          'ask again with one of these: %s; the refusal is on record', found_request.refusal_detail
        )
        when 'VL035' then 'ask for less or later, or have the policy changed; the refusal is on record'
      end;
  elsif state = 'waiting' then
    raise exception using
      errcode = 'VL031',
      message = format('request %s waits for approval', found_request.id),
      hint = 'somebody else with the approver role decides; then fetch it';
  elsif state = 'denied' then
    raise exception using
      errcode = 'VL032',
      message = format('request %s was denied', found_request.id),
      hint = 'ask the approver why; the audit has the reason';
  elsif state = 'expired' then
    raise exception using
      errcode = 'VL003',
      message = 'the request, or its approval, is older than the policy allows',
      hint = 'record a new one';
  end if;
  perform pii_vault.require_read_committed();
  -- Committed is not flushed: with synchronous_commit off, a crash loses the last commits, the approver's
  -- too. From 17 on a flush can be asked for.
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

-- Changes what the policy says of a field, from here on. Settings that are not named stay.
create function pii_vault.set_policy(field text, settings jsonb, reason text)
  returns setof pii_vault.policies
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  before pii_vault.policies;
  after pii_vault.policies;
  unknown text;
begin
  perform pii_vault.require_reason_length(set_policy.reason);
  select p.* into before from pii_vault.policies p where p.field = set_policy.field for update;
  if not found then
    raise exception using
      errcode = 'VL006', message = 'expected the field ip, device_id or body';
  end if;
  if jsonb_typeof(settings) is distinct from 'object' then
    raise exception using errcode = 'VL006', message = 'expected settings as a JSON object';
  end if;
  select k.key into unknown from jsonb_object_keys(settings) k (key)
  where k.key not in (
    'reason_required', 'purposes', 'hourly', 'daily', 'approval', 'request_seconds',
    'approval_seconds', 'erased_may_return'
  )
  limit 1;
  if found then
    raise exception using errcode = 'VL006', message = 'a policy has no such setting';
  end if;
  begin
    after := jsonb_populate_record(before, settings);
    update pii_vault.policies p
    set reason_required = after.reason_required, purposes = after.purposes, hourly = after.hourly,
      daily = after.daily, approval = after.approval, request_seconds = after.request_seconds,
      approval_seconds = after.approval_seconds, erased_may_return = after.erased_may_return
    where p.field = set_policy.field;
  exception
    when check_violation or not_null_violation or data_exception then
      raise exception using
        errcode = 'VL006', message = 'a setting of the policy is out of its bounds',
        hint = 'purposes are words of a-z, 0-9 and -; times are 60 seconds to 30 days; limits are 0 or more';
  end;
  if after is distinct from before then
    perform pii_vault.record(
      'policy.changed', null, '{}', 1, set_policy.reason,
      json_build_object('before', to_json(before), 'after', to_json(after))
    );
  end if;
  return next after;
end
$$;

revoke all on function pii_vault.exceeded_budget(oid, integer, integer, integer) from public;
revoke all on function pii_vault.require_read_committed() from public;
revoke all on function pii_vault.print_no_plans() from public;
revoke all on function pii_vault.record_request(text, text[], bytea[], text, text, boolean)
  from public;
revoke all on function pii_vault.request_tokens(text[], text, text, boolean) from public;
revoke all on function pii_vault.request_reveal(text[], text) from public;
revoke all on function pii_vault.request_reveal(text[], text, text) from public;
revoke all on function pii_vault.break_glass(text[], text, text) from public;
revoke all on function etl.request_bodies(text[], text, text) from public;
revoke all on function pii_vault.state_of(pii_vault.requests) from public;
revoke all on function pii_vault.admit(uuid, text) from public;
revoke all on function pii_vault.set_policy(text, jsonb, text) from public;
grant execute on function pii_vault.request_reveal(text[], text) to veil_revealer;
grant execute on function pii_vault.request_reveal(text[], text, text) to veil_revealer;
grant execute on function pii_vault.break_glass(text[], text, text) to veil_breakglass;
grant execute on function pii_vault.fetch_reveal(uuid) to veil_breakglass;
grant execute on function etl.request_bodies(text[], text, text) to veil_operator;
grant execute on function pii_vault.set_policy(text, jsonb, text) to veil_policy;
