-- Recovery of originals: requests for tokens, and what is handed out for them.

-- The tokens, made distinct, with a digest for each of what is sealed for it.
create or replace function pii_vault.request_tokens(
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
  perform pii_vault.require_tokens(tokens, 10000);
  -- As of this statement's snapshot: what is sealed or sealed anew later is not part of the request.
  -- Recorded as digests and not as transaction ids, which would mean nothing after a restore.
  --
  -- A caller may roll this back and look at what it cost (statistics, buffers, the size of the WAL). So a
  -- token that the vault does not hold costs what one does that it holds: its successor is read, and the
  -- random digest is made for both. Canaries are looked up in the same way, and their alarm comes when the
  -- entry is chained (canaries.sql), which is after the commit.
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

create or replace function pii_vault.fetch_reveal(request uuid) returns table (
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
  -- Its caller can roll this back; the request he cannot.
  perform pii_vault.record('reveal.fetch', admitted.id, '{}', '{}', served, null, null);
end
$$;
