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

-- Of each token the earliest original that is left. Sealed before the request was recorded: what was erased since, and
-- came again, was not asked for. A canary is answered as an unknown token.
create or replace function pii_vault.fetch_reveal(request uuid) returns table (
  token text, data_key uuid, sealed bytea, sealed_at timestamptz, wrapped bytea, proof bytea,
  generation integer
)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
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
