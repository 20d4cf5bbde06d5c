-- The right to be forgotten: of a user, or of tokens. What is erased stays erased, until it is lifted on record.

-- What forget_user would do with each value of this user's rows, as things are now. Null for what is no token. On
-- record: it tells which tokens are this user's.
create or replace function pii_vault.plan_forget_user(user_id text)
  returns table (token text, field text, logins bigint, others bigint, outcome text)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  user_is_held boolean;
  tokens integer := 0;
begin
  perform pii_vault.require_user_id(plan_forget_user.user_id);
  perform set_config('enable_seqscan', 'off', true);
  user_is_held := exists (
    select from pii_vault.holds h
    where h.released_at is null and h.user_id = plan_forget_user.user_id
  );
  for token, field, logins, others, outcome in
    with assessed as materialized (
      select * from pii_vault.assess_user(plan_forget_user.user_id, 10000)
    ),
    held as materialized (
      select unnest(pii_vault.held_among(array(select a.value from assessed a))) as value
    )
    select
      case when a.is_token then a.value end, a.field, a.logins, a.others,
      case
        when user_is_held or a.value in (select h.value from held h) then 'held'
        when not a.is_token then 'replace'
        when a.others > 0 then 'keep'
        else 'erase'
      end
    from assessed a
    order by a.field desc, a.value collate "C"
  loop
    tokens := tokens + (token is not null)::integer;
    return next;
  end loop;
  perform pii_vault.record(
    'erasure.planned', null, '{}', '{}', tokens, null,
    json_build_object('kind', 'user', 'subject', pii_vault.user_digest(plan_forget_user.user_id))
  );
end
$$;

create or replace function pii_vault.plan_forget_tokens(tokens text[])
  returns table (token text, field text, logins bigint, others bigint, outcome text)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  asked text[];
begin
  perform pii_vault.require_tokens(plan_forget_tokens.tokens, 100000);
  perform set_config('enable_seqscan', 'off', true);
  return query
    with held as materialized (
      select unnest(pii_vault.held_among(plan_forget_tokens.tokens)) as token
    )
    select a.token, a.field, a.logins, greatest(a.users - 1, 0),
      case
        when a.outcome = 'erase' and a.token in (select h.token from held h) then 'held'
        else a.outcome
      end
    from pii_vault.assess_tokens(plan_forget_tokens.tokens, 10000) a
    order by a."position";
  asked := array(select distinct t.token from unnest(plan_forget_tokens.tokens) t (token));
  perform pii_vault.record(
    'erasure.planned', null, '{}', '{}', cardinality(asked), null,
    json_build_object('kind', 'tokens', 'subject', pii_vault.token_digest(asked))
  );
end
$$;

-- Whatever stands in this user's rows in place of originals is replaced by tokens that link to nothing, one for
-- each value, so that the user's own duplicates still show. Originals that nobody else's rows have are erased.
create or replace function pii_vault.forget_user(user_id text, reason text)
  returns table (entry bigint, receipt json, outcomes json)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  erasure uuid := gen_random_uuid();
  fields text[];
  found text[];
  gone text[];
  kept text[];
  plain integer;
  user_is_held boolean;
  held text[];
  originals integer;
  replaced integer;
begin
  perform pii_vault.require_user_id(forget_user.user_id);
  perform pii_vault.require_reason(forget_user.reason);
  perform pii_vault.close_gate();

  select
    coalesce(array_agg(a.field order by a.field desc, a.value collate "C"), '{}'),
    coalesce(array_agg(a.value order by a.field desc, a.value collate "C"), '{}'),
    coalesce(array_agg(a.value) filter (where a.is_token and a.others = 0), '{}'),
    coalesce(array_agg(a.value) filter (where a.is_token and a.others > 0), '{}'),
    count(*) filter (where not a.is_token),
    coalesce(
      json_agg(
        json_build_object(
          'token', case when a.is_token then a.value end,
          'field', a.field,
          'logins', a.logins,
          'outcome', case when not a.is_token then 'replace' when a.others > 0 then 'keep' else 'erase' end
        )
        order by a.field desc, a.value collate "C"
      ),
      '[]'
    )
  into fields, found, gone, kept, plain, outcomes
  from pii_vault.assess_user(forget_user.user_id, 1) a;

  user_is_held := exists (
    select from pii_vault.holds h where h.released_at is null and h.user_id = forget_user.user_id
  );
  held := case when user_is_held then gone || kept else pii_vault.held_among(gone || kept) end;
  perform pii_vault.refuse_held(held, cardinality(gone || kept));
  -- Also where the rows hold nothing that has a name.
  if user_is_held then
    raise exception using
      errcode = 'VL040',
      message = 'this user is under a legal hold, so nothing was erased',
      hint = '`veil hold list` shows the holds, and who added them';
  end if;

  originals := pii_vault.bury(gone, erasure);
  replaced := pii_vault.replace_values(
    forget_user.user_id, fields, found,
    -- Those of ip stand first.
    pii_vault.fresh_tokens('ip', cardinality(array_positions(fields, 'ip')))
      || pii_vault.fresh_tokens('device_id', cardinality(array_positions(fields, 'device_id')))
  );
  receipt := json_build_object(
    'erasure', erasure,
    'kind', 'user',
    'at', pii_vault.utc_text(clock_timestamp()),
    'subject', pii_vault.user_digest(forget_user.user_id),
    'erased', pii_vault.count_by_field(gone),
    'kept', pii_vault.count_by_field(kept),
    'plain', plain,
    'originals', originals,
    'rows', replaced,
    'digest', pii_vault.token_digest(gone)
  );
  entry := pii_vault.record(
    'erasure.forget', null, '{}', '{}', cardinality(gone), forget_user.reason, receipt
  );
  return next;
