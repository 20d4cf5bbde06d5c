-- Recovery of originals: requests for tokens, and what is handed out for them.

-- The tokens, made distinct. Nothing of the vault is read, canaries included: a caller may roll this back and look at
-- what it cost. So neither time, nor locks, nor statistics tell which tokens exist.
create or replace function pii_vault.request_tokens(
  tokens text[], reason text, purpose text, break_glass boolean
) returns uuid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked text[];
begin
  perform pii_vault.require_reason_length(reason);
  if char_length(purpose) > 32 then
    raise exception using errcode = 'VL006', message = 'a purpose has up to 32 characters';
  end if;
  perform pii_vault.require_tokens(tokens, 10000);
  select array_agg(t.token order by t.position) into asked
  from (
    select u.token, min(u.position) as position
    from unnest(tokens) with ordinality as u (token, position)
    group by u.token
  ) t;
  return pii_vault.record_request('reveal', asked, reason, purpose, break_glass);
end
$$;

create or replace function pii_vault.request_reveal(tokens text[], reason text) returns uuid
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pii_vault.request_tokens(tokens, reason, null, false)
$$;

create or replace function pii_vault.request_reveal(tokens text[], reason text, purpose text) returns uuid
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pii_vault.request_tokens(tokens, reason, nullif(btrim(purpose), ''), false)
$$;

-- Needs no approval, but a reason, and somebody's review afterwards.
create or replace function pii_vault.break_glass(tokens text[], reason text, purpose text) returns uuid
  language sql security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pii_vault.request_tokens(tokens, reason, nullif(btrim(purpose), ''), true)
$$;

-- Sealed before the request was recorded, in all that is fetched: what was erased since, and came again, was not asked
-- for. A canary is answered as an unknown token.
--
-- Of each token the earliest original that is left. The periods' indexes are read in step, in the order of tokens, so
-- nothing is sorted. To look for each token by itself took three times as long, and to go from period to period until
-- all are found ten times for a single token.
--
-- One plan serves any number of tokens: to make one for these would estimate each of them in each period first. Nor
-- are the checks of each period's table read for it, which was half of its time.
create or replace function pii_vault.fetch_reveal(request uuid) returns table (
  token text, data_key uuid, sealed bytea, sealed_at timestamptz, wrapped bytea, proof bytea,
  generation integer
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set constraint_exclusion = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off
as $$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  served integer;
begin
  admitted := pii_vault.admit(fetch_reveal.request, 'reveal');
  return query
    select f.token::text, f.data_key, f.sealed, f.sealed_at, k.wrapped, k.proof, k.generation
    from (
      select distinct on (o.token) o.token, o.data_key, o.sealed, o.sealed_at
      from pii_vault.originals o
      where o.token = any (admitted.subjects) and o.sealed_at < admitted.recorded_at
        and not exists (select from pii_vault.canaries c where c.token = o.token)
      order by o.token, o.period
    ) f
    left join pii_vault.data_keys k on k.id = f.data_key;
  get diagnostics served = row_count;
  -- Its caller can roll this back; the request he cannot.
  perform pii_vault.record('reveal.fetch', admitted.id, '{}', '{}', served, null, null);
end
$$;

-- The same for rows: of each token on a day the original of the period that the day lies in, with where the period
-- begins and ends; without a seal where there is none. A day that is null stands for any: the earliest that is left.
-- Only tokens of the request are answered for.
--
-- A period stands in its statement as a literal, so that no other one is planned or locked.
create or replace function pii_vault.fetch_in_periods(request uuid, tokens text[], days date[]) returns table (
  token text, first date, until date, data_key uuid, sealed bytea, sealed_at timestamptz, wrapped bytea,
  proof bytea, generation integer
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set constraint_exclusion = off
  set enable_seqscan = off
  set jit = off
as $$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  period record;
  served integer := 0;
begin
  admitted := pii_vault.admit(fetch_in_periods.request, 'reveal');
  if (
    cardinality(fetch_in_periods.tokens) <= 10000
    and etl.shape(fetch_in_periods.tokens) = format('[1:%s]', cardinality(fetch_in_periods.tokens))
    and etl.shape(fetch_in_periods.tokens) = etl.shape(fetch_in_periods.days)
  ) is not true then
    raise exception using
      errcode = 'VL006', message = 'expected up to 10000 tokens, and a day, or null, for each';
  end if;
  for period in
    select p.first, p.until, array_agg(distinct a.token) as tokens
    from etl.periods_of(fetch_in_periods.days) p
    join unnest(fetch_in_periods.tokens, fetch_in_periods.days) a (token, day)
      on (a.day >= p.first and a.day < p.until) or (a.day is null and p.first is null)
    where a.token in (select unnest(admitted.subjects))
    group by p.first, p.until
    order by p.first
  loop
    for token, first, until, data_key, sealed, sealed_at, wrapped, proof, generation in
      execute format(
        'select a.token, $2, $3, f.data_key, f.sealed, f.sealed_at, k.wrapped, k.proof, k.generation
         from (select unnest($1)) a (token)
         left join lateral (
           select o.data_key, o.sealed, o.sealed_at
           from pii_vault.originals o
           where o.token = a.token and o.sealed_at < $4 and %s
             and not exists (select from pii_vault.canaries c where c.token = o.token)
           order by o.period
           limit 1
         ) f on true
         left join pii_vault.data_keys k on k.id = f.data_key',
        case when period.first is null then 'true' else format('o.period = %L::date', etl.day_text(period.first)) end
      ) using period.tokens, period.first, period.until, admitted.recorded_at
    loop
      served := served + (sealed is not null)::integer;
      return next;
    end loop;
  end loop;
  -- As of fetch_reveal.
  perform pii_vault.record('reveal.fetch', admitted.id, '{}', '{}', served, null, null);
end
$$;
