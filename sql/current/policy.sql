-- Policy: what a request has to say, how much a login may ask for, and whether somebody else has to agree. Held
-- against a request when it is recorded and kept with it, so that nothing rests on the fetch, which its caller can
-- roll back: a request that breaks the policy commits as refused, and is never served.

-- What the caller may not have any more, as "100 tokens of ip an hour"; null if this request keeps within his budget.
-- Where there is any limit, it locks this login's line of `spenders` until the request commits: two requests of one
-- login are counted one after the other.
create or replace function pii_vault.exceeded_budget(
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
  -- A statement of its own: its snapshot has what was committed while this one waited for the line.
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

-- What the policy makes of a request: fills in everything of it that was not asked for but decided.
create or replace function pii_vault.judge(asked pii_vault.requests) returns pii_vault.requests
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  rule record;
begin
  -- Of several fields, whatever is stricter.
  select
    bool_or(p.reason_required) as reason_required,
    bool_or(p.approval) as approval,
    min(p.request_seconds) as request_seconds,
    min(p.approval_seconds) as approval_seconds,
    bool_and(
      p.purposes = '{}' or coalesce(asked.purpose = any (p.purposes), false)
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
  asked.request_seconds := rule.request_seconds;
  asked.approval_seconds := rule.approval_seconds;

  if asked.reason is null and (rule.reason_required or asked.break_glass) then
    asked.refusal := 'VL030';
  elsif not rule.purpose_allowed then
    asked.refusal := 'VL033';
    asked.refusal_detail := rule.purposes;
  else
    asked.refusal_detail := pii_vault.exceeded_budget(
      asked.login_oid, asked.ip_tokens, asked.device_tokens, asked.bodies
    );
    asked.refusal := case when asked.refusal_detail is not null then 'VL035' end;
  end if;
  asked.approval := case
    when not rule.approval then 'none'
    when asked.break_glass then 'skipped'
    else 'needed'
  end;
  return asked;
end
$$;

-- Changes what the policy says of a field, from here on. Settings that are not named stay.
create or replace function pii_vault.set_policy(field text, settings jsonb, reason text)
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
      'policy.changed', null, '{}', '{}', 1, set_policy.reason,
      json_build_object('before', to_json(before), 'after', to_json(after))
    );
  end if;
  return next after;
end
$$;

