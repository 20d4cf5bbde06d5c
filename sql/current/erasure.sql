-- What every erasure is made of: the gate that keeps loads out, the tombstones, the rows whose tokens are replaced, and
-- the digests by which a receipt says what it was of and nothing more.

-- One that no longer binds is deleted, by a load or on record; none is ever made to say something else.

-- From here to the end of the transaction no load is under way, and none begins.
create or replace function pii_vault.close_gate() returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pii_vault.require_read_committed('an erasure');
  perform pii_vault.commit_to_disk();
  -- Loads wait behind whoever waits here; and behind a caller who has gone without a word.
  perform pii_vault.at_most('lock_timeout', '5s');
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '10s');
  -- Token by token, also where nothing is known of the tables' sizes yet; and never by a plan that was made for a
  -- few tokens when there are many.
  perform set_config('enable_seqscan', 'off', true);
  perform set_config('plan_cache_mode', 'force_custom_plan', true);
  begin
    lock table pii_vault.erasure_gate in exclusive mode;
  exception when lock_not_available then
    raise exception using
      errcode = '55P03',
      message = 'a load, or another erasure, does not end; nothing was changed',
      hint = 'try again; pg_locks of pii_vault.erasure_gate names the session that holds it';
  end;
  -- An expiry that has looked at what is old, and not erased it yet, looks again.
  update etl.periods p set changes = p.changes + 1
  where p.until <= etl.utc_day(clock_timestamp()) - 14;
end
$$;

-- By this, tombstones and a receipt can be held against each other.
create or replace function pii_vault.token_digest(tokens text[]) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select encode(
    sha256(convert_to(coalesce(string_agg(t, E'\n' order by t collate "C"), ''), 'UTF8')), 'hex'
  )
  from unnest(tokens) t
$$;

create or replace function pii_vault.count_by_field(tokens text[]) returns json
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select json_build_object(
    'ip', count(*) filter (where starts_with(t, 'ip')),
    'device_id', count(*) filter (where not starts_with(t, 'ip'))
  )
  from unnest(tokens) t
$$;

create or replace function pii_vault.user_digest(user_id text) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select encode(sha256(convert_to(user_id, 'UTF8')), 'hex')
$$;

-- Deletes the originals of these tokens, those of every period, and puts a stone in the place of each token. Returns how
-- many tokens had one.
create or replace function pii_vault.bury(tokens text[], erasure uuid) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  originals integer;
begin
  delete from pii_vault.tombstones t where t.token = any (bury.tokens);
  with gone as (
    delete from pii_vault.originals o where o.token = any (bury.tokens) returning o.token
  )
  select count(distinct g.token) into originals from gone g;
  insert into pii_vault.tombstones (token, erasure)
  select u.token, bury.erasure
  from unnest(bury.tokens) u (token) order by u.token collate "C";
  return originals;
end
$$;

-- Puts the fresh values in the place of the old ones: in this user's rows, or in whose they are if none is named.
-- Returns how many rows that were. By their place, because one row may have two: nobody but veil_owner writes there, and
-- no load is under way. Partition by partition, because the same place is in each of them.
create or replace function pii_vault.replace_values(
  user_id text, fields text[], old text[], fresh text[]
) returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  replaced integer := 0;
  wanted integer := 0;
  changes record;
  done integer;
begin
  for changes in
    with rows as materialized (
      -- A user's rows are looked for by the user: others' logins may have the same token a million times.
      select o.field, o.token, o.partition, o.place from pii_vault.occurrences o
      where o.user_id = replace_values.user_id
      union all
      select o.field, o.token, o.partition, o.place
      from unnest(replace_values.fields, replace_values.old) n (field, old)
      join pii_vault.occurrences o on o.field = n.field and o.token = n.old
      where replace_values.user_id is null
    ),
    changed as (
      select r.partition, r.place,
        max(n.fresh) filter (where n.field = 'ip') as ip,
        max(n.fresh) filter (where n.field = 'device_id') as device
      from rows r
      join unnest(replace_values.fields, replace_values.old, replace_values.fresh) n (field, old, fresh)
        on n.field = r.field and n.old = r.token
      group by r.partition, r.place
    )
    select c.partition::regclass as partition, array_agg(c.place) as places, array_agg(c.ip) as ips,
      array_agg(c.device) as devices
    from changed c
    group by c.partition
    order by c.partition
  loop
    execute format(
      'update only %s l
       set masked_ip = coalesce(c.ip, l.masked_ip), masked_device_id = coalesce(c.device, l.masked_device_id)
       from unnest($1, $2, $3) c (place, ip, device)
       where l.ctid = c.place',
      changes.partition
    ) using changes.places, changes.ips, changes.devices;
    get diagnostics done = row_count;
    replaced := replaced + done;
    wanted := wanted + cardinality(changes.places);
  end loop;
  if replaced <> wanted then
    raise exception using
      errcode = 'VL016',
      message = format('public.user_logins took %s of %s changes; nothing was erased', replaced, wanted),
      hint = 'a trigger or a rule on it drops them: veil needs each of them made';
  end if;
  return replaced;
end
$$;

-- Where the entry of an erasure stands in the audit's chain; no row until it does. Only to who made it.
create or replace function pii_vault.place_of(entry bigint) returns table ("position" bigint, hash text)
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select c.position, encode(c.hash, 'hex')
    from pii_vault.audit_chain c
    join pii_vault.audit a on a.id = c.entry
    where a.id = place_of.entry and a.login_oid = pii_vault.caller()
      and a.action ~ '^(erasure|hold|tombstone)[.]';
end
$$;

