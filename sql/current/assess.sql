-- What an erasure would do with each value of a user's rows, and with each token: whose it is, and who else has it.

-- What stands in this user's rows in place of originals, but for what stands for nothing already. `is_token` is false
-- of a value that is no token of its column.
create or replace function pii_vault.values_of_user(user_id text)
  returns table (field text, value text, is_token boolean, logins bigint)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select v.field, v.value, v.value ~ (v.prefix || '[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'), v.logins
  from (
    select o.field, case o.field when 'ip' then '^ip' else '^dev' end, o.token, count(*)
    from pii_vault.occurrences o
    where o.user_id = values_of_user.user_id
    group by o.field, o.token
  ) v (field, prefix, value, logins)
  where v.value !~ (v.prefix || '0_[a-z2-7]{25}[aeimquy4]$')
$$;

-- How many others use what this user's rows have; looked for among so many of their logins for each.
create or replace function pii_vault.assess_user(user_id text, most integer)
  returns table (field text, value text, is_token boolean, logins bigint, others bigint)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select v.field, v.value, v.is_token, v.logins,
    case when not v.is_token then 0 else (
      select count(distinct coalesce(s.user_id, ''))
      from (
        select o.user_id from pii_vault.occurrences o
        where o.field = v.field and o.token = v.value
          and o.user_id is distinct from assess_user.user_id
        limit most
      ) s
    ) end
  from pii_vault.values_of_user(assess_user.user_id) v
$$;

-- How many logins have this token, and how many users they are of; looked for among so many.
create or replace function pii_vault.users_of(
  token text, most integer, out logins bigint, out users bigint
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with had as (
    select o.user_id from pii_vault.occurrences o
    where o.token = users_of.token
  )
  select
    (select count(*) from (select from had limit most) l),
    -- One, and whoever is somebody else.
    coalesce(
      (
        select 1 + (
          select count(distinct coalesce(s.user_id, ''))
          from (
            select h.user_id from had h where h.user_id is distinct from one.user_id limit most
          ) s
        )
        from (select h.user_id from had h limit 1) one
      ),
      0
    )
$$;

-- What becomes of each: erase; keep, because several users have it; forgotten already; unknown.
create or replace function pii_vault.assess_tokens(tokens text[], most integer)
  returns table (
    "position" bigint, token text, field text, logins bigint, users bigint, outcome text
  )
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select a.place, a.token, pii_vault.field_of(a.token), a.logins, a.users,
    case
      when a.users > 1 then 'keep'
      -- A decoy is to nobody what the vault holds.
      when a.users = 0 and exists (select from pii_vault.canaries c where c.token = a.token)
        then 'unknown'
      when a.users = 1 and not starts_with(a.token, 'ip0_') and not starts_with(a.token, 'dev0_')
        then 'erase'
      when exists (select from pii_vault.originals o where o.token = a.token) then 'erase'
      when exists (select from pii_vault.tombstones t where t.token = a.token) then 'forgotten'
      else 'unknown'
    end
  from (
    select t.place, t.token, u.logins, u.users
    from (
      select min(g.place) as place, g.token
      from unnest(tokens) with ordinality g (token, place) group by g.token
    ) t
    cross join lateral pii_vault.users_of(t.token, most) u
    offset 0
  ) a
$$;