end
$$;

-- Erases those of the tokens that no more than one user's rows have, and leaves the others alone.
create or replace function pii_vault.forget_tokens(tokens text[], reason text)
  returns table (entry bigint, receipt json, outcomes json)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  erasure uuid := gen_random_uuid();
  gone text[];
  ips integer;
  kept text[];
  forgotten integer;
  unknown integer;
  originals integer;
  replaced integer;
begin
  perform pii_vault.require_tokens(forget_tokens.tokens, 100000);
  perform pii_vault.require_reason(forget_tokens.reason);
  perform pii_vault.close_gate();

  select
    -- Those of ip stand first.
    coalesce(array_agg(a.token order by a.field desc) filter (where a.outcome = 'erase'), '{}'),
    count(*) filter (where a.outcome = 'erase' and a.field = 'ip'),
    coalesce(array_agg(a.token) filter (where a.outcome = 'keep'), '{}'),
    count(*) filter (where a.outcome = 'forgotten'),
    count(*) filter (where a.outcome = 'unknown'),
    json_agg(
      json_build_object('token', a.token, 'field', a.field, 'outcome', a.outcome)
      order by a."position"
    )
  into gone, ips, kept, forgotten, unknown, outcomes
  from pii_vault.assess_tokens(forget_tokens.tokens, 1) a;
  perform pii_vault.refuse_held(pii_vault.held_among(gone), json_array_length(outcomes));

  originals := pii_vault.bury(gone, erasure);
  replaced := pii_vault.replace_values(
    null,
    array_fill('ip'::text, array[ips]) || array_fill('device_id'::text, array[cardinality(gone) - ips]),
    gone,
    pii_vault.fresh_tokens('ip', ips) || pii_vault.fresh_tokens('device_id', cardinality(gone) - ips)
  );
  receipt := json_build_object(
    'erasure', erasure,
    'kind', 'tokens',
    'at', pii_vault.utc_text(clock_timestamp()),
    'erased', pii_vault.count_by_field(gone),
    'kept', pii_vault.count_by_field(kept),
    'forgotten', forgotten,
    'unknown', unknown,
    'originals', originals,
    'rows', replaced,
    'digest', pii_vault.token_digest(gone)
  );
  entry := pii_vault.record(
    'erasure.forget', null, '{}', '{}', cardinality(gone), forget_tokens.reason, receipt
  );
  return next;
end
$$;

-- Values that were forgotten may be stored again when they come. Returns how many.
create or replace function pii_vault.lift_tombstones(tokens text[], reason text) returns integer
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  lifted text[];
begin
  perform pii_vault.require_tokens(lift_tombstones.tokens, 100000);
  perform pii_vault.require_reason(lift_tombstones.reason);
  perform pii_vault.close_gate();
  with gone as (
    delete from pii_vault.tombstones t
    where t.token = any (lift_tombstones.tokens)
    returning t.token
  )
  select coalesce(array_agg(g.token::text order by g.token), '{}') into lifted from gone g;
  if cardinality(lifted) > 0 then
    perform pii_vault.record(
      'tombstone.lifted', null, lifted, '{}', cardinality(lifted), lift_tombstones.reason, null
    );
  end if;
  return cardinality(lifted);
end
$$;

