-- Legal holds: what must not be erased meanwhile.

-- Which of these tokens a hold stands against: by name, or in a row of a user who is held.
create or replace function pii_vault.held_among(tokens text[]) returns text[]
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct t.token), '{}')
  from unnest(tokens) t (token)
  where t.token in (
    select h.token from pii_vault.holds h where h.released_at is null and h.token is not null
    union all
    select v.value
    from pii_vault.holds h cross join lateral pii_vault.values_of_user(h.user_id) v
    where h.released_at is null and h.user_id is not null
  )
$$;

create or replace function pii_vault.refuse_held(held text[], asked integer) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(held) > 0 then
    raise exception using
      errcode = 'VL040',
      message = format(
        '%s of %s %s under a legal hold, so nothing was erased: %s%s',
        cardinality(held), asked,
        case when asked = 1 then 'token is' when cardinality(held) = 1 then 'tokens is' else 'tokens are' end, array_to_string(held[1:5], ', '),
        case when cardinality(held) > 5 then ', …' else '' end
      ),
      hint = '`veil hold list` shows the holds, and who added them';
  end if;
end
$$;

create or replace function pii_vault.describe_hold(hold pii_vault.holds) returns json
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select json_build_object(
    'hold', hold.id,
    'kind', case when hold.token is null then 'user' else 'token' end,
    'subject', coalesce(hold.token, pii_vault.user_digest(hold.user_id))
  )
$$;

-- Of a token, or of every token that stands in a user's rows, also in those to come.
create or replace function pii_vault.add_hold(token text, user_id text, reason text) returns uuid
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  made pii_vault.holds;
begin
  if (add_hold.token is null) = (add_hold.user_id is null) then
    raise exception using errcode = 'VL006', message = 'a hold is of a token or of a user';
  end if;
  if add_hold.token is null then
    perform pii_vault.require_user_id(add_hold.user_id);
  elsif char_length(add_hold.token) > 64
    or add_hold.token !~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$' then
    raise exception using errcode = 'VL006', message = 'expected a token that stands for an original';
  end if;
  perform pii_vault.require_reason(add_hold.reason);
  -- An erasure sees it, or was done before.
  perform pii_vault.close_gate();
  insert into pii_vault.holds (token, user_id, reason)
  values (add_hold.token, add_hold.user_id, btrim(add_hold.reason))
  returning * into made;
  perform pii_vault.record(
    'hold.added', null,
    case when made.token is null then '{}' else array[made.token::text] end, '{}',
    1, add_hold.reason, pii_vault.describe_hold(made)
  );
  return made.id;
end
$$;

-- Whether no original and no row is there that it stands for, so far: a slip of the pen, perhaps.
create or replace function pii_vault.is_hold_empty(hold uuid) returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('enable_seqscan', 'off', true);
  return (
    select case
      when h.token is null then not exists (
        select from public.user_logins l where l.user_id = h.user_id collate "default"
      )
      else
        not exists (select from pii_vault.originals o where o.token = h.token)
        and not exists (
          select from pii_vault.occurrences o where o.token = h.token collate "default"
        )
      end
    from pii_vault.holds h
    where h.id = is_hold_empty.hold and h.released_at is null
  );
end
$$;

create or replace function pii_vault.release_hold(hold uuid, reason text) returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  released pii_vault.holds;
begin
  perform pii_vault.require_reason(release_hold.reason);
  update pii_vault.holds h
  set released_by = session_user, released_at = clock_timestamp(),
    release_reason = btrim(release_hold.reason)
  where h.id = release_hold.hold and h.released_at is null
  returning h.* into released;
  if not found then
    raise exception using
      errcode = 'VL042',
      message = 'there is no such hold, or it was released before',
      hint = '`veil hold list` shows the holds';
  end if;
  perform pii_vault.record(
    'hold.released', null,
    case when released.token is null then '{}' else array[released.token::text] end, '{}',
    1, release_hold.reason, pii_vault.describe_hold(released)
  );
end
$$;

create or replace function pii_vault.list_holds() returns table (
  id uuid, token text, user_id text, reason text, added_by text, added_at timestamptz,
  released_by text, released_at timestamptz, release_reason text
)
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select h.id, h.token, h.user_id, h.reason, h.added_by, h.added_at, h.released_by, h.released_at,
    h.release_reason
  from pii_vault.holds h
  order by h.added_at, h.id
$$;

